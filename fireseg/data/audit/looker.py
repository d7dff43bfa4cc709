"""What a tile looks like, for the audit alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fireseg.data.audit.footprints import Footprint
from fireseg.data.audit.locate import make_footprint
from fireseg.data.audit.looks import look_at
from fireseg.data.tiles.files import TileFiles
from fireseg.data.tiles.reading import read_place, read_tile
from fireseg.errors import FiresegError

BANDS = ("B04", "B08", "B12")
"""Enough to know a picture again, and what every set for burned areas has."""


class TileLooker:
    """Looks at tiles; see `fireseg.data.cutting.crew.Craft`.

    Args:
        tiles: The files of each tile.
    """

    def __init__(self, tiles: Sequence[TileFiles]) -> None:
        self.tiles = tiles

    def cut(self, number: int) -> tuple[Footprint | None, tuple[str, ...]]:
        """The footprint of a tile as far as it can be read, and what is wrong with it."""
        files = self.tiles[number]
        try:
            tile = read_tile(files, BANDS)
        except FiresegError as error:
            return _locate(files), error.faults
        look = look_at(tile.image, tile.unknown, tile.delineation)
        burned = int((tile.delineation == 1).sum())
        return replace(make_footprint(files, tile.place), look=look, burned=burned), ()

    def write(self, number: int, first: int) -> None:
        """Nothing: what was seen is small."""


def _locate(files: TileFiles) -> Footprint | None:
    try:
        return make_footprint(files, read_place(files))
    except FiresegError:
        return None
