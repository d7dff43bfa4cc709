"""Raw tiles into arrays."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.warp import transform as transform_points
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from fireseg.data.tiles.appearance import list_flags
from fireseg.data.tiles.channels import pick_channels
from fireseg.data.tiles.digital_numbers import find_unknown, get_scaling, to_steps
from fireseg.data.tiles.files import TileFiles, TileSearch, group_files, report_orphans
from fireseg.data.tiles.masks import MaskKind, settle_mask
from fireseg.data.tiles.origin import find_date, find_offset, list_pairs, read_metadata
from fireseg.data.tiles.tile import Place, Tile
from fireseg.errors import FiresegError
from fireseg.task import IGNORE_INDEX

_LONLAT = "EPSG:4326"
_STRIP_ROWS = 256
_CACHE_BYTES = 32 * 2**20
_SAMPLE_PX = 200_000

_MAX_SHIFT_PX = 0.1
"""How far a mask may lie beside its image: less than labels are exact to, more than rounding moves a corner."""


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
    with _open(files.image) as raster:
        return _locate(raster, metadata)


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
    with _gathering(faults):
        if not (files.delineation or files.grading):
            missing = f"neither {files.name}_DEL.tif nor {files.name}_GRA.tif beside it"
            raise FiresegError(f"{files.image}: {missing}, so that nothing can be learnt from it; add one")
    metadata: dict[str, Any] = {}
    with _gathering(faults):
        metadata = read_metadata(files.metadata) if files.metadata else {}
    flags: list[str] = []
    parts: dict[str, Any] = {"delineation": None, "grading": None, "cloud": None}
    with _gathering(faults), _open(files.image) as raster:
        with _gathering(faults):
            parts["place"] = _locate(raster, metadata)
        kinds: list[tuple[str, MaskKind]] = [("delineation", "DEL"), ("grading", "GRA"), ("cloud", "CM")]
        for name, kind in kinds:
            if path := getattr(files, name):
                with _gathering(faults):
                    parts[name] = _read_mask(path, kind, raster, flags)
        with _gathering(faults):
            parts["image"], parts["unknown"] = _read_image(raster, bands, metadata, offset, flags)
    if faults:
        raise FiresegError(*faults)
    if parts["delineation"] is None:
        parts["delineation"] = np.full(parts["unknown"].shape, IGNORE_INDEX, np.uint8)
    return Tile(**parts, flags=tuple(flags))


@contextmanager
def _gathering(faults: list[str]) -> Iterator[None]:
    """Takes down what cannot be, so that the other files of the tile are looked at, too."""
    try:
        yield
    except FiresegError as error:
        faults += error.faults


@contextmanager
def _open(path: Path) -> Iterator[DatasetReader]:
    """Opens a raster; what goes wrong while it is read names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # said by _locate, with a way out
            with rasterio.open(path) as raster:
                yield raster
    except (RasterioError, OSError) as error:
        if not path.exists():
            raise FiresegError(f"{path}: no such file; was it moved while fireseg was running?") from error
        what = "empty" if path.stat().st_size == 0 else f"truncated or no raster ({error.__cause__ or error})"
        raise FiresegError(f"{path}: {what}; fetch or unpack it again") from error


def _is_quick_look(path: Path) -> bool:
    try:
        with _open(path) as raster:
            return raster.count <= 4 and set(raster.dtypes) == {"uint8"}
    except FiresegError:
        return False  # named when it is read


def _locate(raster: DatasetReader, metadata: dict[str, Any]) -> Place:
    path, crs, transform = raster.name, raster.crs, raster.transform
    if crs is None or transform.is_identity:
        raise FiresegError(
            f"{path}: no georeference, so that nobody can tell what it overlaps; "
            "set it with gdal_edit.py -a_srs EPSG:… -a_ullr west north east south"
        )
    height, width = raster.height, raster.width
    ring = [_apply(transform, corner) for corner in ((0, 0), (width, 0), (width, height), (0, height))]
    xs, ys = zip(*ring, strict=True)
    box = min(xs), min(ys), max(xs), max(ys)
    if crs.to_epsg() != 4326:  # through itself the box would lose its last digits
        box = transform_bounds(crs, _LONLAT, *box)
        ring = list(zip(*transform_points(crs, _LONLAT, xs, ys)[:2], strict=True))
    return Place(
        height=height,
        width=width,
        crs=crs.to_string(),
        transform=tuple(transform)[:6],
        bounds_lonlat=box,
        outline_lonlat=tuple(ring),
        date=find_date(list_pairs(raster.tags(), metadata)),
    )


def _apply(transform: Affine, place: tuple[float, float]) -> tuple[float, float]:
    # Written out, because the operator for it changes between versions of affine.
    return (
        transform.a * place[0] + transform.b * place[1] + transform.c,
        transform.d * place[0] + transform.e * place[1] + transform.f,
    )


def _read_mask(path: Path, kind: MaskKind, image: DatasetReader, flags: list[str]) -> NDArray[np.uint8]:
    with _open(path) as raster:
        if raster.count != 1:
            raise FiresegError(f"{path}: {raster.count} channels, but a mask has one; is it a picture of the mask?")
        if differences := _compare_grids(raster, image):
            raise FiresegError(f"{path}: {differences} {Path(image.name).name}; cut both from one grid")
        values = raster.read(1)
        try:
            mask, strange = settle_mask(values, kind, raster.nodata)
        except FiresegError as error:
            raise FiresegError(f"{path}: {error}") from error
    flags += [f"{path}: {what}" for what in strange]
    return mask


def _compare_grids(mask: DatasetReader, image: DatasetReader) -> str:
    """What differs, worded to stand before the name of the image; nothing if they lie on one another."""
    if mask.shape != image.shape:
        return f"{mask.height} x {mask.width} pixels, but {image.height} x {image.width} in"
    if mask.crs != image.crs:
        names = [raster.crs.to_string() if raster.crs else "no reference system" for raster in (mask, image)]
        return f"{names[0]}, but {names[1]} in"
    corners = [(col, row) for col in (0, image.width) for row in (0, image.height)]
    moved = [_apply(~image.transform, _apply(mask.transform, corner)) for corner in corners]
    shift = max(abs(was - now) for pair in zip(corners, moved, strict=True) for was, now in zip(*pair, strict=True))
    return f"shifted by {shift:.2g} pixels against" if shift > _MAX_SHIFT_PX else ""


def _read_image(
    raster: DatasetReader, bands: Sequence[str], metadata: dict[str, Any], offset: float | None, flags: list[str]
) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Reflectance and unknown pixels, strip by strip: float values of a whole tile are 200 MB."""
    try:
        channels = pick_channels(raster.descriptions, bands)
        stated = find_offset(list_pairs(raster.tags(), *(raster.tags(n + 1) for n in channels), metadata))
        scaling = get_scaling(
            np.result_type(*(np.dtype(raster.dtypes[n]) for n in channels)),
            offset=(offset or 0.0) if stated is None else stated,
            scales=[raster.scales[n] for n in channels],
            shifts=[raster.offsets[n] for n in channels],
        )
    except FiresegError as error:
        raise FiresegError(f"{raster.name}: {error}") from error
    image = np.empty((raster.height, raster.width, len(channels)), np.uint16)
    unknown = np.empty((raster.height, raster.width), np.bool_)
    sample, step = [], max(1, round((raster.height * raster.width / _SAMPLE_PX) ** 0.5))
    for top, values, gaps in _read_strips(raster, channels):
        rows = slice(top, top + values.shape[1])
        unknown[rows] = gaps
        image[rows] = to_steps(values, gaps, scaling)
        places = slice(-top % step, None, step), slice(None, None, step)
        sample.append(values[:, *places][:, ~gaps[places]])
    flags += [f"{raster.name}: {what}" for what in list_flags(np.concatenate(sample, axis=1), scaling)]
    return image, unknown


def _read_strips(
    raster: DatasetReader, channels: Sequence[int]
) -> Iterator[tuple[int, NDArray[Any], NDArray[np.bool_]]]:
    """First row, values `(C, H, W)` and gaps `(H, W)` of some rows after the other."""
    block_rows = raster.block_shapes[0][0]
    num_rows = block_rows * max(1, _STRIP_ROWS // block_rows) if block_rows <= _STRIP_ROWS else _STRIP_ROWS
    indexes = [channel + 1 for channel in channels]
    nodata = [raster.nodatavals[channel] for channel in channels]
    has_mask = any(MaskFlags.per_dataset in raster.mask_flag_enums[channel] for channel in channels)
    # Enough that no block is unpacked twice, and not the whole file, which GDAL would keep otherwise.
    row_bytes = sum(raster.width * np.dtype(dtype).itemsize for dtype in raster.dtypes)
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES + row_bytes * block_rows):
        for top in range(0, raster.height, num_rows):
            window = Window(0, top, raster.width, min(num_rows, raster.height - top))  # pyright: ignore[reportCallIssue]
            values = raster.read(indexes, window=window)
            gaps = find_unknown(values, nodata)
            if has_mask:
                gaps |= (raster.read_masks(indexes, window=window) == 0).any(axis=0)
            yield top, values, gaps
