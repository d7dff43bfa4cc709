"""Footprints: location and acquisition time of tiles, from rasters or from the data set's satelliteData.csv."""

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

from fireseg.errors import FiresegError, did_you_mean, shorten
from fireseg.files import check_regular_file
from fireseg.geo.grid import Grid
from fireseg.prepare.duplicates import Fingerprint
from fireseg.tiles.folder import TileFiles

_BOX_COLUMNS = ("left_Long", "bottom_Lat", "right_Long", "top_Lat")

_FOOTPRINT_COLUMNS = ("folderPath", *_BOX_COLUMNS)

_METADATA_COLUMNS = ("folderPath", "post_fire_acquisition", "country", "koppen_subgroup")

_MAX_WIDTH_DEG = 180.0

_MAX_COUNT = 10**12

_CURE = "pass the data set's satelliteData.csv"


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """The footprint of a tile.

    Attributes:
        name: Name of the tile.
        bounds: West, south, east, north in degrees; west > east across the antimeridian.
        split: train, val or test; empty without splits.
        activation: Emergency activation that the tile belongs to; empty if unknown.
        date: Acquisition time as found in the metadata.
        height: Tile height in pixels.
        width: Tile width in pixels.
        burned: Number of burned pixels of the delineation.
        fingerprint: Fingerprint of the pixels, to find duplicates.
        outline: Corners as (longitude, latitude) of a tile that is not a box in degrees, as in UTM, and covers less
            than its bounds. Convex, at least 3 corners.
    """

    name: str
    bounds: tuple[float, float, float, float]
    split: str = ""
    activation: str = ""
    date: str | None = None
    height: int | None = None
    width: int | None = None
    burned: int | None = None
    fingerprint: Fingerprint | None = None
    outline: tuple[tuple[float, float], ...] | None = None

    @property
    def timestamp(self) -> str | None:
        """Acquisition time as `2017-10-07T08:05:51` or `2017-10-07` (UTC), or unchanged if it cannot be parsed."""
        return normalize_date(self.date) if self.date else None

    @property
    def has_activation(self) -> bool:
        """True if the activation is known; without a code in its path, a tile has its own name as activation."""
        return self.activation not in ("", self.name)

    def as_dict(self) -> dict[str, Any]:
        """Returns the footprint as plain values, as the journal stores it."""
        # Journals of format 1 name the fingerprint "look".
        values = {"look" if name == "fingerprint" else name: value for name, value in asdict(self).items()}
        if fingerprint := self.fingerprint:
            values["look"] = {
                "digest": fingerprint.digest,
                "cells": b64encode(fingerprint.cells).decode(),
                "burned": b64encode(fingerprint.burned).decode(),
            }
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Footprint:
        """Creates a footprint from the output of `as_dict`."""
        values = dict(values)
        look, outline = values.pop("look"), values["outline"]
        fingerprint = look and Fingerprint(
            digest=look["digest"], cells=b64decode(look["cells"]), burned=b64decode(look["burned"])
        )
        west, south, east, north = values["bounds"]
        values |= {"bounds": (west, south, east, north), "outline": outline and tuple((x, y) for x, y in outline)}
        return cls(**values, fingerprint=fingerprint)


class TileMetadata(NamedTuple):
    """Metadata of a tile from the data set's table; empty strings if unknown.

    Attributes:
        country: Country of the tile.
        climate: Köppen-Geiger class, such as `Csa`.
        date: Acquisition time in ISO 8601.
    """

    country: str = ""
    climate: str = ""
    date: str = ""


def make_footprint(
    files: TileFiles, grid: Grid, date: str | None, metadata: Mapping[str, TileMetadata] | None = None
) -> Footprint:
    """Creates the footprint of a tile.

    Args:
        files: Files of the tile.
        grid: Pixel grid of the image.
        date: Acquisition date of the image; None if unknown.
        metadata: The data set's own metadata by tile name; its dates take precedence.
    """
    west, south, east, north = grid.bounds_lonlat
    is_box = all(x in (west, east) and y in (south, north) for x, y in grid.outline_lonlat)
    own = metadata.get(files.name, TileMetadata()) if metadata else TileMetadata()
    return Footprint(
        name=files.name,
        bounds=grid.bounds_lonlat,
        split=files.split,
        activation=files.activation,
        date=own.date or date,
        height=grid.height,
        width=grid.width,
        outline=None if is_box else grid.outline_lonlat,
    )


@lru_cache(maxsize=1 << 16)
def normalize_date(text: str) -> str:
    """Converts a date to a comparable form.

    Args:
        text: ISO 8601 in any form, or `2017/10/07_08:05:51`.

    Returns:
        The time in UTC to the second, or the day if there is no time; the stripped text if it cannot be parsed.

    Example:
        >>> normalize_date("2017/10/07_08:05:51"), normalize_date("2017-10-07T10:05:51.024+02:00")
        ('2017-10-07T08:05:51', '2017-10-07T08:05:51')
    """
    plain = text.strip().replace("/", "-").replace("_", "T")
    try:
        time = datetime.fromisoformat(plain)
    except ValueError:
        return text.strip()
    if not re.search(r"\d[T ]\d", plain):
        return time.date().isoformat()
    if time.tzinfo is not None:
        time = time.astimezone(UTC)
    return time.replace(tzinfo=None, microsecond=0).isoformat()


def degrees_east(west: float, east: float) -> float:
    """Returns the degrees from west to east, going east: 1 from 179.5 to -179.5."""
    return east - west if east > west else east - west + 360.0


def check_footprints(footprints: Sequence[Footprint]) -> None:
    """Checks that footprints have valid bounds.

    Raises:
        FiresegError: If bounds are not finite, not degrees, upside down, without area, or wider than 180 degrees
            (around a pole, or across the antimeridian with west and east swapped); lists all faults.
    """
    faults = [f"{one.name}: {fault}" for one in footprints if (fault := _find_fault(one))]
    if faults:
        raise FiresegError(*shorten(faults))


def read_footprints(path: Path | str) -> list[Footprint]:
    """Reads the footprints of the CEMS wildfire data set from its `satelliteData.csv`, which has no splits.

    A tile name that occurs twice (the folders dataOptimal and dataColomba contain different tiles of the same name)
    is prefixed with its folder.

    Args:
        path: A csv with at least the columns folderPath, left_Long, bottom_Lat, right_Long and top_Lat.

    Raises:
        FiresegError: If it cannot be read, lacks a column, or has invalid rows; lists all faults.
    """
    path = Path(path)
    rows = read_rows(path, _FOOTPRINT_COLUMNS)
    if not rows:
        raise FiresegError(f"{path}: no rows; {_CURE}")
    footprints, faults = [], []
    for line, row in rows:
        try:
            footprints.append(_parse_footprint(row))
        except ValueError as error:
            faults.append(f"{path}: line {line}: {error}")
    if faults:
        raise FiresegError(*shorten(faults))
    counts = Counter(one.name for one in footprints)
    roots = [row["folderPath"].replace("\\", "/").strip("/").partition("/")[0] for _, row in rows]
    return [
        replace(one, name=f"{root}/{one.name}") if counts[one.name] > 1 else one
        for one, root in zip(footprints, roots, strict=True)
    ]


def read_tile_metadata(path: Path) -> dict[str, TileMetadata]:
    """Reads country, climate and date of each tile from the data set's `satelliteData.csv`.

    Args:
        path: A csv with the columns folderPath, post_fire_acquisition, country and koppen_subgroup.

    Returns:
        Metadata by tile name. Values of a tile that occurs twice are kept if both rows agree.

    Raises:
        FiresegError: If it cannot be read or lacks a column.
    """
    by_name: dict[str, list[TileMetadata]] = defaultdict(list)
    for _, row in read_rows(path, _METADATA_COLUMNS):
        date = row["post_fire_acquisition"].strip()
        metadata = TileMetadata(
            row["country"].strip(), row["koppen_subgroup"].strip(), normalize_date(date) if date else ""
        )
        by_name[_tile_name(row)].append(metadata)
    return {
        name: TileMetadata(*(values[0] if len(set(values)) == 1 else "" for values in zip(*rows, strict=True)))
        for name, rows in by_name.items()
        if name
    }


def read_rows(path: Path, required: Sequence[str], *, cure: str = _CURE) -> list[tuple[int, dict[str, str]]]:
    """Reads a csv.

    Args:
        path: A csv with column names in its first line.
        required: Columns that it must have.
        cure: What to do if it cannot be read or lacks one.

    Returns:
        The line number and the cells of each row.

    Raises:
        FiresegError: If it cannot be read or lacks a column.
    """
    check_regular_file(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            rows = [(reader.line_num, row) for row in reader]
            columns = list(reader.fieldnames or ())
    except FileNotFoundError as error:
        raise FiresegError(f"{path}: no such file; {cure}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FiresegError(f"{path}: not a readable csv ({error}); {cure}") from error
    if missing := [name for name in required if name not in columns]:
        others = [column for column in columns if column not in required]
        near = "".join(did_you_mean(name, others) for name in missing)
        raise FiresegError(
            f"{path}: no column {', '.join(missing)}{near}, but {', '.join(required)} are required; {cure}"
        )
    return rows


def _tile_name(row: Mapping[str, str]) -> str:
    return row["folderPath"].replace("\\", "/").rstrip("/").rpartition("/")[2].strip()


def _parse_footprint(row: Mapping[str, str]) -> Footprint:
    name = _tile_name(row)
    if not name:
        raise ValueError("folderPath is empty, but must name the tile")
    west, south, east, north = (_parse_degrees(row, column) for column in _BOX_COLUMNS)
    code = re.match(r"EMSR\d+", name)
    footprint = Footprint(
        name=name,
        bounds=(west, south, east, north),
        activation=row.get("EMSR", "").strip() or (code.group() if code else name),
        date=row.get("post_fire_acquisition", "").strip() or None,
        height=_parse_count(row, "height"),
        width=_parse_count(row, "width"),
        burned=_parse_count(row, "pixelBurned"),
    )
    if fault := _find_fault(footprint):
        raise ValueError(f"{name}: {fault}")
    return footprint


def _parse_degrees(row: Mapping[str, str], column: str) -> float:
    try:
        return float(row[column])
    except ValueError as error:
        raise ValueError(f"{column} '{row[column]}', but must be a number of degrees") from error


def _parse_count(row: Mapping[str, str], column: str) -> int | None:
    text = row.get(column, "").strip()
    if not text:
        return None
    try:
        count = int(float(text))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{column} '{text[:40]}', but must be a count") from error
    if not 0 <= count <= _MAX_COUNT:
        raise ValueError(f"{column} '{text[:40]}', but must be a count of 0 to {_MAX_COUNT:.0e} pixels")
    return count


def _find_fault(footprint: Footprint) -> str | None:
    west, south, east, north = footprint.bounds
    bounds = f"bounds {west:g} {south:g} {east:g} {north:g}"
    if not all(isfinite(value) for value in footprint.bounds):
        return f"{bounds}, but west, south, east and north must be finite; georeference the tile"
    if max(abs(south), abs(north)) > 90 or max(abs(west), abs(east)) > 360:
        return f"{bounds}, but must be degrees of longitude and latitude; convert metres to degrees (EPSG:4326)"
    if south >= north or west == east:
        return f"{bounds}, without area, but must have south < north and west != east"
    if degrees_east(west, east) > _MAX_WIDTH_DEG:
        return (
            f"{bounds}, {degrees_east(west, east):g} degrees wide: around a pole, or across the antimeridian with west "
            "and east swapped (there west > east); tiles must be less than 180 degrees wide"
        )
    if footprint.outline is not None and len(footprint.outline) < 3:
        return f"outline of {len(footprint.outline)} corners, but needs at least 3; omit the outline of a box"
    return None
