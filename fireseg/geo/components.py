"""Which burned pixels hang together, and what they sum to, strip by strip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.windows import Window

from fireseg.geo.grid import PixelAreas
from fireseg.task import IGNORE_INDEX

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
