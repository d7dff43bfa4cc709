"""Writes small tiles in CEMS layout, as a test's helper and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio import Affine

PIXEL = 1e-4
GRID = Affine(PIXEL, 0.0, -15.0, 0.0, -PIXEL, 28.0)


def make_reflectance(height: int = 40, width: int = 50, *, channels: int = 12, seed: int = 0) -> NDArray[np.float32]:
    """Reflectance `(C, H, W)` with dark and bright pixels in every band, in steps of 0.0001."""
    steps = np.random.default_rng(seed).integers(50, 4500, (channels, height, width))
    return (steps / 10_000).astype(np.float32)


def write_raster(
    path: Path,
    values: NDArray[Any],
    *,
    descriptions: tuple[str, ...] = (),
    tags: dict[str, str] | None = None,
    **profile: Any,
) -> Path:
    """Writes `(C, H, W)` or `(H, W)` as a GeoTIFF on a grid of 0.0001 degrees near the Canaries."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = values if values.ndim == 3 else values[None]
    layout = {"driver": "GTiff", "crs": "EPSG:4326", "transform": GRID, "dtype": bands.dtype} | profile
    with rasterio.open(path, "w", count=len(bands), height=bands.shape[1], width=bands.shape[2], **layout) as raster:
        raster.write(bands)
        for channel, description in enumerate(descriptions, 1):
            raster.set_band_description(channel, description)
        raster.update_tags(**(tags or {}))
    return path


def write_tile(
    folder: Path,
    name: str = "EMSR999_AOI01_01",
    *,
    image: NDArray[Any] | None = None,
    masks: tuple[str, ...] = ("DEL", "GRA", "CM"),
    **image_options: Any,
) -> Path:
    """Writes an image of the twelve bands and its masks, of which the left half is burned and graded 2.

    Returns:
        The image's path.
    """
    image = make_reflectance() if image is None else image
    path = write_raster(folder / f"{name}_S2L2A.tif", image, **image_options)
    for kind in masks:
        mask = np.zeros(image.shape[1:], np.uint8)
        mask[:, : image.shape[2] // 2] = {"DEL": 1, "GRA": 2, "CM": 0}[kind]
        write_raster(folder / f"{name}_{kind}.tif", mask)
    return path
