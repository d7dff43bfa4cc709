"""Reading, model and blending joined: a raster in, rows of probabilities out, top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fireseg.mapping.infer import get_batch_size, predict_windows
from fireseg.mapping.strips import Source, read_strips
from fireseg.model import FireSegmentationModel
from fireseg.scene.blend import Blend
from fireseg.scene.windows import Layout


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
    source: Source,
    layout: Layout,
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
    for row, strip in enumerate(read_strips(source, layout, readers=readers)):
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
