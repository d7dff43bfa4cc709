"""Converts the HDF5 files of FLOGA and CaBuAr to GeoTIFF tiles that `python -m fireseg.prepare` reads."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.crs import CRS

from fireseg.console import print_error
from fireseg.data.bands import CEMS_BANDS
from fireseg.errors import FiresegError, join_names, shorten
from fireseg.files import atomic_write, check_regular_file, convert_disk_errors
from fireseg.geo.grid import GDAL_ERRORS
from fireseg.memory import check_memory
from fireseg.task import IGNORE_INDEX

if TYPE_CHECKING:
    import h5py

FLOGA_BANDS = {
    10: ("B02", "B03", "B04", "B08"),
    20: ("B02", "B03", "B04", "B05", "B06", "B07", "B11", "B12", "B8A"),
    60: ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B09", "B11", "B12", "B8A"),
}
"""Bands by pixel size in metres, in the order of the files (configs/config.json of Orion-AI-Lab/FLOGA)."""

FLOGA_LABELS = {0: 0, 1: 1, 2: IGNORE_INDEX}
"""2 is what another fire of the year burned, before or after the scene."""

CABUAR_PIXEL_M = 20

_SCL_VALUES = {value: value for value in range(12)}

_FLOGA_IMAGE = re.compile(r"sen2_(10|20|60)_(?:pre|post)")

_PRODUCT = re.compile(r"S2[A-D]_MSIL2A_\d{8}T\d{6}_N\d{4}_R\d{3}_T(?P<tile>\d\d[A-Z]{3})_.*")

_NAME = re.compile(r"[A-Za-z0-9._-]+")

_MAX_NUMBER = 65535

# Nothing in the files tells where a scene lies. Each tile gets a place of its own in the South Pacific, 2 degrees from
# the next, and a projection that is centred on it, in which pixels have their true size.
_ROWS, _COLS, _MAX_SIDE_M = 25, 45, 115_000

_LOCATION = "none: the source has no coordinates, and those of this file are artificial"

_ALSO = "download it again, or convert the files one by one"


@dataclass(frozen=True, kw_only=True)
class Event:
    """One fire: a scene after it, its labels, and if known a scene before it and scene classifications.

    Attributes:
        name: Name of the tile.
        group: Folder of the tile: tiles of one group may show the same ground.
        pixel_m: Side of a pixel in metres.
        bands: Bands of both scenes.
        post: Digital numbers after the fire, `(C, H, W)` uint16.
        labels: `(H, W)` uint8: 0 unburned, 1 burned, 255 unknown.
        pre: Digital numbers before the fire, as `post`.
        clouds: Scene classification (SCL) of each scene by its suffix, `(H, W)` uint8.
        products: Name of the product of each scene by its suffix, which tells date and processing baseline.
    """

    name: str
    group: str
    pixel_m: int
    bands: tuple[str, ...]
    post: NDArray[np.uint16]
    labels: NDArray[np.uint8]
    pre: NDArray[np.uint16] | None
    clouds: Mapping[str, NDArray[np.uint8]]
    products: Mapping[str, str]


def main() -> int:
    """Converts the files of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="HDF5 files of FLOGA or CaBuAr")
    parser.add_argument("--out", type=Path, required=True, help="output folder; tiles that are in it are kept")
    options = parser.parse_args()
    try:
        counts = convert(options.files, options.out)
    except FiresegError as error:
        return print_error(error)
    except KeyboardInterrupt:
        print("Stopped; the same command goes on.", file=sys.stderr)
        return 130
    print(f"{options.out}: {counts['written']} tiles written, {counts['kept']} were there")
    if counts["single"]:
        print(f"{counts['single']} of them have no scene before the fire: --missing-pre skip leaves them out")
    print("Next: prepare, with the options of docs/inputs.md, section FLOGA and CaBuAr")
    return 0


def convert(files: list[Path], out: Path) -> dict[str, int]:
    """Writes the tiles of every event of the files, `<out>/<group>/<name>_S2L2A.tif` and others beside it.

    Args:
        files: HDF5 files.
        out: Output folder. Existing tiles are kept, so that the same command goes on after it was stopped.

    Returns:
        Number of tiles that were `written` and `kept`, and how many of the written ones are `single`, without a scene
        before the fire.

    Raises:
        FiresegError: If files or events are damaged or of another layout; all faults, after the others were written.
    """
    try:
        import h5py  # noqa: F401
        import hdf5plugin
    except ImportError as error:
        raise FiresegError(
            f"convert_hdf5: {error.name} is not installed; install it with pip install 'fireseg[hdf5]'"
        ) from error
    _ = hdf5plugin.FILTERS  # the compressions of both data sets, known to HDF5 once it is imported
    faults: list[str] = []
    counts = {"written": 0, "kept": 0, "single": 0}
    with _lock_folder(out):
        cell = sum(1 for _ in out.rglob("*_S2L2A.tif"))
        for event in (event for path in files for event in _read_events(path, out, faults)):
            if event is None:
                counts["kept"] += 1
                continue
            write_event(event, out, cell)
            cell += 1
            counts["written"] += 1
            counts["single"] += event.pre is None
    if faults:
        raise FiresegError(*shorten(faults))
    return counts


def write_event(event: Event, out: Path, cell: int) -> None:
    """Writes the tile of an event; the image last, so that a tile with an image is complete.

    Args:
        event: The event.
        out: Folder of the tiles.
        cell: Number of the artificial place of the tile: no two tiles have the same.

    Raises:
        FiresegError: If the tile or the number of tiles is too large for a place of its own, or the disk is full.
    """
    height, width = event.labels.shape
    if max(height, width) * event.pixel_m > _MAX_SIDE_M or cell >= _ROWS * _COLS:
        raise FiresegError(
            f"{out}: {event.name} has {height} x {width} pixels of {event.pixel_m} m and is tile {cell + 1}, but a "
            f"folder has places for {_ROWS * _COLS} tiles of {_MAX_SIDE_M / 1000:g} km; use another --out"
        )
    row, col = divmod(cell, _COLS)
    crs = CRS.from_proj4(f"+proj=laea +lat_0={-5 - 2 * row} +lon_0={-175 + 2 * col} +datum=WGS84 +units=m +no_defs")
    pixel_m = event.pixel_m
    grid = {"crs": crs, "transform": Affine(pixel_m, 0, -pixel_m * width / 2, 0, -pixel_m, pixel_m * height / 2)}
    folder = out / event.group
    with convert_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    _write_raster(folder / f"{event.name}_DEL.tif", event.labels, grid, nodata=IGNORE_INDEX)
    images = {"_PRE": event.pre, "": event.post}
    for suffix, values in images.items():
        if values is not None:
            if suffix in event.clouds:
                _write_raster(folder / f"{event.name}{suffix}_SCL.tif", event.clouds[suffix], grid)
            path = folder / f"{event.name}{suffix or '_S2L2A'}.tif"
            _write_raster(path, values, grid, bands=event.bands, product=event.products.get(suffix, ""))


def _write_raster(
    path: Path,
    values: NDArray[Any],
    grid: Mapping[str, Any],
    *,
    bands: tuple[str, ...] = (),
    product: str = "",
    nodata: int | None = None,
) -> None:
    layers = values if values.ndim == 3 else values[None]
    count, height, width = layers.shape
    profile = {"count": count, "height": height, "width": width, "dtype": layers.dtype, "nodata": nodata, **grid}
    options = {"compress": "deflate", "tiled": True, "blockxsize": 256, "blockysize": 256, "interleave": "band"}
    tags = {"LOCATION": _LOCATION, **({"PRODUCT_URI": product} if product else {})}
    try:
        with atomic_write(path) as part, rasterio.open(part, "w", driver="GTiff", **profile, **options) as raster:
            raster.write(layers)
            for channel, band in enumerate(bands, 1):
                raster.set_band_description(channel, band)
            raster.update_tags(**tags)
    except GDAL_ERRORS as error:
        raise FiresegError(f"{path}: cannot be written ({error}); free disk space, or use another --out") from error


def _read_events(path: Path, out: Path, faults: list[str]) -> Iterator[Event | None]:
    """Yields the events of a file, None for one whose tile exists, and adds those that are damaged to the faults."""
    with _collect(faults, path), _open(path) as file:
        for group in _find_events(file):
            event = None
            with _collect(faults, f"{path}: {group.name}"):
                place = _read_place(group)
                if not (out / place.folder / f"{place.name}_S2L2A.tif").exists():
                    event = _read_event(group, place)
                yield event


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Data set and name of an event, and the folder of its tile."""

    is_floga: bool
    name: str
    folder: str


def _read_place(group: h5py.Group) -> _Place:
    parts = str(group.name).strip("/").split("/")
    if is_floga := any(_FLOGA_IMAGE.fullmatch(name) for name in _list_names(group)):
        if len(parts) != 2:
            raise FiresegError("FLOGA has events as /<year>/<event>; use the files as they were published")
        tile = _parse_product(group, "post_sen2_file")["tile"]
        name, folder = f"FLOGA_{parts[0]}_{parts[1]}_{_find_pixel_m(group)}m", f"T{tile}"
    elif {"post_fire", "mask"} & set(_list_names(group)):
        fold = parts[0] if len(parts) == 2 else group.attrs.get("fold")
        if fold is None:
            raise FiresegError("no attribute fold, which tells what belongs together; use the files as published")
        name, folder = f"CaBuAr_{parts[-1]}", f"fold_{fold.decode() if isinstance(fold, bytes) else fold}"
    else:
        shown = join_names(_list_names(group), 5) or "nothing"
        raise FiresegError(f"holds {shown}, but FLOGA has sen2_20_post and label, and CaBuAr post_fire and mask")
    if wrong := [text for text in (name, folder) if not _NAME.fullmatch(text)]:
        raise FiresegError(f"{wrong[0]!r} is no name for a tile; only letters, digits and . _ - are possible")
    return _Place(is_floga=is_floga, name=name, folder=folder)


def _read_event(group: h5py.Group, place: _Place) -> Event:
    return _read_floga(group, place) if place.is_floga else _read_cabuar(group, place)


def _find_pixel_m(group: h5py.Group) -> int:
    sizes = {int(match[1]) for name in _list_names(group) if (match := _FLOGA_IMAGE.fullmatch(name))}
    if len(sizes) > 1:
        raise FiresegError(f"images of {join_names([f'{size} m' for size in sorted(sizes)], 3)}; one size is expected")
    return sizes.pop()


def _read_floga(group: h5py.Group, place: _Place) -> Event:
    pixel_m = _find_pixel_m(group)
    bands = FLOGA_BANDS[pixel_m]
    names = {"": "post", "_PRE": "pre"}
    _check_names(group, ["label", *(f"sen2_{pixel_m}_{name}" for name in names.values())])
    images = {end: _read_image(group, f"sen2_{pixel_m}_{name}", len(bands), axis=0) for end, name in names.items()}
    shape = images[""].shape[1:]
    clouds = {
        end: _read_classes(group, f"sen2_{pixel_m}_cloud_{name}", shape, _SCL_VALUES)
        for end, name in names.items()
        if f"sen2_{pixel_m}_cloud_{name}" in group
    }
    return Event(
        name=place.name,
        group=place.folder,
        pixel_m=pixel_m,
        bands=bands,
        post=images[""],
        labels=_read_classes(group, "label", shape, FLOGA_LABELS),
        pre=_check_pre(images["_PRE"], shape),
        clouds=clouds,
        products={end: _parse_product(group, f"{name}_sen2_file")[0] for end, name in names.items()},
    )


def _read_cabuar(group: h5py.Group, place: _Place) -> Event:
    _check_names(group, ["post_fire", "mask"])
    bands = tuple(CEMS_BANDS)
    post = _read_image(group, "post_fire", len(bands), axis=2)
    pre = _read_image(group, "pre_fire", len(bands), axis=2) if "pre_fire" in group else None
    shape = post.shape[1:]
    return Event(
        name=place.name,
        group=place.folder,
        pixel_m=CABUAR_PIXEL_M,
        bands=bands,
        post=post,
        labels=_read_classes(group, "mask", shape, {0: 0, 1: 1}),
        pre=_check_pre(pre, shape),
        clouds={},
        products={},
    )


def _check_pre(pre: NDArray[np.uint16] | None, shape: tuple[int, ...]) -> NDArray[np.uint16] | None:
    """Returns the scene before the fire, or None if it is empty, as some are."""
    if pre is not None and pre.shape[1:] != shape:
        raise FiresegError(f"scenes of {_describe(pre.shape[1:])} and {_describe(shape)} pixels; {_ALSO}")
    return pre if pre is not None and pre.any() else None


def _parse_product(group: h5py.Group, attribute: str) -> re.Match[str]:
    """Returns the product that an attribute of FLOGA names."""
    text = group.attrs.get(attribute)
    if match := _PRODUCT.fullmatch(text.decode("ascii", "replace") if isinstance(text, bytes) else str(text)):
        return match
    raise FiresegError(
        f"attribute {attribute} is {text!r}, but a level-2A product such as S2A_MSIL2A_20170916T092031_N0205_"
        "R093_T34SEG_20170916T092843 tells date and offset; use the files as published"
    )


def _read_image(group: h5py.Group, name: str, num_bands: int, *, axis: int) -> NDArray[np.uint16]:
    """Reads digital numbers as `(C, H, W)`."""
    source = _get_array(group, name)
    if source.ndim != 3 or source.shape[axis] != num_bands:
        order = ("bands", "rows", "columns") if axis == 0 else ("rows", "columns", "bands")
        raise FiresegError(f"{name}: shape {source.shape}, but ({', '.join(order)}) with {num_bands} bands is expected")
    if source.dtype.kind not in "iu" or source.dtype.itemsize < 2:
        raise FiresegError(f"{name}: {source.dtype}, but digital numbers are integers of 16 bits; use the raw files")
    values = np.moveaxis(_read_array(source, name), axis, 0)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > _MAX_NUMBER or 0 < high <= np.iinfo(np.uint8).max:
        raise FiresegError(
            f"{name}: values {low} to {high}, but digital numbers are 0 to {_MAX_NUMBER}, with some above 255; "
            "use the raw files, not normalised ones"
        )
    return np.ascontiguousarray(values, np.uint16)


def _read_classes(
    group: h5py.Group, name: str, shape: tuple[int, ...], classes: Mapping[int, int]
) -> NDArray[np.uint8]:
    """Reads a mask as `(H, W)`, with the class of each value."""
    source = _get_array(group, name)
    if source.shape not in (shape, (1, *shape), (*shape, 1)):
        raise FiresegError(f"{name}: {_describe(source.shape)}, but the image has {_describe(shape)} pixels; {_ALSO}")
    values = _read_array(source, name).reshape(shape)
    if wrong := [value for value in np.unique(values).tolist() if value not in classes]:
        shown, known = (join_names([f"{value:g}" for value in group], 12) for group in (wrong, classes))
        raise FiresegError(f"{name}: values {shown}, but {known} are expected; {_ALSO}")
    mask = np.zeros(shape, np.uint8)
    for value, number in classes.items():
        mask[values == value] = number
    return mask


def _check_names(group: h5py.Group, names: list[str]) -> None:
    if missing := [name for name in names if name not in group]:
        shown = join_names(_list_names(group), 12)
        raise FiresegError(f"no {' and no '.join(missing)}, only {shown}; {_ALSO}")


def _get_array(group: h5py.Group, name: str) -> h5py.Dataset:
    """Returns an array of an event, if its values are in the file itself."""
    import h5py

    source = _get(group, name)
    if not isinstance(source, h5py.Dataset) or source.external or source.is_virtual:
        raise FiresegError(f"{name}: is no array of this file; use the files as published")
    return source


def _read_array(source: h5py.Dataset, name: str) -> NDArray[Any]:
    # Twice as much for the copy of 16 bits in another order.
    check_memory(
        2 * math.prod(source.shape) * source.dtype.itemsize, f"{source.file.filename}: {source.name}", "use more memory"
    )
    try:
        return source[()]
    except OSError as error:
        raise FiresegError(f"{name}: cannot be decompressed ({error}); download the file again") from error


def _find_events(group: h5py.Group) -> list[h5py.Group]:
    """Returns the groups that hold arrays, or nothing, below the top or below the groups of years or folds."""
    import h5py

    events = []
    for name in _list_names(group):
        child = _get(group, name)
        if not isinstance(child, h5py.Group):
            raise FiresegError(f"holds {name}, which is no group; FLOGA and CaBuAr have one for each fire")
        is_top = isinstance(group, h5py.File)
        has_groups = is_top and any(isinstance(_get(child, inner), h5py.Group) for inner in _list_names(child))
        events += _find_events(child) if has_groups else [child]
    return events


def _list_names(group: h5py.Group) -> list[str]:
    return [str(name) for name in group]


def _get(group: h5py.Group, name: str) -> Any:
    """Returns a member of a group; None if it is a link, which may lead to another file."""
    import h5py

    return group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None


@contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    import h5py

    check_regular_file(path)
    if not path.exists():
        raise FiresegError("no such file; give an HDF5 file of FLOGA or CaBuAr")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise FiresegError(f"not a complete HDF5 file ({error}); download it again") from error
    with file:
        yield file


def _describe(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


@contextmanager
def _collect(faults: list[str], place: object) -> Iterator[None]:
    """Adds faults to a list, with their place, instead of raising them."""
    try:
        yield
    except FiresegError as error:
        faults += [fault if fault.startswith(str(place)) else f"{place}: {fault}" for fault in error.faults]
    except (OSError, RuntimeError, KeyError) as error:  # of HDF5, in a file that is damaged
        faults.append(f"{place}: damaged ({error}); download it again")


@contextmanager
def _lock_folder(folder: Path) -> Iterator[None]:
    with convert_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise FiresegError(f"{folder}: another conversion into this folder runs; wait for it or stop it") from error


if __name__ == "__main__":
    sys.exit(main())
