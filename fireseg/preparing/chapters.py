"""What a report says in words and tables, part by part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from fireseg.data.cutting.record import TileRecord
from fireseg.data.patches import SPLITS
from fireseg.preparing.contents import Contents, pixel_area_m2
from fireseg.render.page import Section, Table
from fireseg.render.panels import spell_share

_LONG = 20
_TILE_COLUMNS = (
    *("tile", "split", "fire", "date", "rows x cols", "lat, lon"),
    *("patches", "burned ha", "mean cloud", "without"),
)

_MISSING = {
    "DEL": "no delineation: only the grading teaches there",
    "GRA": "no grading: left out by task=gra",
    "CM": "no cloud mask: clouds there are not known and their labels count",
    "json": "no json: date and processing baseline come from the tags, if at all",
}
_KINDS = "overlapping footprints, one acquisition twice, identical or near-identical pixels, one fire in two splits"
_REASONS = {
    "cloud": "more than {max_cloud:.0%} of it under cloud (--max-cloud)",
    "unlabelled": "nothing labelled in it",
}


def summarise(contents: Contents) -> str:
    """The folder in a sentence."""
    manifest = contents.manifest
    number, size = sum(manifest["patches"].values()), manifest["size"]
    activations = {tile.activation for tile in contents.tiles if tile.rows}
    tiles = sum(bool(tile.rows) for tile in contents.tiles)
    return (
        f"{_count(number, 'patch', 'patches')} of {size} x {size} pixels in {len(manifest['bands'])} bands, cut from "
        f"{_count(tiles, 'tile')} of {_count(len(activations), 'fire')}."
    )


def list_warnings(contents: Contents) -> Iterator[Section]:
    """What to look at before training, where there is anything."""
    lines = []
    if leaks := contents.manifest["leaks"]:
        lines.append(f"{_count(len(leaks), 'leak')} between the splits accepted: scores flatter. See Leaks.")
    if bad := sum(bool(tile.faults) for tile in contents.tiles):
        lines.append(f"{_count(bad, 'tile')} could not be used. See Left out.")
    if flagged := sum(bool(tile.flags) for tile in contents.tiles):
        lines.append(f"{_count(flagged, 'tile')} with values that look strange. See Flags.")
    lines += [f"No patch for {split}: training needs some." for split in SPLITS[:2] if split not in contents.splits]
    for counts in contents.balance.classes:
        for name, count in zip(counts.task.class_names, counts.pixels.get("train", ()), strict=False):
            if not count:
                lines.append(f"No training pixel is {name} ({counts.task.name.upper()}).")
    if lines:
        yield Section(name="first", title="Look at this first", text=lines, tone="warn")


def describe_splits(contents: Contents) -> Section:
    """Tiles, fires, patches and pixels of each split."""
    rows = []
    for split in contents.splits:
        tiles = [tile for tile in contents.tiles if tile.split == split and tile.rows]
        counts = contents.balance.classes[0].pixels[split]
        total = contents.manifest["patches"][split] * contents.manifest["size"] ** 2
        labelled = sum(counts)
        rows.append(
            [
                split,
                f"{len(tiles):,}",
                f"{len({tile.activation for tile in tiles}):,}",
                f"{contents.manifest['patches'][split]:,}",
                f"{labelled:,}",
                spell_share(sum(counts[1:]) / labelled) if labelled else "-",
                spell_share(1 - labelled / total),
            ]
        )
    columns = ["split", "tiles", "fires", "patches", "labelled pixels", "burned", "ignored"]
    name = contents.balance.classes[0].task.name.upper()
    text = [
        f"Labels are those of {name}. Burned: of the labelled pixels. Ignored: of all pixels, those without a label "
        "that counts, because nobody labelled them, a cloud hides them, the image has no value there, or, in val "
        "and test, a neighbouring patch has them already."
    ]
    return Section(name="splits", title="Splits", text=text, tables=[Table("By split", columns, rows, "lrrrrrr")])


def describe_left_out(contents: Contents) -> Section:
    """Every window, tile and label that training will not see, and why."""
    options = contents.manifest["options"]
    windows: dict[tuple[str, str], list[int]] = {}
    for tile in contents.tiles:
        for reason, (number, labelled) in tile.left_out.items():
            counts = windows.setdefault((reason, tile.split), [0, 0])
            counts[0] += number
            counts[1] += labelled
    rows = [
        [split, f"{number:,}", f"{labelled:,}", _REASONS.get(reason, reason).format(**options)]
        for (reason, split), (number, labelled) in sorted(
            windows.items(), key=lambda item: (item[0][0], SPLITS.index(item[0][1]))
        )
    ]
    faults = [[f"{tile.split} {tile.name}", fault] for tile in contents.tiles for fault in tile.faults]
    told = {fault for _, fault in faults}
    faults += [["", fault] for fault in contents.manifest["faults"] if fault not in told]
    empty = [[tile.name, tile.split] for tile in contents.tiles if not tile.rows and not tile.faults]
    tables = [
        Table("Windows left out", ["split", "windows", "labelled pixels", "why"], rows, "lrrl"),
        Table("Tiles and files that could not be used", ["tile", "what is wrong"], faults, "ll", len(faults) > _LONG),
        Table("Tiles of which every window was left out", ["tile", "split"], empty, "ll", len(empty) > _LONG),
    ]
    text = list(_describe_ignored(contents))
    if not any((rows, faults, empty)):
        text.insert(0, "No window and no tile was left out.")
    return Section(name="left-out", title="Left out", text=text, tables=[table for table in tables if table.rows])


def _describe_ignored(contents: Contents) -> Iterator[str]:
    options = contents.manifest["options"]
    if options["clouds"] == "keep":
        yield "Labels under clouds are kept (--clouds keep)."
    else:
        light = {"ignore": "Those under light cloud and haze, too.", "keep": "Those under light cloud and haze count."}
        said = light[options["light_clouds"]]
        yield f"Labels under opaque cloud and its shadow are ignored within the patches kept. {said}"
    graded, delineated = (sum(tile.disagreements[side] for tile in contents.tiles) for side in (0, 1))
    if graded or delineated:
        did = {"keep": "both kept", "ignore": "ignored"}[options["disagreement"]]
        yield (
            f"DEL and GRA disagree on {graded:,} pixels graded but not delineated and {delineated:,} delineated but "
            f"not graded: {did} (--disagreement {options['disagreement']})."
        )
    for counts in contents.balance.classes:
        for split in contents.splits:
            if without := contents.manifest["patches"][split] - counts.totals[split]:
                has = f"{_count(without, 'patch', 'patches')} of {split} {'has' if without == 1 else 'have'}"
                yield f"{has} nothing labelled in {counts.task.name.upper()}: left out by task={counts.task.name}."


def describe_leaks(contents: Contents) -> Section:
    """What splits know of each other."""
    leaks, audit = contents.manifest["leaks"], contents.audit
    looked = ""
    if audit:
        looked = f"Looked at {_count(audit['num_tiles'], 'tile')} of {_count(audit['num_activations'], 'fire')}. "
    if not leaks:
        text = [f"{looked}None found: {_KINDS}."]
        return Section(name="leaks", title="Leaks", text=[*text, *audit.get("notes", ())])
    text = [
        f"{looked}These pairs let one split know of another ({_KINDS}). They were accepted with --allow-leaks; "
        "training says so again. Scores on such splits flatter: --split-by activation draws a split without leaks.",
        *audit.get("notes", ()),
    ]
    rows = [[leak.partition(": ")[0], leak.partition(": ")[2]] for leak in leaks]
    table = Table("Leaks accepted", ["kind", "between"], rows, "ll", len(rows) > _LONG)
    return Section(name="leaks", title="Leaks", text=text, tables=[table])


def describe_oddities(contents: Contents) -> Section:
    """Flags of tiles, and files that tiles have not."""
    flags = [[f"{tile.split} {tile.name}", _trim(flag)] for tile in contents.tiles for flag in tile.flags]
    missing = Counter(kind for tile in contents.tiles for kind in tile.missing)
    absent = [[kind, f"{missing[kind]:,}", meaning] for kind, meaning in _MISSING.items() if missing[kind]]
    tables = [
        Table("Tiles that look strange; nothing was changed", ["tile", "what"], flags, "ll", len(flags) > _LONG),
        Table("Files that tiles have not, as is normal", ["file", "tiles", "what that means"], absent, "lrl"),
    ]
    text = [] if flags else ["No tile has values that look strange."]
    if not absent:
        text.append("Every tile has all its files.")
    return Section(name="flags", title="Flags", text=text, tables=[table for table in tables if table.rows])


def describe_tiles(contents: Contents) -> Section:
    """Every tile in a row."""
    rows = [_describe_tile(tile) for tile in contents.tiles]
    tables = [Table("All tiles", _TILE_COLUMNS, rows, "llllllrrrl", len(rows) > _LONG)]
    for column in ("country", "climate"):
        tables += _count_by(contents, column)
    return Section(name="tiles", title="Tiles", tables=tables)


def _describe_tile(tile: TileRecord) -> list[str]:
    place: dict[str, Any] = tile.footprint or {}
    size = centre = area = "-"
    if place:
        west, south, east, north = place["bounds"]
        east += 360 * (east < west)
        longitude = ((west + east) / 2 + 180) % 360 - 180
        size, centre = f"{place['height']} x {place['width']}", f"{(south + north) / 2:.3f}, {longitude:.3f}"
        if "DEL" not in tile.missing:
            area = f"{(place['burned'] or 0) * pixel_area_m2(place) / 10_000:,.0f}"
    clouds = [row["cloud_cover"] for row in tile.rows]
    cloud = spell_share(sum(clouds) / len(clouds)) if clouds and "CM" not in tile.missing else "-"
    date = (place.get("date") or "-")[:10]
    cells = [tile.name, tile.split, tile.activation, date, size, centre, f"{len(tile.rows):,}", area, cloud]
    return [*cells, " ".join(tile.missing) or "-"]


def _count_by(contents: Contents, column: str) -> list[Table]:
    """Patches of each split by a column of metadata.csv, where there is one."""
    splits = contents.splits
    counts = {
        split: Counter(
            row[column] or "unknown"
            for tile in contents.tiles
            if tile.split == split
            for row in tile.rows
            if column in row
        )
        for split in splits
    }
    totals = sum(counts.values(), Counter())
    names = sorted(totals, key=lambda name: (-totals[name], name))
    rows = [[name, *(f"{counts[split][name]:,}" for split in splits)] for name in names]
    align = "l" + "r" * len(splits)
    return [Table(f"Patches by {column}", [column, *splits], rows, align, len(rows) > _LONG)] if rows else []


def describe_recipe(contents: Contents) -> Section:
    """Options and statistics, to be made the same again."""
    manifest = contents.manifest
    rows = [[name, _spell(value)] for name, value in manifest["options"].items()]
    tables = [Table("Options of python -m fireseg.prepare", ["option", "value"], rows, "ll")]
    mean, std = manifest["statistics"]["mean"], manifest["statistics"]["std"]
    if mean:
        bands = [[band, f"{a:.4f}", f"{b:.4f}"] for band, a, b in zip(manifest["bands"], mean, std, strict=True)]
        caption = "Reflectance of the labelled training pixels"
        tables.append(Table(caption, ["band", "mean", "standard deviation"], bands, "lrr"))
    text = ["manifest.json has all of it, with the fingerprint of every source file; metadata.csv has every patch."]
    return Section(name="recipe", title="How they were made", text=text, tables=tables)


def _spell(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(str, value))
    return "-" if value is None else str(value)


def _trim(flag: str) -> str:
    """A flag without the folders of the file that it names, since the tile is named beside it."""
    path, found, what = flag.partition(": ")
    return f"{path.rpartition('/')[2]}: {what}" if found else flag


def _count(number: int, noun: str, nouns: str = "") -> str:
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"
