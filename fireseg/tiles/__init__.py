"""Raw tiles, as they come from the archives, into arrays."""

from fireseg.geo.grid import Place
from fireseg.tiles.folder import TileFiles, TileSearch
from fireseg.tiles.reader import BandReader, Tile, open_bands, read_place, read_tile, search_tiles

__all__ = [
    "BandReader",
    "Place",
    "Tile",
    "TileFiles",
    "TileSearch",
    "open_bands",
    "read_place",
    "read_tile",
    "search_tiles",
]
