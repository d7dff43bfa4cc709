"""Reads the tiles that patches were cut from, in place of tiles stitched from the patches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from fireseg.data.format import MANIFEST, PREPARE_AGAIN, Manifest
from fireseg.errors import FiresegError, SettingError
from fireseg.evaluate.mosaic import ArrayRaster, StitchedTile
from fireseg.memory import check_memory
from fireseg.tiles import open_bands
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
        with open_bands(path, tile.raster.bands, options) as reader:
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
