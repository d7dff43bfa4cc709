"""Tests of exporting several runs as one model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from fireseg.decision import class_probabilities
from fireseg.errors import SettingError
from fireseg.export.options import ExportOptions
from fireseg.export.pipeline import export_model
from fireseg.runs import load_trained_model
from tests.runs.builders import make_checkpoint, make_settings, write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("runs")
    settings = [make_settings(f"seed={seed}", *index) for seed, index in ((0, ()), (1, ("data.indices=[NBR]",)))]
    paths = [
        write_run(root / f"run_{seed}", content=make_checkpoint(settings[seed], seed=seed, epoch=5 + seed)).path
        for seed in (0, 1)
    ]
    return ",".join(map(str, paths))


def test_an_export_of_several_runs_gives_their_mean_and_names_them(runs: str, tmp_path: Path) -> None:
    # Of a fixed size, which is traced faster.
    out = export_model(ExportOptions(run=runs, to="torch", static=64, out=tmp_path / "exported"))

    image = torch.rand(1, 7, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.01
    result = torch.export.load(out / "model.pt2").module()(image)
    alone = [load_trained_model(run, device="cpu").predict_logits(image) for run in runs.split(",")]
    expected = (class_probabilities(alone[0]) + class_probabilities(alone[1])) / 2
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)
    model = json.loads((out / "parity.json").read_text())["model"]
    assert [(member["name"], member["epoch"]) for member in model["members"]] == [("run_0", 5), ("run_1", 6)]
    assert model["indices"] == ["NBR"]
    card = (out / "MODEL_CARD.md").read_text()
    assert "from 2 checkpoints, of which it is the mean probability" in card
    assert "| run 2 | seed 1; epoch of this checkpoint 6; fire IoU on val, all pixels, argmax 0.500 |" in card


def test_what_holds_one_checkpoint_only_is_refused(runs: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"--to mlflow: .* use onnx, openvino or torch"):
        export_model(ExportOptions(run=runs, to="mlflow", out=tmp_path / "exported"))
    with pytest.raises(SettingError, match=r"--precision int8: not available for several runs"):
        export_model(ExportOptions(run=runs, to="openvino", precision="int8", out=tmp_path / "exported"))
    assert not (tmp_path / "exported").exists()
