"""A scene cut into patches on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from fireseg.data.bands import BAND_NAMES, CEMS_BANDS
from fireseg.data.sample.scene import Scene, get_footprint, get_tile_name, make_scene
from fireseg.data.sample.sky import CLOUD, LIGHT_CLOUD
from fireseg.disk import replacing
from fireseg.task import IGNORE_INDEX

MAX_CLOUD = 0.5
"""Patches with more cloud than this are left out."""

_CHANNELS = [CEMS_BANDS.index(band) for band in BAND_NAMES]


@dataclass(frozen=True, kw_only=True)
class SceneJob:
    """One scene to make, and where its patches go."""

    folder: Path
    seed: int
    number: int
    patch_px: int
    patches_across: int
    task_name: Literal["del", "gra"]


class PatchRow(TypedDict):
    """A line of metadata.csv: where the patch lies in its scene and on the map, and what is in it."""

    patch_id: str
    source_image: str
    row: int
    col: int
    x_min: float
    y_min: float
    x_max: float
    y_max: float
    cloud_cover: float
    burn_fraction: float


def write_patches(job: SceneJob) -> list[PatchRow]:
    """Makes a scene and writes its patches side by side, none overlapping another.

    Returns:
        What was written, row by row and column by column; patches under cloud are left out.
    """
    side = job.patch_px * job.patches_across
    scene = make_scene(job.seed, job.number, height=side, width=side)
    corners = [(row, col) for row in range(0, side, job.patch_px) for col in range(0, side, job.patch_px)]
    rows = (_write_patch(job, scene, row=row, col=col) for row, col in corners)
    return [row for row in rows if row is not None]


def _write_patch(job: SceneJob, scene: Scene, *, row: int, col: int) -> PatchRow | None:
    size = job.patch_px
    window = slice(row, row + size), slice(col, col + size)
    cloud_cover = float(np.isin(scene.cloud[window], (CLOUD, LIGHT_CLOUD)).mean())
    if cloud_cover > MAX_CLOUD:
        return None
    tile = get_tile_name(job.number)
    name = f"{tile}_r{row}_c{col}"
    mask = (scene.delineation if job.task_name == "del" else scene.grading)[window]
    is_seen = scene.cloud[window] != CLOUD
    mask = np.where(is_seen, mask, IGNORE_INDEX).astype(np.uint8)
    _save(job.folder / f"{name}_image.npy", np.clip(scene.reflectance[window][..., _CHANNELS], 0.0, 1.0))
    _save(job.folder / f"{name}_mask.npy", mask)
    x_min, y_min, x_max, y_max = get_footprint(job.number, top=row, left=col, height=size, width=size)
    return PatchRow(
        patch_id=name,
        source_image=tile,
        row=row,
        col=col,
        x_min=x_min,
        y_min=y_min,
        x_max=x_max,
        y_max=y_max,
        cloud_cover=round(cloud_cover, 6),
        burn_fraction=round(float((mask[is_seen] > 0).mean()), 6),
    )


def _save(path: Path, array: NDArray[np.float32] | NDArray[np.uint8]) -> None:
    with replacing(path) as part, part.open("wb") as file:
        np.save(file, np.ascontiguousarray(array))
