"""Which burned pixels hang together, and what they sum to, strip by strip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from fireseg.errors import FiresegError
from fireseg.task import IGNORE_INDEX

if TYPE_CHECKING:
    from shapely.geometry import MultiPolygon, Polygon


_MOST_NODES = 33
"""Along an axis. Between nodes an area follows a straight line; where a raster spans 60 degrees that is 0.02 % off."""

_ALIKE = 1e-6


class PixelAreas:
    """Geodesic areas of the pixels of a raster, in any CRS, north up or not.

    The outlines of a few pixels, spread evenly, are measured on the ellipsoid; between them areas are interpolated.

    Args:
        crs: CRS of the raster, or its text.
        transform: From (column, row) to coordinates in that CRS, or its six numbers.
        height: Rows of the raster.
        width: Columns of the raster.

    Raises:
        FiresegError: If nobody can read the CRS, or there is a pixel that lies nowhere on earth.

    References:
        Karney, Algorithms for geodesics, Journal of Geodesy 87 (2013).
    """

    def __init__(self, crs: CRS | str, transform: Affine | Sequence[float], height: int, width: int) -> None:
        try:
            crs, transform = CRS.from_user_input(crs), Affine(*transform[:6])
        except CRSError as error:
            raise FiresegError(f"reference system {crs}: PROJ does not know it; give it as EPSG:… or in WKT") from error
        self._width = width
        self._rows, self._cols = _spread(height), _spread(width)
        self._areas = _measure_pixels(crs, transform, self._rows, self._cols)
        if np.ptp(self._areas, axis=1).max() <= _ALIKE * self._areas.max():
            self._width, self._cols, self._areas = 1, self._cols[:1], self._areas[:, :1]

    def of_rows(self, top: int, num_rows: int) -> NDArray[np.float32]:
        """Areas of the pixels of some rows.

        Args:
            top: The first row.
            num_rows: How many.

        Returns:
            `(num_rows, width)`, or `(num_rows, 1)` where all pixels of a row are equal, as those of a raster in
            degrees are; in m².
        """
        rows = _interpolate(self._areas, self._rows, np.arange(top, top + num_rows))
        return _interpolate(rows.T.astype(np.float32), self._cols, np.arange(self._width)).T


def polygon_area_m2(geometry: Polygon | MultiPolygon) -> float:
    """Geodesic area of a polygon or of several, holes left out.

    Args:
        geometry: In longitude and latitude, degrees.

    Returns:
        The area on the WGS 84 ellipsoid in m², at least 0.
    """
    import shapely

    geod, total = _get_geod(), 0.0
    for polygon in shapely.get_parts(geometry):
        outside, *holes = (
            abs(geod.polygon_area_perimeter(*shapely.get_coordinates(ring).T)[0])
            for ring in (polygon.exterior, *polygon.interiors)
        )
        total += outside - sum(holes)
    return total


def _get_geod() -> Any:
    from pyproj import Geod

    return Geod(ellps="WGS84")


def _spread(length: int) -> NDArray[np.intp]:
    return np.unique(np.linspace(0, length - 1, _MOST_NODES).round().astype(np.intp))


def _measure_pixels(crs: CRS, transform: Affine, rows: NDArray[np.intp], cols: NDArray[np.intp]) -> NDArray[np.float64]:
    """Areas `(rows, cols)` in m² of the pixels at these rows and columns."""
    import pyproj
    from pyproj.exceptions import ProjError

    right = cols[None, :, None] + np.array([0, 1, 1, 0])
    down = rows[:, None, None] + np.array([0, 0, 1, 1])
    x = transform.a * right + transform.b * down + transform.c
    y = transform.d * right + transform.e * down + transform.f
    try:
        to_lonlat = pyproj.Transformer.from_crs(crs.to_wkt(), "EPSG:4326", always_xy=True)
        lon, lat = to_lonlat.transform(x, y)
    except ProjError as error:
        raise FiresegError(f"reference system {crs}: nothing leads from it to longitude and latitude") from error
    geod = _get_geod()
    areas = np.array(
        [
            [abs(geod.polygon_area_perimeter(*pixel)[0]) for pixel in zip(*row, strict=True)]
            for row in zip(lon, lat, strict=True)
        ]
    )
    if not (np.isfinite(areas).all() and areas.min() > 0):
        raise FiresegError(
            f"raster: some of its pixels lie nowhere on earth (transform {tuple(transform)[:6]}, {crs}); "
            "is its georeference right?"
        )
    return areas


def _interpolate(values: NDArray, nodes: NDArray[np.intp], places: NDArray[np.intp]) -> NDArray:
    """Values `(nodes, ...)` at nodes into values `(places, ...)` at places, along straight lines."""
    if len(nodes) == 1:
        return np.repeat(values, len(places), axis=0)
    before = np.clip(np.searchsorted(nodes, places, side="right") - 1, 0, len(nodes) - 2)
    share = ((places - nodes[before]) / (nodes[before + 1] - nodes[before])).astype(values.dtype)[:, None]
    return values[before] * (1 - share) + values[before + 1] * share


STRIP_ROWS = 512


@dataclass(frozen=True, kw_only=True)
class Components:
    """Burned pixels that share an edge, in the order of their first pixel. Pieces are what a strip holds of one.

    Args:
        of_piece: Number of the component that a piece belongs to, `(pieces,)`; pieces are counted over all strips.
        class_areas_m2: Area by burned class, `(N, classes - 1)`.
        mean_probability: Mean probability of fire over the pixels, `(N,)`; NaN where it is known of none.
    """

    of_piece: NDArray[np.intp]
    class_areas_m2: NDArray[np.float64]
    mean_probability: NDArray[np.float64]

    @property
    def areas_m2(self) -> NDArray[np.float64]:
        """Area of all burned classes together, `(N,)`."""
        return self.class_areas_m2.sum(axis=1)


def find_components(classes: DatasetReader, fire: DatasetReader, areas: PixelAreas, *, num_classes: int) -> Components:
    """Labels the burned pixels of each strip and joins what touches across strips.

    Args:
        classes: The classes of a map.
        fire: Its probabilities, on the same grid.
        areas: Areas of its pixels.
        num_classes: How many classes there are, unburned included.
    """
    sums, seams, last = [], [], np.zeros(classes.width, np.int32)
    for top, values, pieces in label_strips(classes):
        probability = _read_fire(fire, rows_of(fire, top, len(values)))
        sums.append(_sum_pieces(values, probability, areas.of_rows(top, len(values)), pieces, num_classes))
        seams.append(_touching(last, pieces[0]))
        last = pieces[-1].copy()
    of_piece = _join(np.concatenate(seams), sum(map(len, sums)))
    num_components = int(of_piece.max(initial=-1)) + 1
    totals = np.zeros((num_components, num_classes + 1))
    np.add.at(totals, of_piece, np.concatenate(sums))
    with np.errstate(invalid="ignore"):
        mean_probability = totals[:, -2] / totals[:, -1]
    return Components(of_piece=of_piece, class_areas_m2=totals[:, :-2], mean_probability=mean_probability)


def label_strips(classes: DatasetReader) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.int32]]]:
    """Yields the first row, the classes and the pieces of burned ground of one strip after the other.

    Args:
        classes: The classes of a map.

    Yields:
        First row; classes `(rows, width)`; piece of each pixel `(rows, width)`, counted from 1 over all strips, 0 where
        nothing burned.
    """
    from scipy import ndimage

    num_pieces = 0
    for top in range(0, classes.height, STRIP_ROWS):
        values = classes.read(1, window=rows_of(classes, top, min(STRIP_ROWS, classes.height - top)))
        pieces = np.zeros(values.shape, np.int32)
        ndimage.label((values > 0) & (values != IGNORE_INDEX), output=pieces)
        num_here = int(pieces.max())
        pieces[pieces > 0] += num_pieces
        num_pieces += num_here
        yield top, values, pieces


def rows_of(raster: DatasetReader, top: int, num_rows: int) -> Window:
    """The window of some rows of a raster, from rim to rim."""
    return Window(0, top, raster.width, num_rows)  # pyright: ignore[reportCallIssue]


def _read_fire(fire: DatasetReader, window: Window) -> NDArray[np.float32]:
    values = fire.read(1, window=window)
    probability = values * np.float32(fire.scales[0])
    if fire.nodata is not None and not np.isnan(fire.nodata):
        probability[values == fire.nodata] = np.nan
    return probability


def _sum_pieces(
    classes: NDArray[np.uint8],
    fire: NDArray[np.float32],
    areas_m2: NDArray[np.float32],
    pieces: NDArray[np.int32],
    num_classes: int,
) -> NDArray[np.float64]:
    """Of each piece the area by burned class, the sum of its probabilities, and of how many pixels they are known."""
    is_burned = pieces > 0
    where, kind = pieces[is_burned], classes[is_burned].astype(np.intp) - 1
    if not len(where):
        return np.zeros((0, num_classes + 1))
    where = where - where.min()
    num_pieces = int(where.max()) + 1
    area = np.broadcast_to(areas_m2, pieces.shape)[is_burned]
    by_class = np.bincount(where * (num_classes - 1) + kind, area, num_pieces * (num_classes - 1))
    probability = fire[is_burned]
    is_known = np.isfinite(probability)
    summed = np.bincount(where[is_known], probability[is_known], num_pieces)
    known = np.bincount(where[is_known], minlength=num_pieces)
    columns = [by_class.reshape(num_pieces, num_classes - 1), summed, known]
    return np.column_stack(columns).astype(np.float64)


def _touching(above: NDArray[np.int32], below: NDArray[np.int32]) -> NDArray[np.int32]:
    """Pairs `(P, 2)` of pieces that share an edge between two strips."""
    pairs = np.stack([above, below], axis=1)
    return np.unique(pairs[(pairs > 0).all(axis=1)], axis=0)


def _join(seams: NDArray[np.int32], num_pieces: int) -> NDArray[np.intp]:
    """The component of each piece: pieces count from 1 in the seams, components from 0."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not num_pieces:
        return np.zeros(0, np.intp)
    one, other = seams.T - 1
    graph = coo_array((np.ones(len(seams), np.bool_), (one, other)), shape=(num_pieces, num_pieces))
    return connected_components(graph, directed=False)[1].astype(np.intp)
