"""Sliding-window inference: reads a raster row by row of windows, runs the model, and blends the probabilities."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise, product
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fireseg.data.bands import to_reflectance
from fireseg.data.scene_normalisation import SceneScaling, compute_scaling, find_known, get_sampling_step
from fireseg.errors import FiresegError
from fireseg.geo.windows import MAX_COLS, Blend, ColumnBlock, SlidingWindows
from fireseg.runs import TrainedModel
from fireseg.runtime.engines import InferenceEngine, TorchEngine

_CPU_BATCH, _GPU_BATCH = 1, 8

_READ_ROWS, _READ_COLS = 64, 1024
"""Approximate size of one read: whole blocks, of which the widest in common use have 1024 columns."""

_MAX_SAMPLED_PX, _SAMPLED_SIDE, _SAMPLED_PER_AXIS = 4096**2, 512, 8
"""Pixels up to which all of a scene is read for its statistics; of a larger one squares on a grid are."""

_VIEWS = [(quarter_turns, is_flipped) for quarter_turns in range(4) for is_flipped in (False, True)]


class RasterSource(Protocol):
    """Reflectance that is read by window: a raster on disk or an array."""

    @property
    def height(self) -> int:
        """Number of rows."""
        ...

    @property
    def width(self) -> int:
        """Number of columns."""
        ...

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands of the channels, in order."""
        ...

    @property
    def block_rows(self) -> int:
        """Rows that are stored together; reading one of them costs as much as reading all."""
        ...

    def read(self, top: int, left: int, height: int, width: int) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
        """Returns reflectance x 10000, `(h, w, C)`, and the unknown pixels, `(h, w)`; called from several threads."""
        ...


@dataclass(frozen=True, kw_only=True)
class ArrayRaster:
    """An image in memory as a `RasterSource`.

    Attributes:
        bands: Bands of the channels.
        image: Reflectance x 10000, `(H, W, C)` uint16, 0 where unknown.
        unknown: True where there is no value in any band, `(H, W)` bool.
    """

    bands: tuple[str, ...]
    image: NDArray[np.uint16]
    unknown: NDArray[np.bool_]

    block_rows = 1024

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.image.shape[0]

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.image.shape[1]

    def read(self, top: int, left: int, height: int, width: int) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
        """Returns reflectance x 10000, `(h, w, C)`, and the unknown pixels, `(h, w)`."""
        region = slice(top, top + height), slice(left, left + width)
        return self.image[region], self.unknown[region]


class PredictedRows(NamedTuple):
    """Rows of a raster, or of some of its columns, with their final probabilities.

    Attributes:
        top: First row.
        left: First column.
        probabilities: Class probabilities, `(K, n, w)` float32; those of unknown pixels have no meaning.
        unknown: Unknown pixels, `(n, w)`; valid until the next rows are requested.
        image: Reflectance x 10000, `(n, w, C)` uint16; valid until the next rows are requested.
    """

    top: int
    left: int
    probabilities: NDArray[np.float32]
    unknown: NDArray[np.bool_]
    image: NDArray[np.uint16]


def predict_rows(
    trained: TrainedModel,
    source: RasterSource,
    layout: SlidingWindows,
    *,
    engine: InferenceEngine | None = None,
    batch_size: int | None = None,
    readers: int = 1,
    tta: bool = False,
    on_progress: Callable[[int], object] = lambda num_windows: None,
    wait_for_consumer: Callable[[], object] = lambda: None,
    max_cols: int = MAX_COLS,
) -> Generator[PredictedRows]:
    """Yields every pixel of a raster once, with blended probabilities; memory does not grow with the raster.

    The rows of a raster that is wider than `max_cols` are yielded in blocks of columns, one block after the other.
    Windows without a known pixel are not predicted.

    Args:
        trained: Model.
        source: Raster.
        layout: Windows of the raster.
        engine: Engine that computes the model; torch if None.
        batch_size: Windows per batch; `get_batch_size` if None.
        readers: Threads that read the raster.
        tta: Average over the 8 flips and 90° rotations.
        on_progress: Called with the number of windows done since the last call.
        wait_for_consumer: Called before memory for the next rows is allocated. It may wait until the previous rows,
            which take as much, are released.
        max_cols: Columns that are predicted at a time.
    """
    engine = engine or TorchEngine(trained)
    size = batch_size or get_batch_size(trained.device)
    # Once for the whole raster, so that all windows agree.
    scaling = measure_scene(source) if trained.is_scene_relative else None
    for block in layout.split_columns(max_cols):
        wait_for_consumer()
        yield from _predict_block(
            trained,
            source,
            block,
            scaling,
            engine=engine,
            batch_size=size,
            readers=readers,
            tta=tta,
            on_progress=on_progress,
            wait_for_consumer=wait_for_consumer,
        )


def _predict_block(
    trained: TrainedModel,
    source: RasterSource,
    block: ColumnBlock,
    scaling: SceneScaling | None,
    *,
    engine: InferenceEngine,
    batch_size: int,
    readers: int,
    tta: bool,
    on_progress: Callable[[int], object],
    wait_for_consumer: Callable[[], object],
) -> Generator[PredictedRows]:
    layout, final = block.windows, block.final
    blend = Blend(layout, trained.task.num_classes)
    # Where all pixels are unknown, any probabilities do.
    unburned = np.zeros((trained.task.num_classes, layout.size_rows, layout.size_cols), np.float32)
    unburned[0] = 1.0
    for row, window_row in enumerate(read_window_rows(source, layout, left=block.left, readers=readers)):
        known = []
        for col, left in enumerate(layout.cols):
            if window_row.unknown[:, left : left + layout.size_cols].all():
                blend.add(row, col, unburned)
                on_progress(1)
            else:
                known.append(col)
        for first in range(0, len(known), batch_size):
            cols = known[first : first + batch_size]
            lefts = [layout.cols[col] for col in cols]
            windows = np.stack([window_row.image[:, left : left + layout.size_cols] for left in lefts])
            for col, probabilities in zip(cols, predict_windows(engine, windows, scaling, tta=tta), strict=True):
                blend.add(row, col, probabilities)
            on_progress(len(cols))
        wait_for_consumer()
        top, probabilities = blend.finish_row(row)
        rows = slice(top - layout.rows[row], top - layout.rows[row] + probabilities.shape[1])
        yield PredictedRows(
            top,
            block.left + final.start,
            probabilities[:, :, final],
            window_row.unknown[rows, final],
            window_row.image[rows, final],
        )
        del probabilities


def measure_scene(source: RasterSource) -> SceneScaling:
    """Computes what makes the reflectance of a raster relative to it, in one pass over a sample of its pixels.

    Up to 4096 x 4096 pixels these are the pixels that training samples of the same tile.

    Args:
        source: Raster.
    """
    step = get_sampling_step(source.height, source.width)
    if source.height * source.width <= _MAX_SAMPLED_PX:
        rows, cols = pairwise(_split(0, source.height, max(source.block_rows, _READ_ROWS))), [(0, source.width)]
    else:
        rows, cols = _select_spans(source.height, source.block_rows), _select_spans(source.width, source.block_rows)
    parts = []
    for (top, bottom), (left, right) in product(list(rows), cols):
        image, _ = source.read(top, left, bottom - top, right - left)
        parts.append(image[-top % step :: step, -left % step :: step].reshape(-1, image.shape[2]))
    pixels = to_reflectance(np.concatenate(parts))
    return compute_scaling(pixels[find_known(pixels)], source.bands)


def _select_spans(length: int, block: int) -> list[tuple[int, int]]:
    """Returns evenly spread parts of an axis that start at the blocks of the raster."""
    last = max(0, length - _SAMPLED_SIDE)
    starts = {round(last * number / (_SAMPLED_PER_AXIS - 1)) // block * block for number in range(_SAMPLED_PER_AXIS)}
    return [(start, min(start + _SAMPLED_SIDE, length)) for start in sorted(starts)]


def get_batch_size(device: str) -> int:
    """Returns the number of windows per batch: on a CPU more than one costs memory and saves no time."""
    return _CPU_BATCH if device == "cpu" else _GPU_BATCH


def predict_windows(
    engine: InferenceEngine, windows: NDArray[np.uint16], scaling: SceneScaling | None = None, *, tta: bool = False
) -> NDArray[np.float32]:
    """Predicts the class probabilities of a batch of windows.

    Args:
        engine: Engine that computes the model.
        windows: Reflectance x 10000, `(B, H, W, C)`.
        scaling: What makes it relative to the scene; None for a model of reflectance.
        tta: Average over the 8 flips and 90° rotations: eight times the work.

    Returns:
        Softmax, `(B, K, H, W)` in [0, 1], summing to 1 over K.

    Raises:
        SettingError: If the batch does not fit in memory.
        FiresegError: If the probabilities are not finite.
    """
    reflectance = to_reflectance(windows)
    image = (reflectance if scaling is None else scaling.apply(reflectance)).transpose(0, 3, 1, 2)
    if tta:
        views = (_undo_view(engine.predict_probabilities(_apply_view(image, *view)), *view) for view in _VIEWS)
        probabilities = functools.reduce(np.add, views) / np.float32(len(_VIEWS))
    else:
        probabilities = engine.predict_probabilities(image)
    # One check of the sum finds any NaN, which would be neither burned nor unburned in the map.
    if not np.isfinite(probabilities.sum()):
        raise FiresegError("the probabilities of the model are not finite: training diverged; use another checkpoint")
    return probabilities


def _apply_view(image: NDArray[np.float32], quarter_turns: int, is_flipped: bool) -> NDArray[np.float32]:
    rotated = np.rot90(image, quarter_turns, (2, 3))
    return np.ascontiguousarray(rotated[..., ::-1] if is_flipped else rotated)


def _undo_view(image: NDArray[np.float32], quarter_turns: int, is_flipped: bool) -> NDArray[np.float32]:
    return np.rot90(image[..., ::-1] if is_flipped else image, -quarter_turns, (2, 3))


class WindowRow(NamedTuple):
    """Input of one row of windows.

    Attributes:
        image: Reflectance x 10000, `(size_rows, right edge of the last window, C)` uint16, mirrored beyond the layout.
        unknown: Unknown pixels, `(rows within the raster, width of the layout)`.
    """

    image: NDArray[np.uint16]
    unknown: NDArray[np.bool_]


def read_window_rows(
    source: RasterSource, layout: SlidingWindows, *, left: int = 0, readers: int = 1
) -> Generator[WindowRow]:
    """Yields the input of every row of windows, top to bottom; each raster row is read once.

    Two of them are in memory: the one that was yielded, and the next one, which threads read meanwhile. A yielded
    one is therefore valid until the next one is requested.

    Args:
        source: Raster.
        layout: Windows of the raster, or of some of its columns.
        left: Raster column at which the layout starts.
        readers: Threads that read.
    """
    shape = layout.size_rows, layout.cols[-1] + layout.size_cols, len(source.bands)
    buffers = [(np.empty(shape, np.uint16), np.empty((shape[0], layout.width), np.bool_)) for _ in layout.rows[:2]]
    rows = [_WindowRowReader(source, layout, left, row, *buffers[row % 2]) for row in range(len(layout.rows))]
    pool = ThreadPoolExecutor(readers, thread_name_prefix="reader")
    try:
        reads = rows[0].start(pool, None)
        for row, following in zip(rows, [*rows[1:], None], strict=True):
            window_row = row.finish(reads)
            reads = following.start(pool, row) if following else []
            yield window_row
    finally:  # a consumer that stops early does not wait for reads that are no longer needed
        pool.shutdown(cancel_futures=True)


class _WindowRowReader:
    """Reads one row of windows into its buffers."""

    def __init__(
        self,
        source: RasterSource,
        layout: SlidingWindows,
        left: int,
        row: int,
        image: NDArray[np.uint16],
        unknown: NDArray[np.bool_],
    ) -> None:
        self.source = source
        self.left, self.width = left, layout.width
        self.top = layout.rows[row]
        self.bottom = min(self.top + layout.size_rows, source.height)
        self.image, self.unknown = image, unknown

    def start(self, pool: ThreadPoolExecutor, above: _WindowRowReader | None) -> list[Future[None]]:
        """Copies the rows shared with the row of windows above and starts reading the others."""
        first = above.bottom if above else self.top
        if above is not None:
            shared = slice(self.top - above.top, above.bottom - above.top)
            self.image[: first - self.top] = above.image[shared]
            self.unknown[: first - self.top] = above.unknown[shared]
        if first == self.bottom:
            return []
        block_rows, left, right = self.source.block_rows, self.left, self.left + self.width
        rows = pairwise(_split(first, self.bottom, block_rows * max(1, _READ_ROWS // block_rows)))
        # Blocks of a few rows are as wide as the raster: each of several reads would decompress all of them.
        cols = list(pairwise(_split(left, right, _READ_COLS if block_rows > _READ_ROWS else self.source.width)))
        return [pool.submit(self._read, *part) for part in product(rows, cols)]

    def _read(self, rows: tuple[int, int], cols: tuple[int, int]) -> None:
        target = slice(rows[0] - self.top, rows[1] - self.top), slice(cols[0] - self.left, cols[1] - self.left)
        image, unknown = self.source.read(rows[0], cols[0], rows[1] - rows[0], cols[1] - cols[0])
        self.image[target], self.unknown[target] = image, unknown

    def finish(self, reads: list[Future[None]]) -> WindowRow:
        """Waits for the reads and mirrors the raster beyond its edges."""
        for read in reads:
            read.result()
        height, width = self.bottom - self.top, self.width
        self.image[:height, width:] = self.image[:height, _mirror(width, self.image.shape[1])]
        self.image[height:] = self.image[_mirror(height, self.image.shape[0])]
        return WindowRow(self.image, self.unknown[:height])


def _split(start: int, end: int, step: int) -> list[int]:
    """Edges from start to end at the multiples of a step."""
    return [start, *range(start - start % step + step, end, step), end]


def _mirror(length: int, padded: int) -> NDArray[np.intp]:
    """Indices of the rows that fill those from length to padded, reflected as often as needed."""
    return np.pad(np.arange(length), (0, padded - length), mode="reflect")[length:]
