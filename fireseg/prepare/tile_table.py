"""Tables that give a value, such as the split or the group, for each tile."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from fireseg.errors import FiresegError, did_you_mean, join_names, shorten
from fireseg.prepare.footprints import read_rows

_MAX_NAMES = 3


def read_tile_column(
    path: Path, column: str, tiles: Collection[str], *, option: str, allowed: Sequence[str] = ()
) -> dict[str, str]:
    """Reads the value of each tile from a table with the column `tile` and another one.

    Args:
        path: A csv; further columns are ignored.
        column: Column of the values.
        tiles: Names of all tiles; each must have one row.
        option: Option that names the table, for messages.
        allowed: Permitted values; any but an empty one if there are none.

    Returns:
        Value by tile.

    Raises:
        FiresegError: If the table cannot be read, lacks a column, has an unknown tile, a tile twice, an invalid value,
            or no row for a tile; lists all faults.
    """
    known, place = set(tiles), f"{option} {path}"
    lines: dict[str, int] = {}
    values: dict[str, str] = {}
    faults = []
    for line, row in read_rows(path, ("tile", column), cure=f"{option} needs a csv with the columns tile and {column}"):
        tile, value = row["tile"].strip(), row[column].strip()
        if tile not in known:
            faults.append(
                f"{place}: line {line}: tile '{tile}', which is not among the tiles{did_you_mean(tile, known)}; "
                "name tiles as their files before _S2L2A"
            )
        elif tile in lines:
            faults.append(f"{place}: line {line}: tile '{tile}' again, as in line {lines[tile]}; keep one of the rows")
        if not value or (allowed and value not in allowed):
            wanted = f"must be {', '.join(allowed[:-1])} or {allowed[-1]}" if allowed else "must not be empty"
            faults.append(f"{place}: line {line}: {column} '{value}', but {wanted}")
        lines.setdefault(tile, line)
        values.setdefault(tile, value)
    if missing := sorted(known - values.keys()):
        shown = join_names(missing, _MAX_NAMES)
        faults.append(f"{place}: no row for {len(missing)} of {len(known)} tiles ({shown}); add a row for each")
    if faults:
        raise FiresegError(*shorten(faults))
    return values
