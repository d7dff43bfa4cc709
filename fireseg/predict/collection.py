"""Results of several scenes together: a table in CSV, and all burned areas in one GeoPackage."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fireseg.errors import FiresegError
from fireseg.files import atomic_write, list_leftovers
from fireseg.geo.merge import merge_polygons
from fireseg.predict.outputs import format_date
from fireseg.tiles.products import Scene

if TYPE_CHECKING:
    from fireseg.predict.scene import SceneMap

ALL_POLYGONS, ALL_ROWS = "all_burned.gpkg", "all_burned.csv"


def write_collection(results: Mapping[Scene, SceneMap | FiresegError], out: Path) -> None:
    """Writes `all_burned.csv` with a row for each scene, and `all_burned.gpkg` with the polygons of all maps.

    Args:
        results: Map or error by scene.
        out: Output folder.

    Raises:
        FiresegError: If the files cannot be written, or a map has vanished.
    """
    for path in (*list_leftovers(out / ALL_ROWS), *list_leftovers(out / ALL_POLYGONS)):
        path.unlink(missing_ok=True)
    rows = [_make_row(scene, result) for scene, result in results.items()]
    columns = list(dict.fromkeys(name for row in sorted(rows, key=len, reverse=True) for name in row))
    # Names of files that are no UTF-8 become escapes, as in the summaries.
    encoding: dict[str, Any] = {"newline": "", "encoding": "utf-8", "errors": "backslashreplace"}
    with atomic_write(out / ALL_ROWS) as part, part.open("w", **encoding) as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    maps = [result.files.burned for result in results.values() if not isinstance(result, FiresegError)]
    if maps:
        merge_polygons(maps, out / ALL_POLYGONS)
    else:
        (out / ALL_POLYGONS).unlink(missing_ok=True)  # of an earlier command: the two files belong together


def _make_row(scene: Scene, result: SceneMap | FiresegError) -> dict[str, Any]:
    if isinstance(result, FiresegError):
        return {"scene": scene, "state": "failed", "faults": "; ".join(result.faults)}
    summary = result.summary
    grades = list(summary["hectares"].items())[1:]
    return {
        "scene": scene,
        "state": "done",
        "date": format_date(summary["date"]),
        "burned_ha": round(summary["burned_ha"], 2),
        **{f"ha_{name}": round(area, 2) for name, area in grades if len(grades) > 1},
        "burned_fraction": round(summary["burned_fraction"], 6),
        "max_probability": round(summary["max_probability"], 4),
        "polygons": summary["polygons"]["count"],
        "unknown": round(summary["unknown"], 6),
        "cloud": None if summary["cloud"] is None else round(summary["cloud"]["share"], 6),
        "map": result.files.classes,
        "flags": "; ".join(summary["flags"]),
        "faults": None,
    }
