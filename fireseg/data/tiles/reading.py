"""Raw tiles into arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from fireseg.data.tiles.channel_values import Sample, choose_channels, limited_cache, read_window
from fireseg.data.tiles.files import TileFiles, TileSearch, group_files, report_orphans
from fireseg.data.tiles.grid import compare_grids, locate
from fireseg.data.tiles.masks import MaskKind, settle_mask
from fireseg.data.tiles.opening import gathering, is_quick_look, opened
from fireseg.data.tiles.origin import read_metadata
from fireseg.data.tiles.tile import Place, Tile
from fireseg.errors import FiresegError
from fireseg.task import IGNORE_INDEX


def search_tiles(root: Path) -> TileSearch:
    """Finds every tile under a folder, and what is in the way.

    A quick-look (8 bits, at most four channels) under the name of an image is none.

    Args:
        root: The folder, with `train`, `val` and `test` in it or without.

    Raises:
        FiresegError: If there is no such folder, or no tile in it.
    """
    if not root.is_dir():
        raise FiresegError(f"{root}: no such folder; name the one that holds the tiles, with train and val in it")
    search = group_files(root)
    tiles, faults = [], list(search.faults)
    for files in search.tiles:
        if not _is_quick_look(files.image):
            tiles.append(files)
        else:
            faults += report_orphans(files.name, (path for path in files.paths[1:] if path != files.metadata))
    faults.sort()
    if not tiles:
        raise FiresegError(
            f"{root}: no tile in it, that is no <name>_S2L2A.tif with the bands of Sentinel-2, at any depth; "
            "is it the right folder, and are the archives unpacked?",
            *map(str, faults),
        )
    return TileSearch(tuple(tiles), tuple(faults))


def read_place(files: TileFiles) -> Place:
    """Where and when a tile was taken, without reading a pixel.

    Args:
        files: Its files.

    Raises:
        FiresegError: If the image or the json cannot be read, or the image lies nowhere.
    """
    metadata = read_metadata(files.metadata) if files.metadata else {}
    with opened(files.image) as raster:
        return locate(raster, metadata)


def read_tile(files: TileFiles, bands: Sequence[str], *, offset: float | None = None) -> Tile:
    """Reads a tile and checks that its files fit together.

    Args:
        files: Its files.
        bands: Names of the bands wanted, in the order of the channels.
        offset: What integer digital numbers have on top where neither json nor tags say so; by default 0.

    Raises:
        FiresegError: With all faults of all its files: unreadable ones, masks of another size or place,
            values that mean nothing, bands that are not there, no mask at all.
    """
    faults: list[str] = []
    with gathering(faults):
        if not (files.delineation or files.grading):
            missing = f"neither {files.name}_DEL.tif nor {files.name}_GRA.tif beside it"
            raise FiresegError(f"{files.image}: {missing}, so that nothing can be learnt from it; add one")
    metadata: dict[str, Any] = {}
    with gathering(faults):
        metadata = read_metadata(files.metadata) if files.metadata else {}
    flags: list[str] = []
    parts: dict[str, Any] = {"delineation": None, "grading": None, "cloud": None}
    with gathering(faults), opened(files.image) as raster:
        with gathering(faults):
            parts["place"] = locate(raster, metadata)
        kinds: list[tuple[str, MaskKind]] = [("delineation", "DEL"), ("grading", "GRA"), ("cloud", "CM")]
        for name, kind in kinds:
            if path := getattr(files, name):
                with gathering(faults):
                    parts[name] = _read_mask(path, kind, raster, flags)
        with gathering(faults):
            parts["image"], parts["unknown"] = _read_image(raster, bands, metadata, offset, flags)
    if faults:
        raise FiresegError(*faults)
    if parts["delineation"] is None:
        parts["delineation"] = np.full(parts["unknown"].shape, IGNORE_INDEX, np.uint8)
    return Tile(**parts, flags=tuple(flags))


def _is_quick_look(path: Path) -> bool:
    try:
        with opened(path) as raster:
            return is_quick_look(raster)
    except FiresegError:
        return False  # named when it is read


def _read_mask(path: Path, kind: MaskKind, image: DatasetReader, flags: list[str]) -> NDArray[np.uint8]:
    with opened(path) as raster:
        if raster.count != 1:
            raise FiresegError(f"{path}: {raster.count} channels, but a mask has one; is it a picture of the mask?")
        if differences := compare_grids(raster, image):
            raise FiresegError(f"{path}: {differences} {Path(image.name).name}; cut both from one grid")
        values = raster.read(1)
        try:
            mask, strange = settle_mask(values, kind, raster.nodata)
        except FiresegError as error:
            raise FiresegError(f"{path}: {error}") from error
    flags += [f"{path}: {what}" for what in strange]
    return mask


def _read_image(
    raster: DatasetReader, bands: Sequence[str], metadata: dict[str, Any], offset: float | None, flags: list[str]
) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    channels = choose_channels(raster, bands, metadata, offset=offset)
    sample = Sample(raster.height * raster.width)
    with limited_cache(raster):
        image, unknown = read_window(raster, channels, (0, 0, raster.height, raster.width), sample)
    flags += sample.list_flags(raster.name, channels.scaling)
    return image, unknown
