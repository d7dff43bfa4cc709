"""Reads the tiles that patches were cut from, in place of tiles stitched from the patches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from fireseg.data.format import MANIFEST, PREPARE_AGAIN, Manifest
from fireseg.errors import FiresegError, SettingError
from fireseg.evaluate.mosaic import StitchedTile
from fireseg.memory import check_memory
from fireseg.pairs import split_pair
from fireseg.runtime.inference import ArrayRaster
from fireseg.tiles import open_scene
from fireseg.tiles.folder import RASTER_SUFFIXES
from fireseg.tiles.options import RasterOptions

_CURE = "give the folder that was given to prepare, or leave --tiles out"


def read_source_tiles(tiles: Iterable[StitchedTile], folder: Path, manifest: Manifest) -> Iterator[StitchedTile]:
    """Yields the tiles with the image of their source, which is known where no patch was cut, too.

    A window that prepare left out, because of clouds or missing labels, is a gap in a stitched tile. Its pixels are not
    scored, but the model sees them beside those that are.

    Args:
        tiles: Tiles stitched from patches; their labels are kept.
        folder: Folder of the tiles, as given to prepare.
        manifest: Manifest of the patches.

    Raises:
        FiresegError: If an image is missing, cannot be read, or differs from the patches.
    """
    names = {field.name for field in fields(RasterOptions)}
    try:
        given = {name: value for name, value in manifest.options.items() if name in names}
        options = TypeAdapter(RasterOptions).validate_python(given)
    except ValidationError as error:
        faults = (f"{MANIFEST}: options.{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise FiresegError(*(f"{fault}; {PREPARE_AGAIN}" for fault in faults)) from error
    for tile in tiles:
        path = folder / _find_source(tile, manifest)
        if not path.is_file():
            raise FiresegError(f"{path}: no such file, but the patches of {tile.fire.name} were cut from it; {_CURE}")
        is_pair = bool(split_pair(tile.raster.bands)[1])
        pre = _find_pre(path.relative_to(folder).as_posix(), manifest) if is_pair else None
        ignores_clouds = manifest.options.get("clouds") != "keep"
        with open_scene(
            path, tile.raster.bands, options, pre=pre and folder / pre, ignores_clouds=ignores_clouds
        ) as reader:
            sizes = [f"{height} x {width} px" for height, width in ((reader.height, reader.width), tile.truth.shape)]
            if sizes[0] != sizes[1]:
                raise FiresegError(f"{path}: {sizes[0]}, but the tile of the patches has {sizes[1]}; {_CURE}")
            check_memory(tile.raster.image.nbytes, str(path), "leave --tiles out")
            image, unknown = reader.read(0, 0, reader.height, reader.width)
        if (image != tile.raster.image)[~tile.raster.unknown].any():
            raise FiresegError(f"{path}: other pixels than those of the patches; {_CURE}")
        yield replace(tile, raster=ArrayRaster(bands=tile.raster.bands, image=image, unknown=unknown))


def _find_source(tile: StitchedTile, manifest: Manifest) -> str:
    """Finds the path of the image of a tile, relative to the folder of the tiles."""
    images = [path for path, source in manifest.sources.items() if "pixels_sha256" in source]
    for path in images:
        if Path(path).name == tile.fire.source_image:
            return path
    raise SettingError(f"--tiles: the patches of {tile.fire.name} do not tell their tile; leave --tiles out")


def _find_pre(image: str, manifest: Manifest) -> str | None:
    """Finds the path of the scene before the fire of a tile, the last of its rasters."""
    paths = list(manifest.sources)
    files = paths[paths.index(image) + 1 :]
    ends = (number for number, path in enumerate(files) if "pixels_sha256" in manifest.sources[path])
    own = [path for path in files[: next(ends, len(files))] if Path(path).suffix.lower() in RASTER_SUFFIXES]
    return own[-1] if own else None
