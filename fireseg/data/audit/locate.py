"""Footprints of raw tiles, and as plain values."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fireseg.data.audit.facts import TileFacts
from fireseg.data.audit.footprints import Footprint
from fireseg.data.audit.looks import Look
from fireseg.data.tiles.files import TileFiles
from fireseg.data.tiles.tile import Place


def make_footprint(files: TileFiles, place: Place, known: Mapping[str, TileFacts] | None = None) -> Footprint:
    """The footprint of a tile.

    Args:
        files: Its files, which know its split.
        place: Where it lies.
        known: What the data set's own table says of tiles, by name: its dates count first.
    """
    west, south, east, north = place.bounds_lonlat
    is_box = all(x in (west, east) and y in (south, north) for x, y in place.outline_lonlat)
    facts = known.get(files.name, TileFacts()) if known else TileFacts()
    return Footprint(
        name=files.name,
        bounds=place.bounds_lonlat,
        split=files.split,
        activation=files.activation,
        date=facts.date or place.date,
        height=place.height,
        width=place.width,
        outline=None if is_box else place.outline_lonlat,
    )


def to_plain(footprint: Footprint) -> dict[str, Any]:
    """A footprint, as JSON takes it."""
    values = asdict(footprint)
    if look := footprint.look:
        values["look"] = {
            "digest": look.digest,
            "cells": b64encode(look.cells).decode(),
            "burned": b64encode(look.burned).decode(),
        }
    return values


def from_plain(values: Mapping[str, Any]) -> Footprint:
    """The footprint that `to_plain` gave."""
    look = values["look"] and Look(
        digest=values["look"]["digest"],
        cells=b64decode(values["look"]["cells"]),
        burned=b64decode(values["look"]["burned"]),
    )
    outline = values["outline"] and tuple((x, y) for x, y in values["outline"])
    west, south, east, north = values["bounds"]
    return Footprint(**{**values, "bounds": (west, south, east, north), "look": look, "outline": outline})
