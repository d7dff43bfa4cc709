"""Reads raw Sentinel-2 rasters and the tiles of the CEMS wildfire data set.

The names below are imported at first use: `fireseg.tiles.options` is needed for `--help`, rasterio is not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fireseg.tiles.folder import TileFiles, TileSearch
    from fireseg.tiles.options import RasterOptions
    from fireseg.tiles.pair import SceneReader, open_scene
    from fireseg.tiles.reader import Tile, find_tiles, read_grid_and_date, read_tile
    from fireseg.tiles.scene import BandReader, open_bands

__all__ = [
    "BandReader",
    "RasterOptions",
    "SceneReader",
    "Tile",
    "TileFiles",
    "TileSearch",
    "find_tiles",
    "open_bands",
    "open_scene",
    "read_grid_and_date",
    "read_tile",
]

_MODULES = {
    "BandReader": "scene",
    "open_bands": "scene",
    "TileFiles": "folder",
    "TileSearch": "folder",
    "RasterOptions": "options",
    "SceneReader": "pair",
    "open_scene": "pair",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'fireseg.tiles' has no attribute '{name}'")
    return getattr(import_module(f"fireseg.tiles.{_MODULES.get(name, 'reader')}"), name)
