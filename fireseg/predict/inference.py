"""Windows of stored reflectance into probabilities."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise, product
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fireseg.data.bands import to_reflectance
from fireseg.engine.device import get_autocast_dtype
from fireseg.errors import FiresegError, SettingError
from fireseg.geo.windows import Blend, SlidingWindows
from fireseg.model import FireSegmentationModel
from fireseg.model.network import get_probabilities

_CPU_BATCH, _DEVICE_BATCH = 1, 8


def get_batch_size(device: torch.device) -> int:
    """Windows at a time that keep a device busy: on a CPU more of them cost memory and win nothing."""
    return _CPU_BATCH if device.type == "cpu" else _DEVICE_BATCH


def prepare_model(model: FireSegmentationModel, device: torch.device) -> FireSegmentationModel:
    """The model on its device and in eval mode, its weights laid out as the device computes fastest."""
    model.to(device).eval()
    if device.type == "cpu":  # a third faster for small encoders, and windows come with the channels last anyway
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - missing in torch's stubs
    return model


@torch.inference_mode()
def predict_windows(
    model: FireSegmentationModel, windows: NDArray[np.uint16], *, device: torch.device, tta: bool = False
) -> NDArray[np.float32]:
    """Probabilities of a batch of windows.

    Args:
        model: As `prepare_model` gives it.
        windows: Reflectance x 10000, `(B, H, W, C)`.
        device: Where the model is.
        tta: Average over the eight turns and flips: eight times the work.

    Returns:
        Softmax, `(B, K, H, W)` in [0, 1], summing to 1 over K.

    Raises:
        SettingError: If the batch does not fit into memory.
        FiresegError: If the model gives no numbers.
    """
    try:
        image = torch.from_numpy(to_reflectance(windows)).permute(0, 3, 1, 2).to(device)
        probabilities = _average_views(model, image) if tta else _infer(model, image)
    except torch.OutOfMemoryError as error:
        raise SettingError(
            f"--batch-size: {len(windows)} windows of {windows.shape[1]} x {windows.shape[2]} do not fit in the memory "
            f"of {device}; try half, or --device cpu"
        ) from error
    # One look at the sum: whatever is not a number comes through, and would be neither burned nor not.
    if not torch.isfinite(probabilities.sum()):
        raise FiresegError("the model's probabilities are not finite: its training diverged; take another checkpoint")
    return probabilities.cpu().numpy()


def _average_views(model: FireSegmentationModel, image: Tensor) -> Tensor:
    total = sum(_turn_back(_infer(model, _turn(image, *view)), *view) for view in _VIEWS)
    assert isinstance(total, Tensor)
    return total / len(_VIEWS)


_VIEWS = [(quarters, is_flipped) for quarters in range(4) for is_flipped in (False, True)]


def _infer(model: FireSegmentationModel, image: Tensor) -> Tensor:
    dtype = get_autocast_dtype(image.device, "auto")
    with torch.autocast(image.device.type, dtype=dtype, enabled=dtype is not None):
        return get_probabilities(model(image))


def _turn(image: Tensor, quarters: int, is_flipped: bool) -> Tensor:
    turned = image.rot90(quarters, (2, 3))
    turned = turned.flip(3) if is_flipped else turned
    return turned.contiguous(memory_format=torch.channels_last)


def _turn_back(image: Tensor, quarters: int, is_flipped: bool) -> Tensor:
    return (image.flip(3) if is_flipped else image).rot90(-quarters, (2, 3))


_PIECE_ROWS, _PIECE_COLS = 64, 1024
"""What a thread reads at a time, about: whole blocks, of which the widest in use have 1024 columns."""


class RasterSource(Protocol):
    """Reflectance by the window: a raster on disk, or an array."""

    @property
    def height(self) -> int:
        """Rows."""
        ...

    @property
    def width(self) -> int:
        """Columns."""
        ...

    @property
    def bands(self) -> tuple[str, ...]:
        """Bands of the channels, in order."""
        ...

    @property
    def block_rows(self) -> int:
        """Rows that are stored together, so that one of them costs as much as all."""
        ...

    def read(self, top: int, left: int, height: int, width: int) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
        """Reflectance x 10000 `(h, w, C)`, and where it is unknown `(h, w)`. Called by several threads at once."""
        ...


class RowBlock(NamedTuple):
    """Input of one row of windows.

    Attributes:
        image: `(size_rows, right end of the last window, C)` uint16; what is beyond the raster is mirrored.
        unknown: `(rows within the raster, W)`.
    """

    image: NDArray[np.uint16]
    unknown: NDArray[np.bool_]


def read_row_blocks(source: RasterSource, layout: SlidingWindows, *, readers: int = 1) -> Generator[RowBlock]:
    """The strips of a raster, top to bottom; every row of it is read once.

    Two strips are in memory: the one that was handed out, and the next one, which threads read meanwhile.
    So a strip holds until the next one is asked for.

    Args:
        source: The raster.
        layout: Of the windows.
        readers: Threads that read.
    """
    shape = layout.size_rows, layout.cols[-1] + layout.size_cols, len(source.bands)
    beds = [(np.empty(shape, np.uint16), np.empty((shape[0], source.width), np.bool_)) for _ in layout.rows[:2]]
    strips = [_Filling(source, layout, row, *beds[row % 2]) for row in range(len(layout.rows))]
    pool = ThreadPoolExecutor(readers, thread_name_prefix="reader")
    try:
        jobs = strips[0].begin(pool, None)
        for strip, following in zip(strips, [*strips[1:], None], strict=True):
            done = strip.finish(jobs)
            jobs = following.begin(pool, strip) if following else []
            yield done
    finally:  # whoever stops half-way does not wait for what nobody will look at
        pool.shutdown(cancel_futures=True)


class _Filling:
    """One strip while it is read into its bed."""

    def __init__(
        self,
        source: RasterSource,
        layout: SlidingWindows,
        row: int,
        image: NDArray[np.uint16],
        unknown: NDArray[np.bool_],
    ) -> None:
        self.source = source
        self.top = layout.rows[row]
        self.bottom = min(self.top + layout.size_rows, source.height)
        self.image, self.unknown = image, unknown

    def begin(self, pool: ThreadPoolExecutor, above: _Filling | None) -> list[Future[None]]:
        """Takes over the rows that the strip above has, too, and starts reading the others."""
        first = above.bottom if above else self.top
        if above is not None:
            kept = slice(self.top - above.top, above.bottom - above.top)
            self.image[: first - self.top] = above.image[kept]
            self.unknown[: first - self.top] = above.unknown[kept]
        if first == self.bottom:
            return []
        block_rows, width = self.source.block_rows, self.source.width
        rows = pairwise(_cut(first, self.bottom, block_rows * max(1, _PIECE_ROWS // block_rows)))
        # Blocks of a few rows are as wide as the raster: cut, each would be unpacked once a piece.
        cols = list(pairwise(_cut(0, width, _PIECE_COLS if block_rows > _PIECE_ROWS else width)))
        return [pool.submit(self._read, *piece) for piece in product(rows, cols)]

    def _read(self, rows: tuple[int, int], cols: tuple[int, int]) -> None:
        place = slice(rows[0] - self.top, rows[1] - self.top), slice(*cols)
        image, unknown = self.source.read(rows[0], cols[0], rows[1] - rows[0], cols[1] - cols[0])
        self.image[place], self.unknown[place] = image, unknown

    def finish(self, jobs: list[Future[None]]) -> RowBlock:
        """Waits for the readers, and mirrors what is beyond the raster."""
        for job in jobs:
            job.result()
        height, width = self.bottom - self.top, self.source.width
        self.image[:height, width:] = self.image[:height, _mirror(width, self.image.shape[1])]
        self.image[height:] = self.image[_mirror(height, self.image.shape[0])]
        return RowBlock(self.image, self.unknown[:height])


def _cut(start: int, end: int, step: int) -> list[int]:
    """Edges of pieces from start to end, at the multiples of a step."""
    return [start, *range(start - start % step + step, end, step), end]


def _mirror(length: int, wanted: int) -> NDArray[np.intp]:
    """Which rows stand in for those beyond the last: back and forth, as often as it takes."""
    return np.pad(np.arange(length), (0, wanted - length), mode="reflect")[length:]


class Rows(NamedTuple):
    """Rows whose probabilities are final.

    Attributes:
        top: The first of them.
        probabilities: `(K, n, W)` float32.
        unknown: `(n, W)`; holds until the next rows are asked for.
        image: Reflectance x 10000, `(n, W, C)` uint16; holds until the next rows are asked for.
    """

    top: int
    probabilities: NDArray[np.float32]
    unknown: NDArray[np.bool_]
    image: NDArray[np.uint16]


def predict_rows(
    model: FireSegmentationModel,
    source: RasterSource,
    layout: SlidingWindows,
    *,
    num_classes: int,
    device: torch.device,
    batch_size: int | None = None,
    readers: int = 1,
    tta: bool = False,
    advance: Callable[[int], object] = lambda num_windows: None,
    settle: Callable[[], object] = lambda: None,
) -> Generator[Rows]:
    """Every row of a raster once, with blended probabilities. Memory grows with the width alone.

    Args:
        model: As `infer.make_ready` gives it.
        source: The raster.
        layout: Of its windows.
        num_classes: Of the model.
        device: Where the model is.
        batch_size: Windows at a time; what suits the device if not given.
        readers: Threads that read.
        tta: Average over the eight turns and flips.
        advance: Told how many windows are done since it was last told.
        settle: Called before rows are made final. It may wait until nobody holds those before, as large as a strip.
    """
    blend = Blend(layout, num_classes)
    size = batch_size or get_batch_size(device)
    for row, strip in enumerate(read_row_blocks(source, layout, readers=readers)):
        for first in range(0, len(layout.cols), size):
            lefts = layout.cols[first : first + size]
            windows = np.stack([strip.image[:, left : left + layout.size_cols] for left in lefts])
            for col, values in enumerate(predict_windows(model, windows, device=device, tta=tta), first):
                blend.add(row, col, values)
            advance(len(lefts))
        settle()
        top, probabilities = blend.finish_row(row)
        inside = slice(top - layout.rows[row], top - layout.rows[row] + probabilities.shape[1])
        yield Rows(top, probabilities, strip.unknown[inside], strip.image[inside, : source.width])
        del probabilities
