"""The sample as patches in a folder."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from tqdm import tqdm

from fireseg.data.bands import BAND_NAMES
from fireseg.data.sample.patches import PatchRow, SceneJob, write_patches
from fireseg.data.sample.whole import Settings, make_once
from fireseg.data.sample.workers import run_jobs
from fireseg.disk import replacing
from fireseg.errors import SettingError

RECIPE = 3
"""Counts up whenever the same settings give other bytes."""

SPLITS = ("train", "val", "test")
TASKS = ("del", "gra")

SCENES_A_SPLIT = 1000
"""Numbers set aside for each split: more training scenes leave those of validation as they were."""


def make_sample(
    patches_root: Path,
    *,
    task_name: Literal["del", "gra"] = "del",
    train_scenes: Annotated[int, Field(ge=1, le=SCENES_A_SPLIT)] = 60,
    val_scenes: Annotated[int, Field(ge=1, le=SCENES_A_SPLIT)] = 20,
    test_scenes: Annotated[int, Field(ge=0, le=SCENES_A_SPLIT)] = 20,
    patch_px: Annotated[int, Field(ge=32, le=1024)] = 128,
    patches_across: Annotated[int, Field(ge=1, le=16)] = 2,
    seed: Annotated[int, Field(ge=0)] = 0,
    workers: Annotated[int, Field(ge=1)] = 1,
) -> None:
    """Makes a data set of synthetic scenes in the patch layout, or finds it made.

    Each scene is a square of `patches_across` x `patches_across` patches and belongs to one split.
    The folder appears with all its files at once; killed on the way, there is none. Processes that
    want the same folder together wait for the first. The bytes depend on everything but `workers`.

    Args:
        patches_root: Where `train`, `val` and `test` go: `{tile}_r{row}_c{col}_image.npy` float32 (S, S, 7)
            reflectance 0 to 1, `…_mask.npy` uint8 (S, S), and in each split a `metadata.csv`. Its boxes lie in
            the open Atlantic, in EPSG:4326: the places are as invented as the fires.
        task_name: Whose masks: `del` 0 and 1, `gra` 0 to 4; both 255 under thick cloud, where nobody can see.
        train_scenes: Scenes to train on.
        val_scenes: Scenes to choose the best epoch by.
        test_scenes: Scenes to report.
        patch_px: Side of a patch.
        patches_across: Patches along the side of a scene.
        seed: Another one gives other scenes.
        workers: Processes that draw. Each takes some seconds to start.

    Raises:
        FiresegError: If the folder holds something else, or cannot be written.
        SettingError: If there is no such task.
    """
    if task_name not in TASKS:
        raise SettingError(f"task.name: '{task_name}', but the sample has masks of {' and '.join(TASKS)} only")
    settings: dict[str, Any] = {
        "recipe": RECIPE,
        "task_name": task_name,
        "bands": list(BAND_NAMES),
        "train_scenes": train_scenes,
        "val_scenes": val_scenes,
        "test_scenes": test_scenes,
        "patch_px": patch_px,
        "patches_across": patches_across,
        "seed": seed,
    }
    make_once(Path(patches_root), settings, partial(_write_all, settings, workers))


def _write_all(settings: Settings, workers: int, root: Path) -> None:
    jobs = []
    rows: dict[str, list[PatchRow]] = {}
    for index, split in enumerate(SPLITS):
        if not settings[f"{split}_scenes"]:
            continue
        rows[split] = []
        (root / split).mkdir(parents=True)
        first = index * SCENES_A_SPLIT
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
    with tqdm(total=len(jobs), desc="making the sample", unit="scene", disable=None, leave=False) as bar:
        for split, found in run_jobs(_write_scene, jobs, workers=workers):
            rows[split] += found
            bar.update()
    for split, found in rows.items():
        _write_table(root / split / "metadata.csv", found)


def _write_scene(job: SceneJob) -> tuple[str, list[PatchRow]]:
    return job.folder.name, write_patches(job)


def _write_table(path: Path, rows: list[PatchRow]) -> None:
    # Scenes come in the order in which the workers were done.
    rows = sorted(rows, key=lambda row: (row["source_image"], row["row"], row["col"]))
    with replacing(path) as part, part.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(PatchRow.__annotations__)
        table.writerows(row.values() for row in rows)
