"""Reads raw Sentinel-2 rasters and the tiles of the CEMS wildfire data set."""

from fireseg.tiles.folder import TileFiles, TileSearch
from fireseg.tiles.reader import BandReader, Tile, find_tiles, open_bands, read_grid_and_date, read_tile

__all__ = [
    "BandReader",
    "Tile",
    "TileFiles",
    "TileSearch",
    "find_tiles",
    "open_bands",
    "read_grid_and_date",
    "read_tile",
]
