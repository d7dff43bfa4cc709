"""What the data set's own table knows of a tile beyond its files: country, climate, date."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fireseg.data.audit.footprints import read_moment
from fireseg.errors import FiresegError

COLUMNS = ("folderPath", "post_fire_acquisition", "country", "koppen_subgroup")


class TileFacts(NamedTuple):
    """What a row says; empty where it says nothing.

    Attributes:
        country: Where the tile lies.
        climate: Class of Köppen and Geiger, as `Csa`.
        date: When the image was taken, in ISO 8601.
    """

    country: str = ""
    climate: str = ""
    date: str = ""


def read_tile_facts(path: Path) -> dict[str, TileFacts]:
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
    found: dict[str, list[TileFacts]] = defaultdict(list)
    for row in rows:
        name = row["folderPath"].replace("\\", "/").rstrip("/").rpartition("/")[2].strip()
        found[name].append(_read_row(row))
    return {name: _agree(facts) for name, facts in found.items() if name}


def _read_row(row: Mapping[str, str]) -> TileFacts:
    date = row["post_fire_acquisition"].strip()
    return TileFacts(row["country"].strip(), row["koppen_subgroup"].strip(), read_moment(date) if date else "")


def _agree(facts: list[TileFacts]) -> TileFacts:
    return TileFacts(*(values[0] if len(set(values)) == 1 else "" for values in zip(*facts, strict=True)))
