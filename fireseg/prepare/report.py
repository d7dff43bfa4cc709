"""The report of a finished folder of patches: a page and a picture, made anew from the folder whenever wanted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fireseg.data.format import JOURNAL_NAME, MANIFEST, MASKS, MaskName, masks_file, read_manifest
from fireseg.data.patches import MASK_SUFFIX, SPLITS, read_array
from fireseg.data.reader import map_array, open_split
from fireseg.errors import FiresegError
from fireseg.plots import choose_composite, colour_classes, render_composite
from fireseg.plots.balance import Balance, ClassCounts, Panel, draw_panel, list_panels, render_balance
from fireseg.plots.html import Picture, Section, Strip, Table, encode_pixels, render_page, to_uri
from fireseg.plots.scores import LonLatBox, format_share
from fireseg.prepare.journal import AUDIT, Journal, TileRecord, read_json
from fireseg.task import Task, get_class_names, inverse_frequency_weights

NUM_CLASSES: dict[MaskName, int] = {"del": 2, "gra": 5}

_DEGREE_M = 111_320.0

_M2_PER_HA = 10_000.0


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """A finished folder.

    Attributes:
        root: The folder.
        manifest: What it says of itself.
        tiles: What came of each tile.
        audit: What splits know of each other.
        balance: What it is made of; only masks in which anything is labelled.
    """

    root: Path
    manifest: Mapping[str, Any]
    tiles: tuple[TileRecord, ...]
    audit: Mapping[str, Any]
    balance: Balance

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that have patches."""
        return tuple(split for split in SPLITS if split in self.manifest["patches"])

    @property
    def masks(self) -> tuple[MaskName, ...]:
        """The masks of a patch that hold anything, the first one telling what is labelled."""
        return tuple(name for name in MASKS for counts in self.balance.classes if counts.task.name == name)


def read_contents(root: Path) -> PreparedData:
    """Reads what prepare left in a folder, and all its masks once.

    Raises:
        FiresegError: If the folder was not prepared here, or not to the end.
    """
    if read_manifest(root) is None or not (root / JOURNAL_NAME).exists():
        wanted = f"{MANIFEST} and {JOURNAL_NAME} are wanted"
        raise FiresegError(f"{root}: no finished folder of python -m fireseg.prepare; {wanted}; run it again")
    manifest = read_json(root / MANIFEST)
    tiles = tuple(Journal(root / JOURNAL_NAME).tiles)
    splits = [split for split in SPLITS if split in manifest["patches"]]
    masks = MASKS if manifest["task"] is None else (manifest["task"],)
    classes = [count_classes(root, tiles, splits, mask) for mask in masks]
    labelled = [counts for counts in classes if any(map(sum, counts.pixels.values()))]
    balance = Balance(
        classes=labelled or classes[:1],
        burned={split: [row["burn_fraction"] for row in _iter_rows(tiles, split)] for split in splits},
        cloud={split: list_cloud(tiles, split) for split in splits},
        fires_ha={split: list(sum_fires(tiles, split).values()) for split in splits},
        boxes={split: list_boxes(tiles, split) for split in splits},
    )
    return PreparedData(root=root, manifest=manifest, tiles=tiles, audit=read_json(root / AUDIT), balance=balance)


def get_task(mask: MaskName) -> Task:
    """What the values of a mask mean."""
    number = NUM_CLASSES[mask]
    return Task(name=mask, num_classes=number, class_names=get_class_names(number))


def count_classes(root: Path, tiles: Sequence[TileRecord], splits: Sequence[str], mask: MaskName) -> ClassCounts:
    """Pixels and patches of each class of a mask, by split."""
    number = NUM_CLASSES[mask]
    pixels = {
        split: [
            sum(tile.pixels[mask][value] for tile in tiles if tile.split == split and tile.rows)
            for value in range(number)
        ]
        for split in splits
    }
    patches, totals = {}, {}
    for split in splits:
        present = np.array([_find_classes(one, number) for one in _iter_masks(root / split, tiles, split, mask)])
        patches[split] = present.sum(axis=0).tolist()
        totals[split] = int(present.any(axis=1).sum())
    train = pixels.get("train", ())
    weights = inverse_frequency_weights(train) if any(train) else ()
    return ClassCounts(task=get_task(mask), pixels=pixels, patches=patches, totals=totals, weights=weights)


def list_cloud(tiles: Sequence[TileRecord], split: str) -> list[float]:
    """Share of cloud of each patch of a split, NaN where its tile has no cloud mask."""
    return [
        math.nan if "CM" in tile.missing else row["cloud_cover"]
        for tile in tiles
        if tile.split == split
        for row in tile.rows
    ]


def sum_fires(tiles: Sequence[TileRecord], split: str) -> dict[str, float]:
    """Burned hectares of each activation in a split, as delineated, also under cloud. Shared ground counts twice."""
    found: dict[str, float] = {}
    for tile in tiles:
        if tile.split == split and tile.rows and tile.footprint and "DEL" not in tile.missing:
            area = (tile.footprint["burned"] or 0) * pixel_area_m2(tile.footprint) / _M2_PER_HA
            found[tile.activation] = found.get(tile.activation, 0.0) + area
    return found


def pixel_area_m2(footprint: Mapping[str, Any]) -> float:
    """True area of a pixel in the middle of a tile.

    Example:
        >>> round(pixel_area_m2({"bounds": [0, -0.01, 0.02, 0.01], "height": 200, "width": 200, "outline": None}))
        124
    """
    west, south, east, north = footprint["bounds"]
    corners = footprint["outline"]
    if not corners:
        east = east + 360 if east < west else east
        corners = [(west, south), (east, south), (east, north), (west, north)]
    x, y = np.array(corners, np.float64).T
    degrees2 = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
    return (
        degrees2
        * _DEGREE_M**2
        * math.cos(math.radians((south + north) / 2))
        / (footprint["height"] * footprint["width"])
    )


def list_boxes(tiles: Sequence[TileRecord], split: str) -> list[LonLatBox]:
    """Bounds of the tiles of a split in degrees."""
    places = [tile.footprint["bounds"] for tile in tiles if tile.split == split and tile.footprint]
    return [(west, south, east, north) for west, south, east, north in places]


def _iter_rows(tiles: Sequence[TileRecord], split: str) -> Iterator[dict[str, Any]]:
    return (row for tile in tiles if tile.split == split for row in tile.rows)


def _iter_masks(folder: Path, tiles: Sequence[TileRecord], split: str, mask: MaskName) -> Iterator[NDArray[np.uint8]]:
    packed = folder / masks_file(mask)
    if packed.exists():
        yield from map_array(packed)
        return
    for row in _iter_rows(tiles, split):
        yield read_array(folder / f"{row['patch_id']}{MASK_SUFFIX}")


def _find_classes(mask: NDArray[np.uint8], number: int) -> NDArray[np.bool_]:
    return np.bincount(mask.ravel(), minlength=256)[:number] > 0


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


def summarise(contents: PreparedData) -> str:
    """The folder in a sentence."""
    manifest = contents.manifest
    number, size = sum(manifest["patches"].values()), manifest["size"]
    activations = {tile.activation for tile in contents.tiles if tile.rows}
    tiles = sum(bool(tile.rows) for tile in contents.tiles)
    return (
        f"{_count(number, 'patch', 'patches')} of {size} x {size} pixels in {len(manifest['bands'])} bands, cut from "
        f"{_count(tiles, 'tile')} of {_count(len(activations), 'fire')}."
    )


def list_warnings(contents: PreparedData) -> Iterator[Section]:
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


def describe_splits(contents: PreparedData) -> Section:
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
                format_share(sum(counts[1:]) / labelled) if labelled else "-",
                format_share(1 - labelled / total),
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


def describe_left_out(contents: PreparedData) -> Section:
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


def _describe_ignored(contents: PreparedData) -> Iterator[str]:
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


def describe_leaks(contents: PreparedData) -> Section:
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


def describe_oddities(contents: PreparedData) -> Section:
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


def describe_tiles(contents: PreparedData) -> Section:
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
    cloud = format_share(sum(clouds) / len(clouds)) if clouds and "CM" not in tile.missing else "-"
    date = (place.get("date") or "-")[:10]
    cells = [tile.name, tile.split, tile.activation, date, size, centre, f"{len(tile.rows):,}", area, cloud]
    return [*cells, " ".join(tile.missing) or "-"]


def _count_by(contents: PreparedData, column: str) -> list[Table]:
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


def describe_recipe(contents: PreparedData) -> Section:
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


NUM_EXAMPLES = 16


class Example(NamedTuple):
    """A patch to be shown.

    Attributes:
        name: Its name.
        split: Its split.
        activation: The event that it belongs to.
        facts: Its row of metadata.csv.
        image: Reflectance, `(C, H, W)` float32.
        masks: Classes by task, `(H, W)` uint8 each.
    """

    name: str
    split: str
    activation: str
    facts: Mapping[str, Any]
    image: NDArray[np.float32]
    masks: Mapping[MaskName, NDArray[np.uint8]]


def select_examples(
    tiles: Sequence[TileRecord], splits: Sequence[str], count: int = NUM_EXAMPLES
) -> dict[str, list[Mapping[str, Any]]]:
    """Chooses patches that differ: from little burned to much, of as many events as there are, the same each time.

    Half of them come from the training split, the rest from the others; about a quarter has no fire.

    Args:
        tiles: What came of each tile.
        splits: Those that have patches.
        count: How many to choose.

    Returns:
        Rows of metadata.csv by split.
    """
    rows = {split: [row for tile in tiles if tile.split == split for row in tile.rows] for split in splits}
    return {split: _spread(rows[split], number) for split, number in _share_out(rows, count).items()}


def read_examples(
    root: Path, picked: Mapping[str, Sequence[Mapping[str, Any]]], masks: Sequence[MaskName]
) -> list[Example]:
    """Reads the patches chosen.

    Args:
        root: Folder of the splits.
        picked: Rows of metadata.csv by split.
        masks: Which masks to read.
    """
    found = []
    for split, rows in picked.items():
        names = [row["patch_id"] for row in rows]
        sources = {mask: open_split(root / split, mask).select(names) for mask in masks}
        for number, row in enumerate(rows):
            read = {mask: source.read(number) for mask, source in sources.items()}
            image = read[masks[0]][0].transpose(2, 0, 1)
            labels: dict[MaskName, NDArray[np.uint8]] = {mask: read[mask][1] for mask in masks}
            found.append(Example(row["patch_id"], split, row["activation"], row, image, labels))
    return found


def _share_out(rows: Mapping[str, Sequence[Any]], count: int) -> dict[str, int]:
    """Half of the examples to the first split, what is left to the others in turn; none gets more than it has."""
    splits = list(rows)
    shares = dict.fromkeys(splits, 0)
    turns = [splits[0]] * (len(splits) - 1) + splits[1:] if len(splits) > 1 else splits
    left = min(count, sum(map(len, rows.values())))
    while left:
        for split in turns:
            if left and shares[split] < len(rows[split]):
                shares[split] += 1
                left -= 1
    return shares


def _spread(rows: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """Rows from the least burned to the most burned; within a step, of the event shown least so far."""
    order = sorted(rows, key=lambda row: (row["burn_fraction"], row["patch_id"]))
    bare = [row for row in order if row["burn_fraction"] == 0]
    burned = order[len(bare) :]
    num_burned = min(len(burned), max(count - count // 4, count - len(bare)))
    shown: Counter[str] = Counter()
    picked = []
    for group, number in ((bare, count - num_burned), (burned, num_burned)):
        edges = np.linspace(0, len(group), number + 1).astype(int).tolist()
        for first, last in pairwise(edges):
            step = group[first:last]
            middle = len(step) // 2
            best = min(range(len(step)), key=lambda place: (shown[step[place]["activation"]], abs(place - middle)))
            shown[step[best]["activation"]] += 1
            picked.append(step[best])
    return picked


REPORT = "report.html"

BALANCE = "balance.png"


def write_report(patches_root: Path) -> None:
    """Draws `balance.png` and writes `report.html` into a finished folder of patches. The page is written last.

    The bytes depend on what is in the folder alone, not on its place or on the time of day.

    Args:
        patches_root: A folder that `python -m fireseg.prepare` finished.

    Raises:
        FiresegError: If it did not, files are gone, or nothing can be written.
    """
    contents = read_contents(patches_root)
    summary = summarise(contents)
    render_balance(contents.balance, patches_root / BALANCE, title=summary)
    shown = list_panels(contents.balance)
    sections = [
        *list_warnings(contents),
        describe_splits(contents),
        _show_classes(contents, shown),
        _show_patches(shown),
        _show_map(shown),
        _show_examples(contents),
        describe_left_out(contents),
        describe_leaks(contents),
        describe_oddities(contents),
        describe_tiles(contents),
        describe_recipe(contents),
    ]
    render_page(patches_root / REPORT, title="What these patches hold", summary=summary, sections=sections)


def _show_classes(contents: PreparedData, shown: Sequence[Panel]) -> Section:
    text = [
        "How common each class is decides how much a pixel of it should weigh. The recommended weights come from the "
        "training split alone: inverse frequency, the largest at most 20 times the smallest, mean 1. Training works "
        "them out by itself (loss.class_weights=true, loss.weight_cap=20), so there is nothing to copy.",
        "Training patches overlap, so ground in two patches counts twice. In val and test every pixel counts once.",
    ]
    tables = []
    for counts in contents.balance.classes:
        names = counts.task.class_names
        rows = []
        for number, name in enumerate(names):
            cells = [f"{counts.pixels[split][number]:,}" for split in contents.splits]
            cells += [f"{counts.patches[split][number]:,}" for split in contents.splits]
            rows.append([name, *cells, f"{counts.weights[number]:.4g}" if counts.weights else "-"])
        columns = ["class", *(f"{split} px" for split in contents.splits)]
        columns += [*(f"{split} patches" for split in contents.splits), "weight"]
        kind = {"del": "Delineation (DEL)", "gra": "Grading (GRA)"}.get(counts.task.name, counts.task.name)
        caption = f"{kind}: pixels, patches with it, weight"
        tables.append(Table(caption, columns, rows, "l" + "r" * (len(columns) - 1)))
    pictures = _draw(shown, "classes")
    return Section(name="classes", title="Classes and their weights", text=text, pictures=pictures, tables=tables)


def _show_patches(shown: Sequence[Panel]) -> Section:
    text = [
        "A fire is an activation: the burned area of all its tiles as delineated, clouds or not; where tiles of one "
        "activation overlap, the ground counts twice. The lines are medians. The numbers on the bars are patches."
    ]
    return Section(name="fires", title="Fires and clouds", text=text, pictures=_draw(shown, "patches"))


def _show_map(shown: Sequence[Panel]) -> Section:
    text = [
        "Footprints of the tiles in degrees, north up; tiles too small to be seen at this scale have a mark around "
        "them. Colours and marks show the split. There is no base map, since this page asks no network for anything."
    ]
    return Section(name="map", title="Where the tiles lie", text=text, pictures=_draw(shown, "map"))


def _draw(shown: Sequence[Panel], kind: str) -> list[Picture]:
    return [
        Picture("" if kind == "map" else panel.title, to_uri(draw_panel(panel), "png"), panel.alt, panel.is_wide)
        for panel in shown
        if panel.kind == kind
    ]


def _show_examples(contents: PreparedData) -> Section:
    picked = select_examples(contents.tiles, contents.splits)
    examples = read_examples(contents.root, picked, contents.masks)
    bands = contents.manifest["bands"]
    text = [
        "Chosen to differ, not at random: from little burned to much, of as many fires as there are, and about a "
        f"quarter without fire. Images: {choose_composite(bands).caption}. Striped: not labelled, under cloud, "
        "beyond the tile, or counted in a neighbouring patch; it weighs nothing in training and scores."
    ]
    several = len(contents.masks) > 1
    key = {
        f"{counts.task.name.upper()} {name}" if several else name: colour
        for counts in contents.balance.classes
        for name, colour in zip(counts.task.class_names, counts.task.colours, strict=True)
    }
    key["not labelled"] = "repeating-linear-gradient(135deg, #fff 0 3px, #8c8c8c 3px 6px)"
    strips = [_show_example(example, bands) for example in examples]
    title = f"{len(strips)} examples" if len(strips) != 1 else "One example"
    return Section(name="examples", title=title, text=text, strips=strips, key=list(key.items()))


def _show_example(example: Example, bands: Sequence[str]) -> Strip:
    burned = format_share(example.facts["burn_fraction"])
    picture = encode_pixels(render_composite(example.image, bands), "jpeg")
    pictures = [Picture("image", picture, f"Satellite image of patch {example.name}")]
    for mask, labels in example.masks.items():
        alt = f"{mask.upper()} mask of patch {example.name}: {burned} of its labelled pixels burned"
        pictures.append(Picture(mask.upper(), encode_pixels(colour_classes(labels, get_task(mask)), "png"), alt))
    cloud = example.facts["cloud_cover"]
    caption = f"{example.split}, {burned} burned" + (f", {format_share(cloud)} cloud" if cloud else "")
    return Strip(example.name, caption, pictures)
