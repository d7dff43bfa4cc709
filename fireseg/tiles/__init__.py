"""Raw tiles, as they come from the archives, into arrays."""

from fireseg.geo.grid import Grid
from fireseg.tiles.folder import TileFiles, TileSearch
from fireseg.tiles.reader import BandReader, Tile, open_bands, read_tile, read_tile_grid, search_tiles

__all__ = [
    "BandReader",
    "Grid",
    "Tile",
    "TileFiles",
    "TileSearch",
    "open_bands",
    "read_tile",
    "read_tile_grid",
    "search_tiles",
]
