"""A trained model, wherever it is kept."""

from __future__ import annotations

import copy
import hashlib
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from fireseg import config
from fireseg.errors import SettingError
from fireseg.model import FireSegmentationModel
from fireseg.runs import Calibration, load_trained_model, write_calibration
from fireseg.runs.folder import RunFolder
from tests.look_alike_run import FINGERPRINT, make_checkpoint, make_settings, write_run


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    return make_checkpoint(make_settings("task=gra", "data.bands=[B04,B08,B12]"))


@pytest.fixture
def run(content: dict[str, Any], tmp_path: Path) -> RunFolder:
    return write_run(tmp_path / "run", content=copy.deepcopy(content))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def calibrate(folder: RunFolder, sha256: str) -> Calibration:
    calibration = Calibration(
        temperature=1.5,
        threshold=0.4,
        rule_min_pixels=3,
        rule_min_odds=0.5,
        checkpoint_sha256=sha256,
        fingerprint=FINGERPRINT,
    )
    write_calibration(folder, calibration)
    return calibration


def test_a_run_comes_back_as_it_was_kept(run: RunFolder, content: dict[str, Any]) -> None:
    trained = load_trained_model(run.path, device="cpu")
    best = run.checkpoints / "best_model.pt"
    assert trained.checkpoint == best
    assert (trained.sha256, trained.epoch, trained.fingerprint) == (digest(best), 3, FINGERPRINT)
    assert (trained.task.name, trained.task.num_classes, trained.bands) == ("gra", 5, ("B04", "B08", "B12"))
    assert (trained.settings, trained.device, trained.calibration) == (content["config"], torch.device("cpu"), None)
    assert trained.folder is not None
    assert trained.folder.path == run.path
    state = trained.model.state_dict()
    assert state.keys() == content["model"].keys()
    assert all(torch.equal(state[key], value) for key, value in content["model"].items())
    assert not trained.model.training
    assert not any(parameter.requires_grad for parameter in trained.model.parameters())


def test_a_path_may_be_a_text_or_a_checkpoint_of_the_run(run: RunFolder) -> None:
    whole = load_trained_model(str(run.path), device="cpu")
    file = load_trained_model(run.checkpoints / "best_model.pt", device="cpu")
    assert whole.checkpoint == file.checkpoint
    assert file.folder is not None
    assert file.folder.path == run.path


def test_a_run_that_was_moved_is_opened_like_any_other(run: RunFolder, tmp_path: Path) -> None:
    moved = tmp_path / "else where"
    run.path.rename(moved)
    trained = load_trained_model(moved, device="cpu")
    assert trained.folder is not None
    assert trained.folder.path == moved


def test_a_checkpoint_on_its_own_belongs_to_no_run(run: RunFolder, tmp_path: Path) -> None:
    calibrate(run, digest(run.checkpoints / "best_model.pt"))
    shutil.copy(run.checkpoints / "best_model.pt", tmp_path / "copied.pt")
    trained = load_trained_model(tmp_path / "copied.pt", device="cpu")
    assert (trained.folder, trained.calibration) == (None, None)


def test_of_the_state_of_a_training_the_running_mean_is_what_was_validated(tmp_path: Path) -> None:
    settings = make_settings()
    model = config.make(settings["model"], FireSegmentationModel)
    mean = AveragedModel(model, use_buffers=True)
    mean.update_parameters(model)
    kept = {key: value.clone() for key, value in mean.module.state_dict().items()}
    state = make_checkpoint(settings, seed=1) | {"optimizer": {}, "mean": mean.state_dict()}
    run = write_run(tmp_path, content=state)
    loaded = load_trained_model(run.path, device="cpu").model.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in kept.items())
    torch.save(state | {"mean": None}, run.checkpoints / "best_model.pt")
    loaded = load_trained_model(run.path, device="cpu").model.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state["model"].items())


def test_a_calibration_goes_with_the_checkpoint_that_it_was_chosen_for(
    run: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    best, final = run.checkpoints / "best_model.pt", run.checkpoints / "final_model.pt"
    calibration = calibrate(run, digest(best))
    torch.save(torch.load(best, weights_only=True) | {"epoch": 4}, final)
    assert load_trained_model(run.path, device="cpu").calibration == calibration
    assert caplog.records == []
    assert load_trained_model(final, device="cpu").calibration is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(
        f"{run.calibration}: chosen for another checkpoint (sha256 {digest(best)[:12]}"
    )


def test_threads_are_set_only_where_asked_for(run: RunFolder) -> None:
    before = torch.get_num_threads()
    try:
        load_trained_model(run.path, device="cpu")
        assert torch.get_num_threads() == before
        load_trained_model(run.path, device="cpu", threads=before + 1)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_a_device_that_is_not_there_is_said(run: RunFolder) -> None:
    name = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(SettingError, match=f"engine.device: {name}, but torch finds none"):
        load_trained_model(run.path, device=name)


def test_a_run_that_mlflow_keeps_is_opened_by_its_address(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fireseg.tracker import TrackedRun, create_mlflow_tracker

    best = run.checkpoints / "best_model.pt"
    calibration = calibrate(run, digest(best))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    tracker = create_mlflow_tracker()
    tracker.start(TrackedRun(name="a"))
    tracker.artifact(best, "checkpoints")
    tracker.artifact(run.calibration)
    tracker.finish("FINISHED")
    trained = load_trained_model(f"runs:/{tracker.run_ids['mlflow']}", device="cpu")
    assert trained.checkpoint.is_relative_to(tmp_path / "cache")
    assert (trained.sha256, trained.folder, trained.calibration) == (digest(best), None, calibration)
