"""Where and when each tile was taken."""

from __future__ import annotations

import csv
import re
from base64 import b64decode, b64encode
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from fireseg.errors import FiresegError, did_you_mean
from fireseg.geo.grid import Grid
from fireseg.prepare.duplicates import Fingerprint
from fireseg.tiles.folder import TileFiles

_BOX = ("left_Long", "bottom_Lat", "right_Long", "top_Lat")

_NEEDED = ("folderPath", *_BOX)

_WIDEST = 180.0

_NUM_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """One tile on the ground.

    Args:
        name: Name of the tile.
        bounds: West, south, east, north in degrees. A tile across the antimeridian has west > east.
        split: train, val or test; empty where there are no splits.
        activation: The mapped event that the tile belongs to; empty where nobody knows.
        date: When the image was taken, to the second where that is known.
        height: Rows, in pixels.
        width: Columns, in pixels.
        burned: Burned pixels of the delineation.
        look: What its pixels look like, to find copies.
        outline: Corners as (longitude, latitude) where the tile is not a box in degrees, as in UTM: its
            bounds then hold ground that the tile does not. Convex, at least 3 corners.
    """

    name: str
    bounds: tuple[float, float, float, float]
    split: str = ""
    activation: str = ""
    date: str | None = None
    height: int | None = None
    width: int | None = None
    burned: int | None = None
    look: Fingerprint | None = None
    outline: tuple[tuple[float, float], ...] | None = None

    @property
    def moment(self) -> str | None:
        """The date as `2017-10-07T08:05:51` or `2017-10-07` (UTC), or as it came if nobody can read it."""
        return read_moment(self.date) if self.date else None


@lru_cache(maxsize=1 << 16)
def read_moment(text: str) -> str:
    """A date in the one way of writing it that can be compared.

    Args:
        text: ISO 8601 in any form, or `2017/10/07_08:05:51`.

    Returns:
        To the second in UTC, or the day where there is no time; what cannot be read comes back stripped.

    Example:
        >>> read_moment("2017/10/07_08:05:51"), read_moment("2017-10-07T10:05:51.024+02:00")
        ('2017-10-07T08:05:51', '2017-10-07T08:05:51')
    """
    plain = text.strip().replace("/", "-").replace("_", "T")
    try:
        moment = datetime.fromisoformat(plain)
    except ValueError:
        return text.strip()
    if not re.search(r"\d[T ]\d", plain):
        return moment.date().isoformat()
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC)
    return moment.replace(tzinfo=None, microsecond=0).isoformat()


def check_footprints(footprints: Sequence[Footprint]) -> None:
    """Refuses footprints that no ground can have.

    Raises:
        FiresegError: With every fault: bounds that are no numbers, no degrees, upside down, without area, or
            wider than half the earth (around a pole, or across the antimeridian with west and east swapped).
    """
    faults = [f"{one.name}: {fault}" for one in footprints if (fault := _fault_of(one))]
    if faults:
        raise FiresegError(*_first_of(faults))


def read_footprints(path: Path | str) -> list[Footprint]:
    """The footprints of the CEMS wildfire data set from its own `satelliteData.csv`.

    The csv has no splits. A tile name that comes twice there (the data set has the folders dataOptimal and
    dataColomba, with tiles of the same name that need not be the same tile) gets its folder before it.

    Args:
        path: A csv with at least the columns folderPath, left_Long, bottom_Lat, right_Long and top_Lat.

    Raises:
        FiresegError: If it cannot be read, lacks a column, or has rows that make no sense: all of them.
    """
    path = Path(path)
    columns, rows = _read_rows(path)
    if missing := [name for name in _NEEDED if name not in columns]:
        near = "".join(did_you_mean(name, [column for column in columns if column not in _NEEDED]) for name in missing)
        raise FiresegError(
            f"{path}: no column {', '.join(missing)}{near}, but the audit needs {', '.join(_NEEDED)}; "
            "take the data set's satelliteData.csv"
        )
    if not rows:
        raise FiresegError(f"{path}: no row in it; take the data set's satelliteData.csv")
    footprints, faults = [], []
    for line, row in rows:
        try:
            footprints.append(_read_row(row))
        except ValueError as error:
            faults.append(f"{path}: line {line}: {error}")
    if faults:
        raise FiresegError(*_first_of(faults))
    return _name_apart(footprints, [row["folderPath"] for _, row in rows])


def _read_rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            rows = [(reader.line_num, row) for row in reader]
            return list(reader.fieldnames or ()), rows
    except FileNotFoundError as error:
        raise FiresegError(f"{path}: no such file; take the data set's satelliteData.csv") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FiresegError(f"{path}: not a readable csv ({error}); take the data set's satelliteData.csv") from error


def _read_row(row: Mapping[str, str]) -> Footprint:
    name = row["folderPath"].replace("\\", "/").rstrip("/").rpartition("/")[2].strip()
    if not name:
        raise ValueError("folderPath is empty, but it names the tile")
    west, south, east, north = (_number(row, column) for column in _BOX)
    code = re.match(r"EMSR\d+", name)
    footprint = Footprint(
        name=name,
        bounds=(west, south, east, north),
        activation=row.get("EMSR", "").strip() or (code.group() if code else name),
        date=row.get("post_fire_acquisition", "").strip() or None,
        height=_count(row, "height"),
        width=_count(row, "width"),
        burned=_count(row, "pixelBurned"),
    )
    if fault := _fault_of(footprint):
        raise ValueError(f"{name}: {fault}")
    return footprint


def _number(row: Mapping[str, str], column: str) -> float:
    try:
        return float(row[column])
    except ValueError as error:
        raise ValueError(f"{column} '{row[column]}', but it is a number of degrees") from error


def _count(row: Mapping[str, str], column: str) -> int | None:
    text = row.get(column, "").strip()
    if not text:
        return None
    try:
        return int(float(text))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{column} '{text}', but it is a count") from error


def _name_apart(footprints: Sequence[Footprint], folders: Sequence[str]) -> list[Footprint]:
    """The same, with the first folder before every name that comes more than once."""
    times = Counter(one.name for one in footprints)
    roots = [folder.replace("\\", "/").strip("/").partition("/")[0] for folder in folders]
    return [
        replace(one, name=f"{root}/{one.name}") if times[one.name] > 1 else one
        for one, root in zip(footprints, roots, strict=True)
    ]


def _fault_of(footprint: Footprint) -> str | None:
    west, south, east, north = footprint.bounds
    box = f"bounds {west:g} {south:g} {east:g} {north:g}"
    if not all(isfinite(value) for value in footprint.bounds):
        return f"{box}, but west, south, east and north are numbers; georeference the tile"
    if max(abs(south), abs(north)) > 90 or max(abs(west), abs(east)) > 360:
        return f"{box}, but they are in degrees of longitude and latitude; give metres as degrees (EPSG:4326)"
    if south >= north or west == east:
        return f"{box}, without any ground between them, but south < north and west != east"
    if width_of(west, east) > _WIDEST:
        return (
            f"{box}, {width_of(west, east):g} degrees wide: around a pole, or across the antimeridian with west and "
            "east swapped (there west > east); give each tile less than half the earth"
        )
    if footprint.outline is not None and len(footprint.outline) < 3:
        return f"an outline of {len(footprint.outline)} corners, but ground has at least 3; give all, or none for a box"
    return None


def width_of(west: float, east: float) -> float:
    """Degrees from west to east, going east: 1 from 179.5 to -179.5."""
    return east - west if east > west else east - west + 360.0


def _first_of(faults: Sequence[str]) -> list[str]:
    more = [f"and {len(faults) - _NUM_SHOWN} more"] if len(faults) > _NUM_SHOWN else []
    return [*faults[:_NUM_SHOWN], *more]


COLUMNS = ("folderPath", "post_fire_acquisition", "country", "koppen_subgroup")


class TileMetadata(NamedTuple):
    """What a row says; empty where it says nothing.

    Attributes:
        country: Where the tile lies.
        climate: Class of Köppen and Geiger, as `Csa`.
        date: When the image was taken, in ISO 8601.
    """

    country: str = ""
    climate: str = ""
    date: str = ""


def read_tile_metadata(path: Path) -> dict[str, TileMetadata]:
    """Reads the data set's `satelliteData.csv`.

    A tile that comes twice there keeps what both rows agree upon.

    Args:
        path: A csv with the columns folderPath, post_fire_acquisition, country and koppen_subgroup.

    Returns:
        Facts by name of the tile.

    Raises:
        FiresegError: If it cannot be read or lacks a column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, restval="")
            rows = list(table)
    except FileNotFoundError as error:
        raise FiresegError(f"{path}: no such file; take the data set's satelliteData.csv") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FiresegError(f"{path}: not a readable csv ({error}); take the data set's satelliteData.csv") from error
    if missing := [name for name in COLUMNS if name not in (table.fieldnames or ())]:
        raise FiresegError(f"{path}: no column {', '.join(missing)}; take the data set's satelliteData.csv")
    found: dict[str, list[TileMetadata]] = defaultdict(list)
    for row in rows:
        name = row["folderPath"].replace("\\", "/").rstrip("/").rpartition("/")[2].strip()
        found[name].append(_read_facts_row(row))
    return {name: _agree(facts) for name, facts in found.items() if name}


def _read_facts_row(row: Mapping[str, str]) -> TileMetadata:
    date = row["post_fire_acquisition"].strip()
    return TileMetadata(row["country"].strip(), row["koppen_subgroup"].strip(), read_moment(date) if date else "")


def _agree(facts: list[TileMetadata]) -> TileMetadata:
    return TileMetadata(*(values[0] if len(set(values)) == 1 else "" for values in zip(*facts, strict=True)))


def make_footprint(
    files: TileFiles, grid: Grid, date: str | None, known: Mapping[str, TileMetadata] | None = None
) -> Footprint:
    """The footprint of a tile.

    Args:
        files: Its files, which know its split.
        grid: Its pixel grid.
        date: Its acquisition date, None if unknown.
        known: What the data set's own table says of tiles, by name: its dates count first.
    """
    west, south, east, north = grid.bounds_lonlat
    is_box = all(x in (west, east) and y in (south, north) for x, y in grid.outline_lonlat)
    facts = known.get(files.name, TileMetadata()) if known else TileMetadata()
    return Footprint(
        name=files.name,
        bounds=grid.bounds_lonlat,
        split=files.split,
        activation=files.activation,
        date=facts.date or date,
        height=grid.height,
        width=grid.width,
        outline=None if is_box else grid.outline_lonlat,
    )


def to_dict(footprint: Footprint) -> dict[str, Any]:
    """A footprint, as JSON takes it."""
    values = asdict(footprint)
    if look := footprint.look:
        values["look"] = {
            "digest": look.digest,
            "cells": b64encode(look.cells).decode(),
            "burned": b64encode(look.burned).decode(),
        }
    return values


def from_dict(values: Mapping[str, Any]) -> Footprint:
    """The footprint that `to_dict` gave."""
    look = values["look"] and Fingerprint(
        digest=values["look"]["digest"],
        cells=b64decode(values["look"]["cells"]),
        burned=b64decode(values["look"]["burned"]),
    )
    outline = values["outline"] and tuple((x, y) for x, y in values["outline"])
    west, south, east, north = values["bounds"]
    return Footprint(**{**values, "bounds": (west, south, east, north), "look": look, "outline": outline})
