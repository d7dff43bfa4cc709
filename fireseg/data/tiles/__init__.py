"""Raw tiles, as they come from the archives, into arrays."""

from fireseg.data.tiles.files import TileFiles, TileSearch
from fireseg.data.tiles.raster import BandReader, open_bands
from fireseg.data.tiles.reading import read_place, read_tile, search_tiles
from fireseg.data.tiles.tile import Place, Tile

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
