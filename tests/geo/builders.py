"""Builders of small maps on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from rasterio import Affine
from rasterio.crs import CRS

from fireseg.geo import Grid, MapPaths, MapWriter, Polygons, polygonize
from fireseg.task import Task, get_class_names

UTM = CRS.from_epsg(32633)
LONLAT = CRS.from_epsg(4326)
NORTH_UP = Affine(10.0, 0.0, 500_000.0, 0.0, -10.0, 4_600_000.0)
HIGH_UTM = Affine(10, 0, 400_000, 0, -10, 7_800_000)


def make_grid(crs: CRS, transform: Affine, height: int, width: int) -> Grid:
    """Makes a grid from rasterio's CRS and transform."""
    coefficients: Any = tuple(transform)[:6]
    return Grid(height=height, width=width, crs=crs.to_string(), transform=coefficients)


def write_map(
    folder: Path,
    classes: ArrayLike,
    fire: ArrayLike | None = None,
    *,
    crs: CRS = UTM,
    transform: Affine = NORTH_UP,
    num_classes: int = 2,
    chunk_rows: int = 100,
    **options,
) -> MapPaths:
    """Writes a map in chunks of rows; the default probability is 0.9 for burned and 0.1 for unburned pixels."""
    classes = np.asarray(classes, np.uint8)
    if fire is None:
        fire = np.where(classes == 255, np.nan, np.where(classes > 0, 0.9, 0.1))
    fire = np.asarray(fire, np.float32)
    names, colours = describe_classes(num_classes)
    height, width = classes.shape
    with MapWriter(
        folder,
        make_grid(crs, transform, height, width),
        class_names=names,
        labels=names,
        colours=colours,
        **options,
    ) as writer:
        for top in range(0, height, chunk_rows):
            writer.write(top, classes[top : top + chunk_rows], fire[top : top + chunk_rows])
        return writer.close()


def describe_classes(num_classes: int) -> tuple[Sequence[str], Sequence[str]]:
    """Returns names and colours of the classes."""
    names = get_class_names(num_classes)
    return names, Task(name="own", num_classes=num_classes, class_names=names).colours


def draw_map(
    folder: Path, classes, fire=None, *, num_classes: int = 2, min_area_ha: float = 0.0, simplify_m: float = 0.0, **grid
) -> Polygons:
    """Writes a map and converts it to polygons."""
    paths = write_map(folder, classes, fire, num_classes=num_classes, **grid)
    return polygonize(
        paths.classes,
        paths.fire,
        class_names=get_class_names(num_classes),
        min_area_ha=min_area_ha,
        simplify_m=simplify_m,
    )


def draw_blobs(height: int, width: int, *, seed: int = 0, share: float = 0.4) -> np.ndarray:
    """Draws irregular burned areas with unburned islands."""
    from scipy import ndimage

    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((height, width)), 2.0)
    return (field > np.quantile(field, 1 - share)).astype(np.uint8)
