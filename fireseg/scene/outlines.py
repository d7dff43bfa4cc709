"""Outlines of burned pixels, drawn by GDAL from a band on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.features import shapes
from rasterio.io import DatasetReader

from fireseg.disk import disk_error
from fireseg.errors import FiresegError
from fireseg.scene.cog import GDAL_ERRORS
from fireseg.scene.components import Components, label_strips, rows_of

_EARTH_M = 6_371_008.8


def outline_components(
    classes: DatasetReader, found: Components, kept: NDArray[np.intp], *, folder: Path
) -> NDArray[np.object_]:
    """The outlines of components, along the edges of their pixels.

    Args:
        classes: The classes of a map.
        found: What hangs together in it.
        kept: Which components to outline, in the order wanted.
        folder: Takes a temporary file of 5 bytes a pixel before compression.

    Returns:
        Valid shapely polygons in the CRS of the map, `(len(kept),)` of objects.

    Raises:
        FiresegError: If the folder cannot be written, or the disk is full.
    """
    import shapely

    outlines = np.full(len(kept), None, object)
    try:
        with TemporaryDirectory(prefix=".outlines-", dir=folder) as work:
            for number, outline in _draw(classes, found, kept, Path(work)):
                outlines[number - 1] = shapely.geometry.shape(outline)
    except GDAL_ERRORS as error:
        raise FiresegError(f"{folder}: the outlines need room there ({error}); is the disk full? make room") from error
    except OSError as error:
        raise disk_error(folder, error) from error
    if shapely.is_missing(outlines).any():  # GDAL can miss that the disk is full
        raise FiresegError(f"{folder}: the outlines need room there; is the disk full or broken? make room")
    # A hole that touches the rim at a corner can be drawn as one line that touches itself.
    for place in np.flatnonzero(~shapely.is_valid(outlines)):
        outlines[place] = shapely.make_valid(outlines[place], method="structure")
    return outlines


def _draw(
    classes: DatasetReader, found: Components, kept: NDArray[np.intp], work: Path
) -> Iterator[tuple[int, dict[str, Any]]]:
    ids_path, kept_path = work / "ids.tif", work / "kept.tif"
    _write_ids(classes, found, kept, ids_path, kept_path)
    with rasterio.open(ids_path) as ids, rasterio.open(kept_path) as is_kept:
        for outline, number in shapes(rasterio.band(ids, 1), mask=rasterio.band(is_kept, 1), connectivity=4):
            yield int(number), outline


def simplify_outlines(outlines: NDArray[np.object_], crs: CRS, simplify_m: float) -> NDArray[np.object_]:
    """Outlines with fewer corners. One that would cross itself by that stays as it is.

    Args:
        outlines: Valid shapely polygons, `(N,)` of objects.
        crs: Their CRS.
        simplify_m: About how far an outline may move, in metres.

    Returns:
        Valid shapely polygons, `(N,)` of objects.
    """
    import shapely

    metres = _metres_per_unit(outlines, crs)
    simple = _scale(shapely.simplify(_scale(outlines, metres), simplify_m, preserve_topology=True), 1.0 / metres)
    is_fine = shapely.is_valid(simple) & ~shapely.is_empty(simple)
    return np.where(is_fine, simple, outlines)


def _write_ids(
    classes: DatasetReader, found: Components, kept: NDArray[np.intp], ids_path: Path, kept_path: Path
) -> None:
    """Writes a band with 1 for the first component kept, 2 for the next, 0 elsewhere; and one that tells the two."""
    id_of = np.zeros(int(found.of_piece.max(initial=-1)) + 1, np.int32)
    id_of[kept] = np.arange(1, len(kept) + 1)
    id_of_piece = np.concatenate([[0], id_of[found.of_piece]]).astype(np.int32)
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "count": 1,
        "height": classes.height,
        "width": classes.width,
        "crs": classes.crs,
        "transform": classes.transform,
        "compress": "deflate",
        "zlevel": 1,
        "bigtiff": "if_safer",
    }
    with (
        rasterio.open(ids_path, "w", dtype="int32", **profile) as ids,
        rasterio.open(kept_path, "w", dtype="uint8", **profile) as is_kept,
    ):
        for top, _, pieces in label_strips(classes):
            numbers = id_of_piece[pieces]
            rows = rows_of(classes, top, len(pieces))
            ids.write(numbers, 1, window=rows)
            is_kept.write((numbers > 0).astype(np.uint8), 1, window=rows)


def _metres_per_unit(outlines: NDArray[np.object_], crs: CRS) -> NDArray[np.float64]:
    """Metres that a unit of x and of y are worth at each outline, `(N, 2)`."""
    import shapely

    factor = crs.units_factor[1]
    if not crs.is_geographic:
        return np.full((len(outlines), 2), factor)
    bounds = shapely.bounds(outlines)
    latitude = (bounds[:, 1] + bounds[:, 3]) / 2 * factor
    return factor * _EARTH_M * np.column_stack([np.maximum(np.cos(latitude), 1e-6), np.ones(len(outlines))])


def _scale(outlines: NDArray[np.object_], factors: NDArray[np.float64]) -> NDArray[np.object_]:
    """Outlines whose x and y are multiplied by factors `(N, 2)` of their own."""
    import shapely

    coordinates, owners = shapely.get_coordinates(outlines, return_index=True)
    return shapely.set_coordinates(outlines.copy(), coordinates * factors[owners])
