"""Connected components of burned pixels and their statistics, computed block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from fireseg.geo.grid import PixelAreas
from fireseg.geo.raster import BLOCK_PX
from fireseg.geo.windows import MAX_COLS, Window, split_window
from fireseg.task import IGNORE_INDEX


@dataclass(frozen=True, kw_only=True)
class Components:
    """Components of burned pixels that share an edge, in the order of their first pixel.

    A piece is the part of a component in one block.

    Attributes:
        component_of_piece: Component number of each piece, `(pieces,)`; pieces are numbered across all blocks.
        class_areas_m2: Area by burned class, `(N, classes - 1)`.
        mean_probability: Mean fire probability of the pixels, `(N,)`; NaN if it is unknown in all of them.
    """

    component_of_piece: NDArray[np.intp]
    class_areas_m2: NDArray[np.float64]
    mean_probability: NDArray[np.float64]

    @property
    def areas_m2(self) -> NDArray[np.float64]:
        """Area of all burned classes together, `(N,)`."""
        return self.class_areas_m2.sum(axis=1)


def find_components(classes: DatasetReader, fire: DatasetReader, areas: PixelAreas, *, num_classes: int) -> Components:
    """Finds the connected components of the burned pixels in a map.

    Each block is labelled on its own, then pieces that touch across blocks are joined.

    Args:
        classes: Class raster of the map.
        fire: Probability raster of the map, on the same grid.
        areas: Pixel areas of the grid.
        num_classes: Number of classes, unburned included.
    """
    sums, touching, last_row, last_col = [], [], np.zeros(classes.width, np.int32), np.zeros(0, np.int32)
    for block, values, pieces in label_blocks(classes):
        probability = _read_probability(fire, block)
        block_areas = areas.of_rows(block.top, block.height, left=block.left, width=block.width)
        sums.append(_sum_pieces(values, probability, block_areas, pieces, num_classes))
        cols = slice(block.left, block.left + block.width)
        touching.append(_touching_pieces(last_row[cols], pieces[0]))
        if block.left:
            touching.append(_touching_pieces(last_col, pieces[:, 0]))
        last_row[cols], last_col = pieces[-1], pieces[:, -1].copy()
    component_of_piece = _join_pieces(np.concatenate(touching), sum(map(len, sums)))
    totals = np.zeros((int(component_of_piece.max(initial=-1)) + 1, num_classes + 1))
    np.add.at(totals, component_of_piece, np.concatenate(sums))
    with np.errstate(invalid="ignore"):
        mean_probability = totals[:, -2] / totals[:, -1]
    return Components(
        component_of_piece=component_of_piece, class_areas_m2=totals[:, :-2], mean_probability=mean_probability
    )


def label_blocks(classes: DatasetReader) -> Iterator[tuple[Window, NDArray[np.uint8], NDArray[np.int32]]]:
    """Labels the burned pixels of a map block by block; all but a very wide map has blocks of its full width.

    Args:
        classes: Class raster of the map.

    Yields:
        The window of the block; its classes `(rows, columns)`; and the piece of each pixel `(rows, columns)`, numbered
        from 1 across all blocks, 0 where unburned or unknown.
    """
    import cv2  # imported in a tenth of the time of SciPy, and twice as fast

    cv2.setNumThreads(1)  # OpenCV's thread pool does not survive a fork
    num_pieces = 0
    for block in split_window(Window(0, 0, classes.height, classes.width), BLOCK_PX, MAX_COLS):
        values = classes.read(1, window=block.to_rasterio())
        is_burned = (values > 0) & (values != IGNORE_INDEX)
        num_here, pieces = cv2.connectedComponents(is_burned.view(np.uint8), connectivity=4)
        num_here -= 1  # the label 0 of the other pixels
        pieces[is_burned] += num_pieces
        num_pieces += num_here
        yield block, values, pieces


def _read_probability(fire: DatasetReader, block: Window) -> NDArray[np.float32]:
    values = fire.read(1, window=block.to_rasterio())
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
    """Sums the area by burned class, the known probabilities, and their number, for each piece of a block."""
    is_burned = pieces > 0
    piece, burned_class = pieces[is_burned], classes[is_burned].astype(np.intp) - 1
    if not len(piece):
        return np.zeros((0, num_classes + 1))
    piece = piece - piece.min()
    num_pieces = int(piece.max()) + 1
    area = np.broadcast_to(areas_m2, pieces.shape)[is_burned]
    by_class = np.bincount(piece * (num_classes - 1) + burned_class, area, num_pieces * (num_classes - 1))
    probability = fire[is_burned]
    is_known = np.isfinite(probability)
    total = np.bincount(piece[is_known], probability[is_known], num_pieces)
    num_known = np.bincount(piece[is_known], minlength=num_pieces)
    return np.column_stack([by_class.reshape(num_pieces, num_classes - 1), total, num_known]).astype(np.float64)


def _touching_pieces(above: NDArray[np.int32], below: NDArray[np.int32]) -> NDArray[np.int32]:
    """Finds the pairs `(P, 2)` of pieces that share an edge between two blocks."""
    pairs = np.stack([above, below], axis=1)
    return np.unique(pairs[(pairs > 0).all(axis=1)], axis=0)


def _join_pieces(touching: NDArray[np.int32], num_pieces: int) -> NDArray[np.intp]:
    """Returns the component of each piece; pieces are numbered from 1 in the pairs, components from 0."""
    if not len(touching):
        return np.arange(num_pieces)
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    one, other = touching.T - 1
    graph = coo_array((np.ones(len(touching), np.bool_), (one, other)), shape=(num_pieces, num_pieces))
    return connected_components(graph, directed=False)[1].astype(np.intp)
