"""Report of a finished folder of patches: report.html and balance.png, made from the folder alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray

from fireseg.console import format_count, format_share
from fireseg.data.format import JOURNAL_NAME, MANIFEST, MASKS, MaskName, masks_file, read_manifest
from fireseg.data.patches import ALL, MASK_SUFFIX, SPLITS, read_array
from fireseg.data.reader import map_array, open_split
from fireseg.errors import FiresegError
from fireseg.geo.grid import M2_PER_HA, get_geod
from fireseg.pairs import split_pair
from fireseg.plots import choose_composite, colour_classes, render_composite
from fireseg.plots.balance import Balance, ClassCounts, LonLatBox, draw_panel, list_panels, render_balance
from fireseg.plots.html import Cell, Picture, Strip, encode_pixels, to_uri, write_page
from fireseg.prepare.footprints import degrees_east
from fireseg.prepare.journal import Journal, TileRecord
from fireseg.prepare.output import AUDIT, read_json
from fireseg.prepare.pipeline import REPORT, advise_window_size
from fireseg.task import TASKS, inverse_frequency_weights

BALANCE = "balance.png"

NUM_EXAMPLES = 16


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """A finished folder of patches.

    Attributes:
        root: The folder.
        manifest: Content of manifest.json.
        tiles: Records of the tiles.
        audit: Content of audit.json.
        balance: Class and fire statistics; only of masks that contain labels.
    """

    root: Path
    manifest: Mapping[str, Any]
    tiles: tuple[TileRecord, ...]
    audit: Mapping[str, Any]
    balance: Balance

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that have patches."""
        return tuple(split for split in (*SPLITS, ALL) if split in self.manifest["patches"])

    @property
    def masks(self) -> tuple[MaskName, ...]:
        """Masks that contain labels."""
        return tuple(name for name in MASKS for counts in self.balance.classes if counts.task.name == name)

    def iter_tiles(self, split: str) -> Iterator[TileRecord]:
        """Yields the tiles that have patches in a split."""
        return (tile for tile in self.tiles if tile.split == split and tile.rows)


class Example(NamedTuple):
    """A patch shown in the report.

    Attributes:
        row: Its row of metadata.csv.
        split: Its split.
        image: Reflectance, `(C, H, W)` float32.
        masks: Classes by mask, `(H, W)` uint8 each.
    """

    row: Mapping[str, Any]
    split: str
    image: NDArray[np.float32]
    masks: Mapping[MaskName, NDArray[np.uint8]]


def write_report(patches_root: Path) -> None:
    """Writes `balance.png` and `report.html` into a finished folder of patches, the page last.

    The files depend only on the content of the folder, not on its path or the time.

    Args:
        patches_root: A folder finished by `python -m fireseg.prepare`.

    Raises:
        FiresegError: If the folder is not finished, files are missing, or the output cannot be written.
    """
    data = read_prepared(patches_root)
    summary = _summarize(data)
    render_balance(data.balance, patches_root / BALANCE, title=summary)
    tiles = data.tiles
    is_unlabelled = data.manifest["options"].get("unlabelled", False)
    write_page(
        patches_root / REPORT,
        "prepare.html.j2",
        summary=summary,
        manifest=data.manifest,
        audit=data.audit,
        splits=list(data.splits),
        classes=data.balance.classes,
        split_rows=[_make_split_row(data, split) for split in data.splits],
        figures=_draw_figures(data.balance),
        examples=[_make_strip(example, data.manifest["bands"]) for example in read_examples(data)],
        composite=choose_composite(data.manifest["bands"]).caption,
        colours=_list_colours(data),
        left_out=_count_left_out(data),
        faults=_list_faults(data),
        empty=[tile for tile in tiles if not tile.rows and not tile.faults],
        graded_only=sum(tile.disagreements[0] for tile in tiles),
        delineated_only=sum(tile.disagreements[1] for tile in tiles),
        size_advice="" if is_unlabelled else advise_window_size(tiles, data.manifest["size"]),
        flags=[(f"{tile.split} {tile.name}", _shorten_path(flag)) for tile in tiles for flag in tile.flags],
        missing=Counter(kind for tile in tiles for kind in tile.missing),
        tile_rows=[_make_tile_row(tile) for tile in tiles],
        groups={column: rows for column in ("country", "climate") if (rows := _count_by(data, column))},
    )


def read_prepared(root: Path) -> PreparedData:
    """Reads a finished folder of patches, including all masks.

    Raises:
        FiresegError: If the folder was not made by prepare, or is not finished.
    """
    if read_manifest(root) is None or not (root / JOURNAL_NAME).exists():
        needed = f"{MANIFEST} and {JOURNAL_NAME} are required"
        raise FiresegError(f"{root}: not a finished folder of python -m fireseg.prepare; {needed}; run it again")
    manifest = read_json(root / MANIFEST)
    tiles = tuple(Journal(root / JOURNAL_NAME).tiles)
    splits = [split for split in (*SPLITS, ALL) if split in manifest["patches"]]
    masks = MASKS if manifest["task"] is None else (manifest["task"],)
    classes = [_count_classes(root, tiles, splits, mask) for mask in masks]
    labelled = [counts for counts in classes if any(map(sum, counts.pixels.values()))]
    balance = Balance(
        classes=labelled or classes[:1],
        burned={split: [row["burn_fraction"] for row in _iter_rows(tiles, split)] for split in splits},
        cloud={split: _list_cloud(tiles, split) for split in splits},
        fires_ha={split: list(_sum_fires_ha(tiles, split).values()) for split in splits},
        boxes={split: _list_boxes(tiles, split) for split in splits},
    )
    return PreparedData(root=root, manifest=manifest, tiles=tiles, audit=read_json(root / AUDIT), balance=balance)


def select_examples(
    tiles: Sequence[TileRecord], splits: Sequence[str], count: int = NUM_EXAMPLES
) -> dict[str, list[Mapping[str, Any]]]:
    """Selects diverse patches, from little to much burned area and of as many fires as possible, deterministically.

    Half of them are from the training split, the rest from the others; about a quarter has no fire.

    Args:
        tiles: Records of the tiles.
        splits: Splits that have patches.
        count: Number of patches to select.

    Returns:
        Rows of metadata.csv by split.
    """
    rows = {split: list(_iter_rows(tiles, split)) for split in splits}
    return {split: _select_rows(rows[split], number) for split, number in _share_count(rows, count).items()}


def read_examples(data: PreparedData) -> Iterator[Example]:
    """Reads the patches that the report shows."""
    for split, rows in select_examples(data.tiles, data.splits).items():
        names = [row["patch_id"] for row in rows]
        sources = {mask: open_split(data.root / split, mask).select(names) for mask in data.masks}
        for number, row in enumerate(rows):
            read = {mask: source.read(number) for mask, source in sources.items()}
            image = read[data.masks[0]][0].transpose(2, 0, 1)
            masks: dict[MaskName, NDArray[np.uint8]] = {mask: read[mask][1] for mask in data.masks}
            yield Example(row, split, image, masks)


def _share_count(rows: Mapping[str, Sequence[Any]], count: int) -> dict[str, int]:
    """Assigns half of the examples to the first split and the rest to the others in turn, as far as they have rows."""
    splits = list(rows)
    shares = dict.fromkeys(splits, 0)
    turns = [splits[0]] * (len(splits) - 1) + splits[1:] if len(splits) > 1 else splits
    remaining = min(count, sum(map(len, rows.values())))
    while remaining:
        for split in turns:
            if remaining and shares[split] < len(rows[split]):
                shares[split] += 1
                remaining -= 1
    return shares


def _select_rows(rows: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """Selects rows in equal steps of burned area; within a step, of the activation selected least often so far."""
    order = sorted(rows, key=lambda row: (row["burn_fraction"], row["patch_id"]))
    unburned = [row for row in order if row["burn_fraction"] == 0]
    burned = order[len(unburned) :]
    num_burned = min(len(burned), max(count - count // 4, count - len(unburned)))
    num_selected: Counter[str] = Counter()
    selected = []
    for group, number in ((unburned, count - num_burned), (burned, num_burned)):
        edges = np.linspace(0, len(group), number + 1).astype(int).tolist()
        for first, last in pairwise(edges):
            step = group[first:last]
            middle = len(step) // 2
            best = min(
                range(len(step)), key=lambda index: (num_selected[step[index]["activation"]], abs(index - middle))
            )
            num_selected[step[best]["activation"]] += 1
            selected.append(step[best])
    return selected


def _iter_rows(tiles: Sequence[TileRecord], split: str) -> Iterator[dict[str, Any]]:
    return (row for tile in tiles if tile.split == split for row in tile.rows)


def _count_classes(root: Path, tiles: Sequence[TileRecord], splits: Sequence[str], mask: MaskName) -> ClassCounts:
    """Counts the pixels and patches of each class of a mask, by split."""
    num_classes = TASKS[mask].num_classes
    pixels, patches, totals = {}, {}, {}
    for split in splits:
        counts = [tile.pixels[mask] for tile in tiles if tile.split == split and tile.rows]
        pixels[split] = [sum(row[value] for row in counts) for value in range(num_classes)]
        is_present = np.array(
            [np.bincount(one.ravel(), minlength=256)[:num_classes] > 0 for one in _iter_masks(root, tiles, split, mask)]
        )
        patches[split] = is_present.sum(axis=0).tolist()
        totals[split] = int(is_present.any(axis=1).sum())
    train = pixels.get("train", ())
    weights = inverse_frequency_weights(train) if any(train) else ()
    return ClassCounts(task=TASKS[mask], pixels=pixels, patches=patches, totals=totals, weights=weights)


def _iter_masks(root: Path, tiles: Sequence[TileRecord], split: str, mask: MaskName) -> Iterator[NDArray[np.uint8]]:
    packed = root / split / masks_file(mask)
    if packed.exists():
        yield from map_array(packed)
        return
    for row in _iter_rows(tiles, split):
        yield read_array(root / split / f"{row['patch_id']}{MASK_SUFFIX}")


def _list_cloud(tiles: Sequence[TileRecord], split: str) -> list[float]:
    """Returns the cloud cover of each patch of a split, NaN if its tile has no cloud mask."""
    return [
        math.nan if "CM" in tile.missing else row["cloud_cover"]
        for tile in tiles
        if tile.split == split
        for row in tile.rows
    ]


def _sum_fires_ha(tiles: Sequence[TileRecord], split: str) -> dict[str, float]:
    """Sums the delineated hectares of each activation in a split, also under cloud; overlaps count twice."""
    areas: dict[str, float] = {}
    for tile in tiles:
        if tile.split == split and tile.rows and (area := _burned_ha(tile)) is not None:
            areas[tile.activation] = areas.get(tile.activation, 0.0) + area
    return areas


def _burned_ha(tile: TileRecord) -> float | None:
    """Returns the delineated hectares of a tile: its share of burned pixels of the geodesic area of its footprint."""
    if not tile.footprint or "DEL" in tile.missing:
        return None
    west, south, east, north = tile.footprint["bounds"]
    east = west + degrees_east(west, east)
    corners = tile.footprint["outline"] or [(west, south), (east, south), (east, north), (west, north)]
    num_pixels = tile.footprint["height"] * tile.footprint["width"]
    area_m2 = abs(get_geod().geometry_area_perimeter(shapely.Polygon(corners))[0])
    return (tile.footprint["burned"] or 0) * area_m2 / num_pixels / M2_PER_HA


def _list_boxes(tiles: Sequence[TileRecord], split: str) -> list[LonLatBox]:
    bounds = [tile.footprint["bounds"] for tile in tiles if tile.split == split and tile.footprint]
    return [(west, south, east, north) for west, south, east, north in bounds]


def _summarize(data: PreparedData) -> str:
    manifest = data.manifest
    patches = format_count(sum(manifest["patches"].values()), "patch", "patches")
    tiles = [tile for tile in data.tiles if tile.rows]
    fires = format_count(len({tile.activation for tile in tiles}), "fire")
    size, bands = manifest["size"], format_count(len(manifest["bands"]), "band")
    return f"{patches} of {size} x {size} pixels, {bands}, from {format_count(len(tiles), 'tile')} of {fires}."


def _make_split_row(data: PreparedData, split: str) -> dict[str, Any]:
    tiles = list(data.iter_tiles(split))
    counts = data.balance.classes[0].pixels[split]
    num_patches = data.manifest["patches"][split]
    labelled = sum(counts)
    return {
        "split": split,
        "tiles": len(tiles),
        "fires": len({tile.activation for tile in tiles}),
        "patches": num_patches,
        "labelled": labelled,
        "burned": _share_cell(sum(counts[1:]) / labelled if labelled else None),
        "ignored": _share_cell(1 - labelled / (num_patches * data.manifest["size"] ** 2)),
    }


def _share_cell(share: float | None) -> Cell:
    return Cell("-" if share is None else format_share(share), share)


def _draw_figures(balance: Balance) -> dict[str, list[Picture]]:
    figures: dict[str, list[Picture]] = {"classes": [], "patches": [], "map": []}
    for panel in list_panels(balance):
        title = "" if panel.kind == "map" else panel.title  # the section has it
        figures[panel.kind].append(Picture(title, to_uri(draw_panel(panel), "png"), panel.alt, panel.is_wide))
    return figures


def _make_strip(example: Example, bands: Sequence[str]) -> Strip:
    name = example.row["patch_id"]
    burned, cloud = format_share(example.row["burn_fraction"]), example.row["cloud_cover"]
    image = encode_pixels(render_composite(example.image, bands), "jpeg")
    pictures = [Picture("image", image, f"Satellite image of patch {name}")]
    post, pre = split_pair(bands)
    if pre:
        before = encode_pixels(render_composite(example.image[len(post) :], pre), "jpeg")
        pictures.insert(0, Picture("before", before, f"Satellite image before the fire of patch {name}"))
    for mask, labels in example.masks.items():
        alt = f"{mask.upper()} mask of patch {name}: {burned} of its labelled pixels burned"
        pictures.append(Picture(mask.upper(), encode_pixels(colour_classes(labels, TASKS[mask]), "png"), alt))
    caption = f"{example.split}, {burned} burned" + (f", {format_share(cloud)} cloud" if cloud else "")
    return Strip(name, caption, pictures)


def _list_colours(data: PreparedData) -> list[tuple[str, str]]:
    has_several = len(data.masks) > 1
    colours = {
        f"{counts.task.name.upper()} {name}" if has_several else name: colour
        for counts in data.balance.classes
        for name, colour in zip(counts.task.labels, counts.task.colours, strict=True)
    }
    return [*colours.items(), ("ignored", "repeating-linear-gradient(135deg, #fff 0 3px, #8c8c8c 3px 6px)")]


def _count_left_out(data: PreparedData) -> list[dict[str, Any]]:
    splits, totals = (*SPLITS, ALL), dict[tuple[str, int], list[int]]()
    for tile in data.tiles:
        for reason, counts in tile.left_out.items():
            total = totals.setdefault((reason, splits.index(tile.split)), [0, 0])
            totals[reason, splits.index(tile.split)] = [sum(pair) for pair in zip(total, counts, strict=True)]
    return [
        {"reason": reason, "split": splits[split], "windows": windows, "labelled_pixels": pixels}
        for (reason, split), (windows, pixels) in sorted(totals.items())
    ]


def _list_faults(data: PreparedData) -> list[tuple[str, str]]:
    """Returns the faults with their tiles, then those of files that belong to no tile."""
    faults = [(f"{tile.split} {tile.name}", fault) for tile in data.tiles for fault in tile.faults]
    of_tiles = {fault for _, fault in faults}
    return faults + [("", fault) for fault in data.manifest["faults"] if fault not in of_tiles]


def _make_tile_row(tile: TileRecord) -> dict[str, Any]:
    footprint: dict[str, Any] = tile.footprint or {}
    size = centre = "-"
    if footprint:
        west, south, east, north = footprint["bounds"]
        longitude = (west + degrees_east(west, east) / 2 + 180) % 360 - 180
        size, centre = f"{footprint['height']} x {footprint['width']}", f"{(south + north) / 2:.3f}, {longitude:.3f}"
    clouds = [row["cloud_cover"] for row in tile.rows]
    return {
        "name": tile.name,
        "split": tile.split,
        "fire": tile.activation,
        "date": (footprint.get("date") or "-")[:10],
        "size": size,
        "centre": centre,
        "patches": len(tile.rows),
        "burned_ha": _burned_ha(tile),
        "cloud": _share_cell(sum(clouds) / len(clouds) if clouds and "CM" not in tile.missing else None),
        "missing": " ".join(tile.missing) or "-",
    }


def _count_by(data: PreparedData, column: str) -> list[tuple[str, list[int]]]:
    """Counts the patches of each split by a column of metadata.csv, the most frequent value first."""
    counts = [
        Counter(row[column] or "unknown" for row in _iter_rows(data.tiles, split) if column in row)
        for split in data.splits
    ]
    totals = sum(counts, Counter())
    names = sorted(totals, key=lambda name: (-totals[name], name))
    return [(name, [count[name] for count in counts]) for name in names]


def _shorten_path(flag: str) -> str:
    """Removes the folders of the file that a flag names; the tile is in another column."""
    path, separator, text = flag.partition(": ")
    return f"{path.rpartition('/')[2]}: {text}" if separator else flag
