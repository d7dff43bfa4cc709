"""A run folder written by version 0.1.0 is loaded, resumed, evaluated and mapped.

Its config.json names `fireseg.data.sample.make_sample`, which has moved since. To keep the files small, all
values of each weight tensor are equal.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio import Affine

import fireseg
from tests.processes import start_command

EARLIER = Path(__file__).parent / "run_of_0_1_0"


def run_command(name: str, *arguments: str, folder: Path) -> str:
    process = start_command(name, *arguments, cwd=folder)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies the run to `run` in a temporary folder and resumes it for a third epoch."""
    folder = tmp_path_factory.mktemp("earlier")
    shutil.copytree(EARLIER, folder / "run")
    run_command("train", "resume=run", "engine.epochs=3", "data.root=sample", folder=folder)
    return folder


def test_an_earlier_run_is_loaded(tmp_path: Path) -> None:
    shutil.copytree(EARLIER, tmp_path / "run")
    prediction = fireseg.load(tmp_path / "run", runtime="torch").predict(np.full((64, 64, 7), 0.2, np.float32))
    assert prediction.classes.shape == (64, 64)


def test_an_earlier_run_is_resumed_on_the_same_sample(folder: Path) -> None:
    rows = [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    # A checkpoint is only resumed on patches with the same fingerprint.
    fingerprint = json.loads((EARLIER / "run.json").read_text())["data"]["fingerprint"]
    assert json.loads((folder / "run/run.json").read_text())["data"]["fingerprint"] == fingerprint


def test_an_earlier_run_is_evaluated(folder: Path) -> None:
    run_command("evaluate", "run", "--split", "val", "--data", "sample", "--no-track", folder=folder)
    assert json.loads((folder / "run/evaluation_val.json").read_text())["split"] == "val"


def test_an_earlier_run_maps_a_scene(tmp_path: Path) -> None:
    shutil.copytree(EARLIER, tmp_path / "run")
    bands = np.random.default_rng(0).uniform(0.02, 0.4, (7, 64, 96)).astype(np.float32)
    profile = {"driver": "GTiff", "count": 7, "height": 64, "width": 96, "dtype": "float32", "crs": "EPSG:32633"}
    with rasterio.open(
        tmp_path / "scene.tif", "w", transform=Affine(10, 0, 500_000, 0, -10, 5_000_000), **profile
    ) as file:
        file.write(bands)
        file.descriptions = ("B02", "B03", "B04", "B08", "B8A", "B11", "B12")
    run_command("predict", "run", "scene.tif", "--runtime", "torch", folder=tmp_path)
    with rasterio.open(tmp_path / "maps/scene_classes.tif") as file:
        assert file.shape == (64, 96)
