"""Fixtures that write a small prepared data set, packed and as files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fireseg.data.bands import BAND_NAMES

MakePacked = Callable[..., Path]
MakeFiles = Callable[..., Path]


def write_manifest(root: Path, **changes: Any) -> None:
    """Writes a manifest with the fields that readers use, some of them changed."""
    content = {
        "format": 1,
        "layout": "packed",
        "task": None,
        "bands": list(BAND_NAMES),
        "scale": 10000,
        "size": 32,
        "leaks": [],
        "patches": {},
    }
    (root / "manifest.json").write_text(json.dumps(content | changes))


def write_split(
    folder: Path, names: Sequence[str], images: np.ndarray, delineations: np.ndarray, gradings: np.ndarray
) -> None:
    """Writes one packed split."""
    folder.mkdir(parents=True)
    np.save(folder / "images.npy", images)
    np.save(folder / "masks_del.npy", delineations)
    np.save(folder / "masks_gra.npy", gradings)
    with (folder / "metadata.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["patch_id", "source_image"])
        table.writerows([name, name.partition("_r")[0]] for name in names)


@pytest.fixture
def make_packed(tmp_path: Path) -> MakePacked:
    """Writes packed patches, not sorted by name; every third patch has no grading."""

    def make(
        root: Path | None = None,
        *,
        patches: Mapping[str, int] | None = None,
        bands: Sequence[str] = BAND_NAMES,
        size: int = 32,
        seed: int = 0,
        **manifest: Any,
    ) -> Path:
        root = root or tmp_path / "packed"
        patches = patches or {"train": 9, "val": 5}
        rng = np.random.default_rng(seed)
        for number, (split, count) in enumerate(patches.items()):
            names = [f"EMSR{100 * number + row:03d}_AOI01_01_r0_c0" for row in rng.permutation(count)]
            images = rng.integers(0, 10001, (count, size, size, len(bands)), dtype=np.uint16)
            gradings = rng.choice(np.array([0, 0, 1, 2, 3, 4, 255], np.uint8), (count, size, size))
            delineations = np.where(gradings == 255, 255, gradings > 0).astype(np.uint8)
            gradings[1::3] = 255
            write_split(root / split, names, images, delineations, gradings)
        write_manifest(root, **{"bands": list(bands), "size": size, "patches": dict(patches)} | manifest)
        return root

    return make


@pytest.fixture
def make_files(tmp_path: Path) -> MakeFiles:
    """Writes the patches of a packed root that have labels of a task as two files each."""

    def make(packed_root: Path, task_name: str, root: Path | None = None) -> Path:
        root = root or tmp_path / f"files_{task_name}"
        manifest = json.loads((packed_root / "manifest.json").read_text())
        patches = {}
        for split in manifest["patches"]:
            folder = root / split
            folder.mkdir(parents=True)
            names = [
                row.partition(",")[0] for row in (packed_root / split / "metadata.csv").read_text().splitlines()[1:]
            ]
            images, masks = (np.load(packed_root / split / f"{kind}.npy") for kind in ("images", f"masks_{task_name}"))
            rows = [row for row in range(len(names)) if task_name == "del" or (masks[row] != 255).any()]
            for row in rows:
                np.save(folder / f"{names[row]}_image.npy", images[row].astype(np.float32) / np.float32(10000))
                np.save(folder / f"{names[row]}_mask.npy", masks[row])
            patches[split] = len(rows)
        write_manifest(root, **manifest | {"layout": "files", "task": task_name, "patches": patches})
        return root

    return make
