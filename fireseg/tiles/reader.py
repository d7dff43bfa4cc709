"""Reads tiles: image, masks, location and date."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from fireseg.errors import FiresegError
from fireseg.geo.grid import Grid
from fireseg.geo.windows import Window
from fireseg.memory import check_memory
from fireseg.task import IGNORE_INDEX
from fireseg.tiles.blocks import ChannelSelection, PixelSample, read_window, select_channels, set_gdal_cache
from fireseg.tiles.clouds import CloudMask, is_cloudy
from fireseg.tiles.folder import (
    RASTER_SUFFIXES,
    VECTOR_SUFFIXES,
    TileFiles,
    TileSearch,
    group_tile_files,
    is_scene_classification_file,
    report_orphan_masks,
)
from fireseg.tiles.landcover import read_landcover
from fireseg.tiles.masks import Mask, MaskKind, check_unknown_pixels, read_mask
from fireseg.tiles.metadata import find_date, find_level, flatten_metadata, read_metadata_beside
from fireseg.tiles.options import DEFAULT_LABELS, DEFAULT_OPTIONS, LabelOptions, RasterOptions
from fireseg.tiles.pair import list_pair_flags
from fireseg.tiles.raster_file import collect_errors, is_quick_look, open_raster, read_grid
from fireseg.tiles.scene import open_bands
from fireseg.tiles.vectors import read_vector_mask

_MASKS: dict[str, MaskKind] = {"delineation": "DEL", "grading": "GRA", "cloud": "CM"}


class PreImage(NamedTuple):
    """A scene before the fire on the grid of a tile.

    Attributes:
        image: `(H, W, C)` uint16, reflectance x 10000; 0 where unknown.
        unknown: `(H, W)`, True where a requested band has no value.
        cloudy: `(H, W)`, True under cloud or cloud shadow; all False if its clouds are unknown.
    """

    image: NDArray[np.uint16]
    unknown: NDArray[np.bool_]
    cloudy: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Tile:
    """Image, masks and location of a tile.

    Attributes:
        image: `(H, W, C)` uint16, reflectance x 10000, rounded, clipped to 0..1; 0 where unknown.
        unknown: `(H, W)`, True where a requested band has no value.
        delineation: `(H, W)` uint8, 0, 1, 255; all 255 if the tile has none.
        grading: `(H, W)` uint8, 0 to 4, 255; None if the tile has none.
        cloud: `(H, W)` uint8, 0 clear, 1 cloud, 2 light cloud, 3 shadow, 255 unknown; None if the tile has none.
        landcover: `(H, W)` uint8, position of the class in `LANDCOVER_CLASSES`, 255 unknown; None if the tile has none.
        grid: Pixel grid of the image.
        date: Acquisition date, see `find_date`; None if unknown.
        level: Processing level, `1C` or `2A`; None if unknown.
        ignored: Names of the channels that are neither bands nor masks.
        flags: Warnings about suspicious values, each prefixed with its file.
        pre: Scene before the fire; None of a tile that is no pair.
    """

    image: NDArray[np.uint16]
    unknown: NDArray[np.bool_]
    delineation: NDArray[np.uint8]
    grading: NDArray[np.uint8] | None
    cloud: NDArray[np.uint8] | None
    landcover: NDArray[np.uint8] | None = None
    grid: Grid
    date: str | None
    level: str | None
    ignored: tuple[str, ...]
    flags: tuple[str, ...]
    pre: PreImage | None = None


def find_tiles(root: Path, labels: LabelOptions = DEFAULT_LABELS) -> TileSearch:
    """Finds all tiles below a folder.

    Pictures for display (8 bits, at most four channels) under the name of an image, and png files of several channels
    under that of a CEMS mask, are skipped.

    Args:
        root: Folder of tiles, with or without the folders `train`, `val` and `test`.
        labels: Names of images and masks, if they are not those of CEMS.

    Raises:
        FiresegError: If the folder does not exist or has no tile, or a pattern of `labels` matches no raster.
    """
    if not root.is_dir():
        raise FiresegError(f"{root}: no such folder; give the folder of the tiles, the one with train and val in it")
    search = group_tile_files(root, labels)
    tiles, faults = [], list(search.faults)
    for files in search.tiles:
        if not _is_quick_look_file(files.image):
            is_named = labels.images is not None  # such masks are wanted, so a picture among them is a fault
            pictures = [] if is_named else [name for name in _MASKS if _is_picture_of_mask(getattr(files, name))]
            tiles.append(replace(files, **dict.fromkeys(pictures)))
        else:
            faults += report_orphan_masks(files.name, (path for path in files.paths[1:] if path != files.metadata))
    faults.sort()
    if not tiles:
        raise FiresegError(
            f"{root}: no tile found, which is a <name>_S2L2A.tif (or {' '.join(RASTER_SUFFIXES[1:])}) with Sentinel-2 "
            "bands, at any depth; check the folder, and whether the archives are unpacked, or give the names of images "
            "and masks with --images and --masks",
            *map(str, faults),
        )
    return TileSearch(tuple(tiles), tuple(faults))


def read_grid_and_date(files: TileFiles) -> tuple[Grid, str | None]:
    """Reads the grid and the acquisition date of a tile, but no pixels.

    Args:
        files: Files of the tile.

    Raises:
        FiresegError: If the image or the json cannot be read, or the image has no valid georeference.
    """
    metadata = read_metadata_beside(files.image, files.metadata)
    with open_raster(files.image) as raster:
        return read_grid(raster, str(files.image)), _read_date(raster, metadata)


def read_tile(
    files: TileFiles,
    bands: Sequence[str],
    options: RasterOptions = DEFAULT_OPTIONS,
    labels: LabelOptions = DEFAULT_LABELS,
) -> Tile:
    """Reads a tile and checks that its files match.

    Args:
        files: Files of the tile.
        bands: Names of the requested bands, in the order of the channels; of the scene before the fire as well, if the
            tile has one.
        options: Options used where the metadata are silent.
        labels: Options for reading the masks.

    Raises:
        FiresegError: With all faults of all files: unreadable files, masks on another grid, invalid mask values,
            missing bands, no mask at all unless such tiles are wanted, a delineation in which 255 seems to mean burned.
    """
    faults: list[str] = []
    with collect_errors(faults):
        if not (files.delineation or files.grading or labels.unlabelled):
            raise FiresegError(
                f"{files.image}: no label mask {files.name}_DEL.tif or {files.name}_GRA.tif, nor one that --masks or "
                "--gradings matches; add one of them, or prepare it for self-training with --unlabelled"
            )
    metadata: dict[str, Any] = {}
    with collect_errors(faults):
        metadata = read_metadata_beside(files.image, files.metadata)
    flags: list[str] = []
    parts: dict[str, Any] = {}
    masks: dict[str, Mask] = {}
    with collect_errors(faults), open_raster(files.image) as raster:
        _check_tile_memory(raster, len(bands) * (1 if files.pre is None else 2))
        with collect_errors(faults):
            parts["grid"] = read_grid(raster, str(files.image))
        pairs = flatten_metadata(raster.tags(), metadata, {"name": str(Path(raster.name).absolute())})
        parts["date"], parts["level"] = find_date(pairs), find_level(pairs)
        for name, kind in _MASKS.items():
            if (path := getattr(files, name)) and not (name == "cloud" and is_scene_classification_file(path)):
                with collect_errors(faults):
                    if path.suffix.lower() not in VECTOR_SUFFIXES or "grid" in parts:
                        masks[name] = _read_labels(path, kind, raster, parts.get("grid"), labels)
        if files.landcover is not None and labels.landcover is not None:
            with collect_errors(faults), open_raster(files.landcover) as landcover:
                parts["landcover"] = read_landcover(landcover, raster, labels.landcover)
        with collect_errors(faults):
            parts["image"], parts["unknown"], channels = _read_image(raster, bands, metadata, options, flags)
            parts["ignored"], scl = channels.ignored, channels.scl
            has_scl = scl if files.cloud is None else is_scene_classification_file(files.cloud)
            if has_scl and "grid" in parts:
                channel = scl if files.cloud is None else None
                with CloudMask(files.cloud or files.image, parts["grid"], kind="SCL", channel=channel) as clouds:
                    masks["cloud"] = Mask(values=clouds.read_codes(0, raster.height))
    flags[:0] = [flag for mask in masks.values() for flag in mask.flags]
    values = {name: masks[name].values if name in masks else None for name in _MASKS}
    if "unknown" in parts and "delineation" in masks and files.delineation:
        with collect_errors(faults):
            has_grading = files.grading is not None
            check_unknown_pixels(
                files.delineation, masks["delineation"], parts["unknown"], values["cloud"], has_grading=has_grading
            )
    if files.pre is not None and "grid" in parts:
        with collect_errors(faults):
            parts["pre"] = _read_pre(files.pre, bands, options, parts["grid"], parts["date"], flags)
    if faults:
        raise FiresegError(*faults)
    if values["delineation"] is None:
        values["delineation"] = np.full(parts["unknown"].shape, IGNORE_INDEX, np.uint8)
    return Tile(**parts, **values, flags=tuple(flags))  # pyright: ignore[reportArgumentType]


def count_burned(files: TileFiles, labels: LabelOptions = DEFAULT_LABELS) -> int:
    """Counts the burned pixels of a tile; only its delineation, or else its grading, is read.

    Args:
        files: Files of the tile.
        labels: Options for reading the masks.

    Raises:
        FiresegError: If the tile has no mask, or it cannot be read or does not match the image.
    """
    kinds: list[tuple[Path | None, MaskKind]] = [(files.delineation, "DEL"), (files.grading, "GRA")]
    for path, kind in kinds:
        if path is not None:
            with open_raster(files.image) as raster:
                _check_tile_memory(raster, 0)
                mask = _read_labels(path, kind, raster, read_grid(raster, str(files.image)), labels).values
            return int(((mask > 0) & (mask != IGNORE_INDEX)).sum())
    raise FiresegError(f"{files.image}: no label mask; add {files.name}_DEL.tif or {files.name}_GRA.tif")


def _check_tile_memory(raster: DatasetReader, num_bands: int) -> None:
    """Checks that a tile fits in memory: its bands, its gaps and masks, and the patches cut from it."""
    check_memory(
        raster.height * raster.width * 2 * (2 * num_bands + 3),
        f"{raster.name}: {raster.height:,} x {raster.width:,} pixels, read at once",
        "cut it into smaller tiles with gdal_translate -srcwin, or gdal_retile.py",
    )


def _read_labels(path: Path, kind: MaskKind, image: DatasetReader, grid: Grid | None, labels: LabelOptions) -> Mask:
    """Reads a mask, or rasterises polygons on the grid of the image, which must be known for these."""
    if path.suffix.lower() in VECTOR_SUFFIXES:
        assert grid is not None
        return read_vector_mask(path, kind, grid, labels)
    with open_raster(path) as mask:
        return read_mask(mask, kind, image, labels)


def _read_date(raster: DatasetReader, metadata: dict[str, Any]) -> str | None:
    return find_date(flatten_metadata(raster.tags(), metadata, {"name": str(Path(raster.name).absolute())}))


def _read_pre(
    path: Path, bands: Sequence[str], options: RasterOptions, grid: Grid, date: str | None, flags: list[str]
) -> PreImage:
    with open_bands(path, bands, options, grid=grid) as reader:
        flags += (*reader.check_values(), *list_pair_flags(reader, date))
        image, unknown = reader.read(0, 0, grid.height, grid.width)
        cloudy = np.zeros_like(unknown)
        if (clouds := reader.open_cloud_mask()) is not None:
            with clouds:
                cloudy = is_cloudy(clouds.read_codes(0, grid.height))
    return PreImage(image, unknown, cloudy)


def _is_quick_look_file(path: Path) -> bool:
    try:
        with open_raster(path) as raster:
            return is_quick_look(raster)
    except FiresegError:
        return False  # reported when the tile is read


def _is_picture_of_mask(path: Path | None) -> bool:
    if path is None or path.suffix.lower() != ".png":
        return False
    try:
        with open_raster(path) as raster:
            return raster.count > 1
    except FiresegError:
        return False  # reported when the tile is read


def _read_image(
    raster: DatasetReader, bands: Sequence[str], metadata: dict[str, Any], options: RasterOptions, flags: list[str]
) -> tuple[NDArray[np.uint16], NDArray[np.bool_], ChannelSelection]:
    """Reads the image and its gaps, and returns them with the channels that were read."""
    channels = select_channels(
        raster, bands, metadata, name=raster.name, origin=str(Path(raster.name).absolute()), options=options
    )
    sample = PixelSample(raster.height * raster.width)
    with set_gdal_cache(raster):
        image, unknown = read_window(raster, channels, Window(0, 0, raster.height, raster.width), sample)
    flags += (f"{raster.name}: {text}" for text in channels.unused)
    flags += sample.check(
        raster.name,
        channels.scaling,
        offset_source=channels.offset_source,
        bands=bands,
        trust_values=options.trust_values,
    )
    return image, unknown, channels
