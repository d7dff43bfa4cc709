"""Synthetic patches: a small data set with known truth, written in the patch layout."""

from __future__ import annotations

import csv
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from tqdm import tqdm

from fireseg.data.bands import BAND_NAMES, CEMS_BANDS
from fireseg.data.format import MASKS, METADATA, MaskName
from fireseg.data.patches import IMAGE_SUFFIX, MASK_SUFFIX, SPLITS
from fireseg.errors import SettingError
from fireseg.files import Settings, atomic_write, build_once, end_with_parent
from fireseg.synthetic.scene import Scene, get_footprint, get_tile_name, make_scene
from fireseg.task import CLOUD, IGNORE_INDEX, LIGHT_CLOUD

SAMPLE_VERSION = 3
"""Version of the generator; increased whenever the same settings give different bytes."""

MAX_SCENES_PER_SPLIT = 1000
"""Scene numbers reserved for each split, so that more training scenes do not change the validation scenes."""

MAX_CLOUD = 0.5
"""Largest cloud cover of a patch; patches with more are left out."""

_CHANNELS = [CEMS_BANDS.index(band) for band in BAND_NAMES]


@dataclass(frozen=True, kw_only=True)
class SceneJob:
    """A scene to make and the folder of its patches."""

    folder: Path
    seed: int
    number: int
    patch_px: int
    patches_across: int
    task_name: MaskName


class PatchRow(TypedDict):
    """A row of metadata.csv: position of a patch in its scene and on the map, cloud cover and burned share."""

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
    """Makes a scene and writes it as adjacent patches without overlap.

    Returns:
        Metadata of the written patches in row-major order; patches under cloud are left out.
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
    is_labelled = scene.cloud[window] != CLOUD
    mask = np.where(is_labelled, mask, IGNORE_INDEX).astype(np.uint8)
    _save(job.folder / f"{name}{IMAGE_SUFFIX}", np.clip(scene.reflectance[window][..., _CHANNELS], 0.0, 1.0))
    _save(job.folder / f"{name}{MASK_SUFFIX}", mask)
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
        burn_fraction=round(float((mask[is_labelled] > 0).mean()), 6),
    )


def _save(path: Path, array: NDArray[np.float32] | NDArray[np.uint8]) -> None:
    with atomic_write(path) as part, part.open("wb") as file:
        np.save(file, np.ascontiguousarray(array))


Job = TypeVar("Job")

Result = TypeVar("Result")


def run_jobs(work: Callable[[Job], Result], jobs: Sequence[Job], *, workers: int) -> Iterator[Result]:
    """Runs jobs in worker processes and yields their results in order of completion.

    Args:
        work: Function of one job, defined at module level so that it can be pickled.
        jobs: Arguments of the function, one call each.
        workers: Number of processes; with 1 the jobs run in the calling process.
    """
    if workers == 1:
        yield from map(work, jobs)
        return
    # Spawned, because the calling process has threads by now and a fork would copy their locks.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=end_with_parent) as pool:
        try:
            for future in as_completed([pool.submit(work, job) for job in jobs]):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def make_sample(
    patches_root: Path,
    *,
    task_name: MaskName = "del",
    train_scenes: Annotated[int, Field(ge=1, le=MAX_SCENES_PER_SPLIT)] = 60,
    val_scenes: Annotated[int, Field(ge=1, le=MAX_SCENES_PER_SPLIT)] = 20,
    test_scenes: Annotated[int, Field(ge=0, le=MAX_SCENES_PER_SPLIT)] = 20,
    patch_px: Annotated[int, Field(ge=32, le=1024)] = 128,
    patches_across: Annotated[int, Field(ge=1, le=16)] = 2,
    seed: Annotated[int, Field(ge=0)] = 0,
    workers: Annotated[int, Field(ge=1)] = 1,
) -> None:
    """Makes a data set of synthetic scenes in the patch layout, unless the folder holds it already.

    Each scene is a square of `patches_across` x `patches_across` patches and belongs to one split.
    The folder is renamed into place when it is complete, so an interrupted call leaves none. Concurrent calls
    for the same folder wait for the first. The bytes depend on all settings but `workers`.

    Args:
        patches_root: Folder of `train`, `val` and `test`. Each holds `{tile}_r{row}_c{col}_image.npy`, float32
            (S, S, 7) reflectance 0 to 1, `…_mask.npy`, uint8 (S, S), and a `metadata.csv` with invented bounds in
            the open Atlantic in EPSG:4326.
        task_name: Task of the masks: `del` has classes 0 and 1, `gra` 0 to 4; both are 255 under thick cloud.
        train_scenes: Number of training scenes.
        val_scenes: Number of validation scenes.
        test_scenes: Number of test scenes.
        patch_px: Patch size in pixels.
        patches_across: Number of patches along the side of a scene.
        seed: Random seed of the scenes.
        workers: Number of processes; each takes some seconds to start.

    Raises:
        FiresegError: If the folder holds other files or another sample, or cannot be written.
        SettingError: If the task is unknown.
    """
    if task_name not in MASKS:
        raise SettingError(f"task.name: '{task_name}' has no masks in the sample; choose {' or '.join(MASKS)}")
    settings: dict[str, Any] = {
        "recipe": SAMPLE_VERSION,
        "task_name": task_name,
        "bands": list(BAND_NAMES),
        "train_scenes": train_scenes,
        "val_scenes": val_scenes,
        "test_scenes": test_scenes,
        "patch_px": patch_px,
        "patches_across": patches_across,
        "seed": seed,
    }
    build_once(Path(patches_root), settings, partial(_write_sample, settings, workers))


def _write_sample(settings: Settings, workers: int, root: Path) -> None:
    jobs = []
    rows: dict[str, list[PatchRow]] = {}
    for index, split in enumerate(SPLITS):
        if not settings[f"{split}_scenes"]:
            continue
        rows[split] = []
        (root / split).mkdir(parents=True)
        first = index * MAX_SCENES_PER_SPLIT
        jobs += [
            SceneJob(
                folder=root / split,
                number=number,
                seed=settings["seed"],
                patch_px=settings["patch_px"],
                patches_across=settings["patches_across"],
                task_name=settings["task_name"],
            )
            for number in range(first, first + settings[f"{split}_scenes"])
        ]
    with tqdm(total=len(jobs), desc="making sample patches", unit="scene", disable=None, leave=False) as bar:
        for split, scene_rows in run_jobs(_write_scene, jobs, workers=workers):
            rows[split] += scene_rows
            bar.update()
    for split, split_rows in rows.items():
        _write_table(root / split / METADATA, split_rows)


def _write_scene(job: SceneJob) -> tuple[str, list[PatchRow]]:
    return job.folder.name, write_patches(job)


def _write_table(path: Path, rows: list[PatchRow]) -> None:
    # Scenes arrive in order of completion.
    rows = sorted(rows, key=lambda row: (row["source_image"], row["row"], row["col"]))
    with atomic_write(path) as part, part.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(PatchRow.__annotations__)
        table.writerows(row.values() for row in rows)
