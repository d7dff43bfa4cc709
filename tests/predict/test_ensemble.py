"""Tests of mapping with several runs as one model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

import fireseg
from fireseg.files import hash_file
from fireseg.model import create_segmentation_model
from fireseg.predict.cli import main
from fireseg.runs.load import load_trained_model
from tests.evaluate.builders import read_json
from tests.predict.builders import draw_image, write_run, write_scene


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, runs = tmp_path_factory.mktemp("runs"), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = create_segmentation_model("unet", "tu-test_efficientnet", weights="none")
        model.set_normalisation([0.3] * 7, [0.02] * 7)
        runs.append(write_run(folder / f"run_{seed}", model))
    return runs


def read_fire(folder: Path) -> np.ndarray:
    with rasterio.open(folder / "scene_fire.tif") as raster:
        return raster.read(1)


def test_the_map_of_several_runs_is_the_mean_of_their_maps(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Wider than a window, so that two are blended.
    scene = write_scene(tmp_path / "scene.tif", draw_image(64, 700))
    for number, run in enumerate(runs):
        fireseg.load(run, device="cpu", runtime="torch").predict_scene(
            scene, tmp_path / f"alone_{number}", fire_dtype="float32"
        )
    both, out = f"{runs[0]},{runs[1]}", tmp_path / "together"

    words = [both, str(scene), "--out", str(out), "--fire-dtype", "float32", "--runtime", "torch", "--device", "cpu"]
    assert main(words) == 0

    alone = [read_fire(tmp_path / f"alone_{number}") for number in (0, 1)]
    assert np.abs(alone[0] - alone[1]).max() > 0.05
    np.testing.assert_allclose(read_fire(out), (alone[0] + alone[1]) / 2, atol=1e-6)
    model = read_json(out / "scene.json")["model"]
    assert [member["name"] for member in model["members"]] == ["run_0", "run_1"]
    assert model["members"][0]["sha256"] == hash_file(runs[0] / "checkpoints/best_model.pt")
    assert model["sha256"] == load_trained_model(both, device="cpu", build=False).sha256
    printed = capsys.readouterr().out
    assert "2 runs as one model: run_0, run_1" in printed
    assert f"choose it on val with python -m fireseg.evaluate {both}" in printed
