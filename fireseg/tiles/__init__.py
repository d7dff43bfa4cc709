"""Raw tiles, as they come from the archives, into arrays."""

from fireseg.tiles.folder import TileFiles, TileSearch
from fireseg.tiles.reader import BandReader, Tile, open_bands, read_grid_and_date, read_tile, search_tiles

__all__ = [
    "BandReader",
    "Tile",
    "TileFiles",
    "TileSearch",
    "open_bands",
    "read_grid_and_date",
    "read_tile",
    "search_tiles",
]
