"""Writes small data sets in CEMS layout for tests."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rasterio import Affine

from tests.tiles.builders import PIXEL, make_reflectance, write_raster

KINDS = ("DEL", "GRA", "CM", "json")


def get_real_data() -> Path:
    """Returns the folder of the real fires, or skips the test without it."""
    root = os.environ.get("FIRESEG_REAL_DATA")
    if not root:
        pytest.skip("FIRESEG_REAL_DATA is not set")
    return Path(root)


def write_tile(
    root: Path,
    name: str = "EMSR100_AOI01_01",
    *,
    split: str = "train",
    height: int = 40,
    width: int = 56,
    west: float = 8.0,
    kinds: tuple[str, ...] = KINDS,
    cloud: NDArray[np.uint8] | None = None,
    seed: int = 0,
    **image_options: Any,
) -> Path:
    """Writes a tile with a burned disc in its centre and returns the folder of its files."""
    folder = root / split / name.split("_")[0] / name
    folder.mkdir(parents=True)
    grid = Affine(PIXEL, 0.0, west, 0.0, -PIXEL, 40.0)
    image = make_reflectance(height, width, seed=seed)
    rows, cols = np.mgrid[:height, :width]
    burned = np.hypot(rows - height // 2, cols - width // 2) < min(height, width) // 3
    grades = np.random.default_rng(seed).integers(1, 5, (height, width))
    masks = {
        "DEL": burned.astype(np.uint8),
        "GRA": np.where(burned, grades, 0).astype(np.uint8),
        "CM": np.zeros((height, width), np.uint8) if cloud is None else cloud,
    }
    write_raster(folder / f"{name}_S2L2A.tif", image, transform=grid, **image_options)
    for kind in kinds:
        if kind == "json":
            (folder / f"{name}_S2L2A.json").write_text(json.dumps({"acquisition_date": "2019-08-28T11:52:21Z"}))
        else:
            write_raster(folder / f"{name}_{kind}.tif", masks[kind], transform=grid)
    return folder


def write_set(root: Path, *, train: int = 3, val: int = 1, test: int = 1, **options: Any) -> Path:
    """Writes tiles that do not overlap, of different sizes and activations, and returns their folder."""
    number = 0
    for split, count in (("train", train), ("val", val), ("test", test)):
        for _ in range(count):
            shape: dict[str, Any] = {"height": 40 + 7 * (number % 3), "width": 56 - 9 * (number % 2), **options}
            write_tile(root, f"EMSR{100 + number}_AOI01_01", split=split, west=8.0 + number, seed=number, **shape)
            number += 1
    return root


def read_tree(folder: Path) -> dict[str, str]:
    """Returns a digest of every file below a folder, except the lock."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
