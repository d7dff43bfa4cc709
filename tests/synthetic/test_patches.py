"""Sample patches: layout, metadata, determinism, and a folder that is complete or absent."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fireseg.data import WildfireDataModule
from fireseg.errors import FiresegError, SettingError
from fireseg.synthetic import make_sample

SMALL: dict[str, Any] = {"train_scenes": 3, "val_scenes": 1, "test_scenes": 1, "patch_px": 32}


def read_files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def make_small(root: Path) -> None:
    make_sample(root, **SMALL)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "sample"
    make_small(root)
    return root


def test_patches_have_the_patch_layout(sample: Path) -> None:
    images = sorted((sample / "train").glob("*_image.npy"))
    assert images[0].name == "SAMPLE0000_AOI01_01_r0_c0_image.npy"
    for path in images:
        image, mask = np.load(path), np.load(path.with_name(path.name.replace("_image", "_mask")))
        assert image.shape == (32, 32, 7)
        assert image.dtype == np.float32
        assert 0 <= image.min() <= image.max() <= 1
        assert mask.shape == (32, 32)
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 1, 255}


def test_no_scene_is_in_two_splits(sample: Path) -> None:
    scenes = [{path.name[:10] for path in (sample / split).glob("*.npy")} for split in ("train", "val", "test")]
    assert sum(len(each) for each in scenes) == len(set().union(*scenes))


def test_metadata_describes_each_patch(sample: Path) -> None:
    with (sample / "val" / "metadata.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["patch_id"] for row in rows] == sorted(path.name[:-10] for path in (sample / "val").glob("*_image.npy"))
    for row in rows:
        mask = np.load(sample / "val" / f"{row['patch_id']}_mask.npy")
        share = (mask == 1).sum() / max((mask != 255).sum(), 1)
        assert float(row["burn_fraction"]) == pytest.approx(share, abs=1e-6)
        assert float(row["cloud_cover"]) <= 0.5
        assert row["patch_id"] == f"{row['source_image']}_r{row['row']}_c{row['col']}"
        assert float(row["x_max"]) - float(row["x_min"]) == pytest.approx(32 * 9e-5, abs=1e-6)


def test_the_data_module_makes_and_reads_the_sample(tmp_path: Path) -> None:
    data = WildfireDataModule(tmp_path / "sample", 4, maker=partial(make_sample, **SMALL))
    data.setup()
    assert len(data.train) > 8
    assert len(data.mean) == 7


def test_the_gra_task_has_masks_of_five_grades(tmp_path: Path) -> None:
    make_sample(tmp_path / "gra", task_name="gra", patch_px=64, train_scenes=3, val_scenes=1, test_scenes=0)
    masks = [np.load(path) for path in (tmp_path / "gra" / "train").glob("*_mask.npy")]
    assert {2, 3} <= set(np.unique(masks)) <= {0, 1, 2, 3, 4, 255}


def test_the_number_of_workers_does_not_change_the_bytes(sample: Path, tmp_path: Path) -> None:
    make_sample(tmp_path / "sample", workers=2, **SMALL)
    assert read_files(tmp_path / "sample") == read_files(sample)


def test_more_training_scenes_do_not_change_validation(sample: Path, tmp_path: Path) -> None:
    make_sample(tmp_path / "sample", train_scenes=4, val_scenes=1, test_scenes=1, patch_px=32)
    assert read_files(tmp_path / "sample" / "val") == read_files(sample / "val")


def test_another_seed_gives_other_scenes(sample: Path, tmp_path: Path) -> None:
    make_sample(tmp_path / "sample", seed=1, **SMALL)
    assert read_files(tmp_path / "sample" / "val") != read_files(sample / "val")


def test_a_split_without_scenes_has_no_folder(tmp_path: Path) -> None:
    make_sample(tmp_path / "sample", train_scenes=3, val_scenes=1, test_scenes=0, patch_px=32)
    assert sorted(path.name for path in (tmp_path / "sample").iterdir()) == ["sample.json", "train", "val"]


def test_a_second_call_writes_nothing(sample: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in sample.rglob("*")}
    make_small(sample)
    assert {path: path.stat().st_mtime_ns for path in sample.rglob("*")} == before


def test_a_folder_of_other_settings_is_an_error_that_names_the_difference(sample: Path) -> None:
    with pytest.raises(FiresegError, match=r"seed=0 .*seed=5 .*delete the folder"):
        make_sample(sample, seed=5, **SMALL)


def test_an_unknown_task_is_a_setting_error(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"task\.name: 'smoke'.*del or gra"):
        make_sample(tmp_path / "sample", task_name="smoke")  # pyright: ignore[reportArgumentType]


def test_two_concurrent_calls_make_one_sample(sample: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        list(pool.map(partial(make_sample, **SMALL), [tmp_path / "sample"] * 2))
    assert read_files(tmp_path / "sample") == read_files(sample)
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_call_leaves_no_folder_and_the_next_call_makes_it(sample: Path, tmp_path: Path, workers: int) -> None:
    root = tmp_path / "sample"
    program = (
        "from pathlib import Path; from fireseg.synthetic import make_sample\n"
        f"if __name__ == '__main__': make_sample(Path({str(root)!r}), patch_px=32, workers={workers})"
    )
    script = tmp_path / "make.py"
    script.write_text(program)
    process = subprocess.Popen([sys.executable, str(script)], env=os.environ | {"PYTHONPATH": str(Path.cwd())})
    while process.poll() is None and not list(tmp_path.glob(".sample.*.part/train/*_image.npy")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not root.exists()
    make_small(root)
    assert read_files(root) == read_files(sample)
    assert list(tmp_path.glob(".sample.*.part")) == []


def test_the_manifest_records_the_settings(sample: Path) -> None:
    manifest = json.loads((sample / "sample.json").read_text())
    assert manifest["settings"]["seed"] == 0
    assert manifest["settings"]["bands"] == ["B02", "B03", "B04", "B08", "B8A", "B11", "B12"]
    assert set(manifest["files"]) == {"train", "val", "test"}
