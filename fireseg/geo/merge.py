"""Burned areas of many maps together in one GeoPackage."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fireseg.errors import FiresegError
from fireseg.files import atomic_write, disk_error
from fireseg.geo.polygons import LAYER, STYLES, write_style

_BATCH = 5000
"""Polygons in memory before they are written: to open a GeoPackage takes as long as to write a thousand."""


class _Features(NamedTuple):
    outlines: NDArray[np.object_]
    fields: dict[str, NDArray]


def merge_polygons(paths: Iterable[Path], merged: Path) -> int:
    """Writes the polygons of several maps to one GeoPackage in longitude and latitude, atomically.

    Maps of several UTM zones have no common grid. The fields are those of the maps, areas included. Memory does not
    grow with the number of maps. Outlines that cross the antimeridian go on beyond 180 degrees. No other process may
    write the same file at that time.

    Args:
        paths: GeoPackages that `write_polygons` wrote, all with the same fields; at least one.
        merged: Output file; a temporary file is written to its folder, which must exist.

    Returns:
        The number of polygons.

    Raises:
        FiresegError: If a file cannot be read, has other fields than the first one, or the output cannot be written.
    """
    from pyogrio import read_info
    from pyogrio.errors import DataLayerError, DataSourceError

    number = 0
    try:
        for leftover in merged.parent.glob(f".{merged.name}.*.work"):  # of killed processes: the caller has a lock
            shutil.rmtree(leftover, ignore_errors=True)
        with TemporaryDirectory(prefix=f".{merged.name}.", suffix=".work", dir=merged.parent) as work:
            part = Path(work) / "merged.gpkg"
            for batch in _batch(map(_read, paths)):
                _append(batch, part)
                number += len(batch.outlines)
            write_style(part)
            counts = [read_info(part, layer=name, force_feature_count=True)["features"] for name in (LAYER, STYLES)]
            if counts != [number, 1]:  # GDAL can miss that the disk is full
                raise FiresegError(f"{merged}: features are missing after writing; check that the disk is not full")
            with atomic_write(merged) as target:
                part.replace(target)
    except OSError as error:
        raise disk_error(merged, error) from error
    except (DataLayerError, DataSourceError) as error:
        raise FiresegError(f"{merged}: cannot be written ({error}); if the disk is full, free some space") from error
    return number


def _read(path: Path) -> _Features:
    import shapely
    from pyogrio import raw
    from pyogrio.errors import DataLayerError, DataSourceError
    from pyproj import Transformer

    try:
        about, _, outlines, values = raw.read(path, layer=LAYER)
    except (DataLayerError, DataSourceError) as error:
        raise FiresegError(f"{path}: cannot be read ({error}); map the scene again with --overwrite") from error
    transformer = Transformer.from_crs(about["crs"], "EPSG:4326", always_xy=True)

    def convert(coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(transformer.transform(coordinates[:, 0], coordinates[:, 1]))

    converted = shapely.transform(shapely.from_wkb(outlines), convert)
    bounds = shapely.bounds(converted).reshape(-1, 4)
    for number in np.flatnonzero(bounds[:, 2] - bounds[:, 0] > 180):
        converted[number] = shapely.transform(converted[number], _continue_east)
    return _Features(converted, dict(zip(about["fields"], values, strict=True)))


def _continue_east(coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
    return coordinates + np.column_stack([np.where(coordinates[:, 0] < 0, 360.0, 0.0), np.zeros(len(coordinates))])


def _batch(maps: Iterator[_Features]) -> Iterator[_Features]:
    """Joins the features of maps; the first batch has all of them if there are few, so that it defines the fields."""
    waiting: list[_Features] = []
    is_first = True
    for one in maps:
        if waiting and list(one.fields) != list(waiting[0].fields):
            raise FiresegError(
                f"maps with the fields {', '.join(one.fields)} and {', '.join(waiting[0].fields)}; map all scenes with "
                "one model and --overwrite"
            )
        waiting.append(one)
        if sum(len(each.outlines) for each in waiting) >= _BATCH:
            yield _join(waiting)
            is_first = False
            waiting = [_Features(one.outlines[:0], {name: values[:0] for name, values in one.fields.items()})]
    if is_first or sum(len(each.outlines) for each in waiting):
        yield _join(waiting)


def _join(features: list[_Features]) -> _Features:
    fields = {name: np.concatenate([each.fields[name] for each in features]) for name in features[0].fields}
    return _Features(np.concatenate([each.outlines for each in features]), fields)


def _append(features: _Features, path: Path) -> None:
    import shapely
    from pyogrio import raw

    options: dict[str, Any] = {} if path.exists() else {"dataset_options": {"VERSION": "1.2"}}
    raw.write(
        path,
        shapely.to_wkb(features.outlines),
        list(features.fields.values()),
        list(features.fields),
        driver="GPKG",
        layer=LAYER,
        geometry_type="Polygon",
        crs="EPSG:4326",
        append=path.exists(),
        **options,
    )
