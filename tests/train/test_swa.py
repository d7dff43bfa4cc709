"""Runs that average the weights of their last epochs."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fireseg.errors import SettingError
from fireseg.runs import load_trained_model
from fireseg.runs.folder import RunFolder, find_resume_point
from fireseg.runs.summary import RunSummary, read_run
from tests.train.test_run import Run, run  # noqa: F401 - a fixture

SWA = ("engine.epochs=3", "engine.swa_epochs=2", "stopping.patience=0", "checkpoint.every=1", "checkpoint.keep=9")


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_mean_is_judged_like_an_epoch_and_again_if_the_run_was_killed_before_it_was_noted(
    run: Run,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("fireseg"), "propagate", True)
    caplog.set_level(logging.INFO, "fireseg")
    folder = run(*SWA)

    noted = folder.read_provenance()["swa"]
    state, best = load(folder.checkpoints / "last.pt"), load(folder.checkpoints / "best_model.pt")
    scores = [row["val/fire_iou"] for row in folder.read_metrics()]
    assert (noted["epochs"], noted["epoch"], state["swa"]["start"]) == (2, 3, 2)
    assert noted["is_best"] == (noted["val/fire_iou"] > max(scores))
    mean = {name.removeprefix("module."): value for name, value in state["swa"]["model"].items()}
    after = [load(folder.checkpoints / f"checkpoint_epoch_{epoch}.pt")["model"] for epoch in (2, 3)]
    name = next(name for name in mean if name.endswith("conv_stem.weight"))
    torch.testing.assert_close(mean[name], (after[0][name] + after[1][name]) / 2)
    assert torch.equal(best["model"][name], mean[name]) == noted["is_best"]
    summary = read_run(folder)
    assert summary.val_fire_iou == max(noted["val/fire_iou"], *scores)
    assert (best["epoch"], best["val/fire_iou"]) == (summary.best_epoch, summary.val_fire_iou)
    assert load_trained_model(folder.path, device="cpu", build=False).epoch == summary.best_epoch
    assert "mean of the weights after the last 2 epochs: val/fire_iou" in caplog.text

    content = folder.read_provenance()
    del content["swa"]
    folder.provenance.write_text(json.dumps(content))
    run(*SWA, point=find_resume_point(folder.path))
    assert folder.read_provenance()["swa"] == noted
    assert equal(load(folder.checkpoints / "best_model.pt")["model"], best["model"])


def test_early_stopping_is_refused(run: Run) -> None:  # noqa: F811
    with pytest.raises(SettingError, match=r"engine\.swa_epochs: 1 averages .* set stopping\.patience=0"):
        run("engine.swa_epochs=1")


@pytest.mark.parametrize(("is_best", "expected"), [(True, (5, 0.8)), (False, (2, 0.7))])
def test_the_best_model_of_a_summary_is_the_mean_only_if_it_was_better(
    make_summary: Callable[[dict[str, Any]], RunSummary], is_best: bool, expected: tuple[int, float]
) -> None:
    swa = {"epochs": 3, "epoch": 5, "is_best": is_best, "val/fire_iou": 0.8, "val/loss": 0.1}
    summary = make_summary({"swa": swa})
    assert (summary.best_epoch, summary.val_fire_iou) == expected


@pytest.fixture
def make_summary(tmp_path: Path) -> Callable[[dict[str, Any]], RunSummary]:
    """Makes the summary of a run whose second epoch is the best, with given contents of run.json."""
    rows = [{"epoch": epoch, "best": epoch < 3, "val/fire_iou": 0.5 + epoch / 10} for epoch in (1, 2, 3)]
    rows[2]["val/fire_iou"] = 0.6
    return lambda provenance: RunSummary(folder=RunFolder(tmp_path), settings={}, provenance=provenance, rows=rows)
