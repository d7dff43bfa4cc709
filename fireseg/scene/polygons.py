"""Burned areas as polygons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.io import DatasetReader

from fireseg.errors import FiresegError
from fireseg.scene.areas import PixelAreas
from fireseg.scene.cog import CACHE_BYTES, GDAL_ERRORS
from fireseg.scene.components import Components, find_components
from fireseg.scene.outlines import outline_components, simplify_outlines

M2_PER_HA = 10_000.0


@dataclass(frozen=True, kw_only=True)
class Polygons:
    """Burned areas, the largest first.

    Args:
        geometries: Shapely polygons in `crs`, `(N,)` of objects, all valid.
        fields: Attributes by name, each `(N,)`: `id` from 1, `area_ha`, `mean_probability`, and with more than two
            classes `ha_<class>` for each burned one. Areas are those of the pixels, before any simplification.
        crs: CRS of the raster they were drawn from.
        num_dropped: How many were smaller than the smallest area asked for.
        dropped_ha: Their hectares together.
    """

    geometries: NDArray[np.object_]
    fields: Mapping[str, NDArray]
    crs: CRS
    num_dropped: int
    dropped_ha: float


def draw_polygons(
    classes_path: Path,
    fire_path: Path,
    *,
    class_names: Sequence[str],
    min_area_ha: float = 0.0,
    simplify_m: float = 0.0,
) -> Polygons:
    """Outlines the burned areas of a map: pixels above class 0 that share an edge are one polygon.

    Read and outlined strip by strip: beside the polygons themselves, memory grows with the width of the map alone.

    Args:
        classes_path: Classes as `MapWriter` writes them; the folder takes a temporary file.
        fire_path: Probabilities of fire on the same grid.
        class_names: One name a class, the first for unburned.
        min_area_ha: Areas smaller than this are dropped, and counted.
        simplify_m: About how far, in metres, an outline may move to need fewer corners; 0 keeps that of the pixels.

    Raises:
        FiresegError: If a file cannot be read, the two lie on different grids, or the disk is full.
    """
    try:
        with (
            rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES),
            rasterio.open(classes_path) as classes,
            rasterio.open(fire_path) as fire,
        ):
            _check_grids(classes, fire)
            areas = PixelAreas(classes.crs, classes.transform, classes.height, classes.width)
            found = find_components(classes, fire, areas, num_classes=len(class_names))
            order = np.argsort(-found.areas_m2, kind="stable")
            kept = order[found.areas_m2[order] >= min_area_ha * M2_PER_HA]
            outlines = outline_components(classes, found, kept, folder=classes_path.parent)
            crs = classes.crs
    except GDAL_ERRORS as error:
        raise FiresegError(f"{classes_path} and {fire_path}: cannot be read ({error}); map the scene again") from error
    dropped_ha = (found.areas_m2.sum() - found.areas_m2[kept].sum()) / M2_PER_HA
    return Polygons(
        geometries=simplify_outlines(outlines, crs, simplify_m) if simplify_m else outlines,
        fields=_list_fields(found, kept, class_names),
        crs=crs,
        num_dropped=len(order) - len(kept),
        dropped_ha=float(max(0.0, dropped_ha)),
    )


def _check_grids(classes: DatasetReader, fire: DatasetReader) -> None:
    ours, theirs = ((one.shape, one.transform, one.crs) for one in (classes, fire))
    if ours != theirs:
        raise FiresegError(
            f"{fire.name}: {fire.height} x {fire.width} pixels at {tuple(fire.transform)[:6]}, but those of "
            f"{classes.name} ({classes.height} x {classes.width} at {tuple(classes.transform)[:6]}) are wanted; "
            "take the two of one map"
        )


def _list_fields(found: Components, kept: NDArray[np.intp], class_names: Sequence[str]) -> dict[str, NDArray]:
    fields: dict[str, NDArray] = {
        "id": np.arange(1, len(kept) + 1, dtype=np.int32),
        "area_ha": found.areas_m2[kept] / M2_PER_HA,
        "mean_probability": found.mean_probability[kept],
    }
    if len(class_names) > 2:
        for place, name in enumerate(class_names[1:]):
            fields[f"ha_{name}"] = found.class_areas_m2[kept, place] / M2_PER_HA
    return fields
