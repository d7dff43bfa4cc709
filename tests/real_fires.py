"""Cuts the real Californian fires into patches, as a test's helper and no more."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import rasterio

BANDS = ("B02", "B03", "B04", "B08", "B12")


def cut_fires(california: Path, root: Path, *, size: int = 128, train_stride: int = 56) -> Path:
    """Writes square patches under `root/{train,val}`.

    Training windows overlap; in validation what an edge window repeats is unlabelled, so that every
    pixel counts once.

    Args:
        california: The folder with `train` and `val`, a folder a fire in each.
        root: Where the patches go.
        size: Pixels along a side.
        train_stride: Pixels from one training window to the next.
    """
    for split, stride in (("train", train_stride), ("val", size)):
        folder = root / split
        folder.mkdir(parents=True)
        for path in sorted((california / split).glob("*/*_S2L2A.tif")):
            with rasterio.open(path) as image, rasterio.open(str(path).replace("_S2L2A", "_DEL")) as mask:
                order = [image.descriptions.index(band) + 1 for band in BANDS]
                values = np.nan_to_num(image.read(order)).clip(0, 1).transpose(1, 2, 0).astype(np.float32)
                labels = mask.read(1).astype(np.uint8)
            seen = np.zeros(labels.shape, bool)
            for row, col in itertools.product(*(starts(side, size, stride) for side in labels.shape)):
                window = np.s_[row : row + size, col : col + size]
                part = np.where(seen[window] & (split == "val"), 255, labels[window]).astype(np.uint8)
                seen[window] = True
                name = f"{path.name.removesuffix('_S2L2A.tif')}_r{row}_c{col}"
                np.save(folder / f"{name}_image.npy", values[window])
                np.save(folder / f"{name}_mask.npy", part)
    return root


def starts(length: int, size: int, stride: int) -> list[int]:
    """Where windows begin along a side; the last is shifted inwards."""
    return sorted({*range(0, length - size + 1, stride), length - size})
