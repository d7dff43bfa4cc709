"""Batches and tasks to draw, and pictures to read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.image import imread

from fireseg.batch import Batch
from fireseg.task import Task, get_class_names

SEVEN = ("B02", "B03", "B04", "B08", "B8A", "B11", "B12")
DEL = Task(name="del", num_classes=2, class_names=get_class_names(2))
GRA = Task(name="gra", num_classes=5, class_names=get_class_names(5))


def make_batch(count: int, size: int = 32, channels: int = 7, num_classes: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(count, channels, size, size, generator=generator) * 0.4
    mask = torch.randint(0, num_classes, (count, size, size), generator=generator).to(torch.uint8)
    mask[:, :4] = 255
    return Batch(image, mask, tuple(f"EMSR382_AOI01_01_r{number * size}_c0" for number in range(count)))


def read_png(path: Path) -> np.ndarray:
    assert path.read_bytes().startswith(b"\x89PNG")
    return imread(path)


def rgb(colour: str) -> list[int]:
    return list(bytes.fromhex(colour[1:]))
