"""Tests of loading several runs as one model."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from fireseg.decision import class_probabilities
from fireseg.errors import FiresegError, SettingError
from fireseg.files import hash_file
from fireseg.runs import Calibration, TrainedModel, load_trained_model, write_calibration
from fireseg.runs.ensemble import split_runs
from fireseg.runs.summary import find_runs
from tests.runs.builders import FINGERPRINT, make_checkpoint, make_settings, write_run

BANDS = "data.bands=[B04,B08,B12]"


@pytest.fixture(scope="module")
def contents() -> list[dict[str, Any]]:
    """Checkpoints of two seeds."""
    settings = make_settings(BANDS)
    return [make_checkpoint(settings, seed=seed, epoch=3 + seed) for seed in (0, 1)]


@pytest.fixture
def runs(contents: list[dict[str, Any]], tmp_path: Path) -> list[Path]:
    return [write_run(tmp_path / name, content=one).path for name, one in zip("ab", contents, strict=True)]


def load(*runs: Path) -> TrainedModel:
    return load_trained_model(",".join(map(str, runs)), device="cpu", build=False)


def calibrate(trained: TrainedModel) -> Calibration:
    assert trained.folder is not None
    calibration = Calibration(
        temperature=1.5,
        threshold=0.4,
        rule_min_pixels=3,
        rule_min_odds=0.5,
        checkpoint_sha256=trained.sha256,
        fingerprint=FINGERPRINT,
    )
    trained.folder.path.mkdir()
    write_calibration(trained.folder, calibration)
    return calibration


def test_the_probabilities_are_the_mean_of_the_runs(runs: list[Path]) -> None:
    image = torch.rand(1, 3, 32, 48)
    alone = [class_probabilities(load_trained_model(run, device="cpu").predict_logits(image)) for run in runs]

    together = load_trained_model(",".join(map(str, runs)), device="cpu")

    torch.testing.assert_close(class_probabilities(together.predict_logits(image)), (alone[0] + alone[1]) / 2)


def test_an_ensemble_is_described_by_its_members(runs: list[Path]) -> None:
    trained = load(*runs)
    hashes = [hash_file(run / "checkpoints/best_model.pt") for run in runs]
    sha256 = hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()

    assert (trained.sha256, trained.epoch, trained.fingerprint) == (sha256, 4, FINGERPRINT)
    assert (trained.bands, trained.task.name, trained.calibration) == (("B04", "B08", "B12"), "del", None)
    assert trained.folder is not None
    assert trained.folder.path == runs[0].parent / f"ensemble_{sha256[:12]}"
    assert not trained.folder.path.exists()
    assert trained.argument == f"{runs[0]},{runs[1]}"
    described = trained.describe()
    assert (described["checkpoint"], described["encoder"]) == ("best_model.pt", "tu-test_efficientnet")
    assert described["members"] == [
        {"name": "a", "checkpoint": "best_model.pt", "sha256": hashes[0], "epoch": 3},
        {"name": "b", "checkpoint": "best_model.pt", "sha256": hashes[1], "epoch": 4},
    ]


def test_the_order_of_the_runs_changes_nothing(runs: list[Path]) -> None:
    first, second = load(*runs), load(*reversed(runs))
    image = torch.rand(1, 3, 32, 32)
    assert first.sha256 == second.sha256
    assert torch.equal(first.predict_logits(image), second.predict_logits(image))


def test_the_ensemble_has_a_calibration_of_its_own_wherever_the_runs_are(runs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "moved").mkdir()
    other = Path(shutil.move(runs[1], tmp_path / "moved/b"))
    calibration = calibrate(load(runs[0], other))
    assert load(runs[0], other).calibration == calibration
    assert load(other, runs[0]).calibration == calibration
    assert load_trained_model(runs[0], device="cpu", build=False).calibration is None


def test_the_folder_of_an_ensemble_is_no_run_of_its_parent(runs: list[Path], tmp_path: Path) -> None:
    trained = load(*runs)
    calibrate(trained)
    assert [run.path for run in find_runs([tmp_path])] == runs


def test_all_faults_of_the_runs_are_told_at_once(runs: list[Path], tmp_path: Path) -> None:
    other = write_run(tmp_path / "c", "task=gra", "data.bands=[B08,B04,B12]").path
    with pytest.raises(FiresegError) as caught:
        load(runs[0], other, tmp_path / "d", runs[0])
    missing, task, bands, twice = caught.value.faults
    assert missing.startswith(f"{tmp_path}/d: no such run folder")
    assert task.startswith(f"{other}: task gra (no_damage")
    assert f"but del (background fire) in {runs[0]}" in task
    assert f"{other}: bands B08 B04 B12, but B04 B08 B12 in {runs[0]}" in bands
    assert twice == f"{runs[0]}: the same checkpoint as {runs[0]}; name each run once"


def test_pixel_size_and_processing_level_have_to_agree_where_they_are_known(
    contents: list[dict[str, Any]], tmp_path: Path
) -> None:
    known = [{"pixel_m": 10.0, "level": "2A"}, {"pixel_m": 20.0, "level": "1C"}, {"pixel_m": 10.04, "level": None}]
    runs = [
        write_run(tmp_path / f"{number}", content={**contents[number % 2], "epoch": number, **values}).path
        for number, values in enumerate(known)
    ]
    with pytest.raises(FiresegError) as caught:
        load(*runs)
    level, size = caught.value.faults
    assert f"{runs[1]}: processing level 1C, but 2A in" in level
    assert f"{runs[1]}: pixel size 20 m, but 10 m in" in size
    assert (load(runs[2], runs[0]).pixel_m, load(runs[2], runs[0]).level) == (10.04, "2A")


def test_a_model_of_reflectance_and_one_relative_to_the_scene_are_no_ensemble(runs: list[Path], tmp_path: Path) -> None:
    other = write_run(tmp_path / "c", "data.bands=[B04,B08,B12]", "data.normalisation=scene").path
    with pytest.raises(FiresegError, match=r"c: data\.normalisation scene, but dataset in"):
        load(runs[0], other)


@pytest.mark.parametrize("change", ["fingerprint", "fold"])
def test_runs_of_different_patches_or_folds_have_the_fingerprint_of_no_patches(
    contents: list[dict[str, Any]], tmp_path: Path, change: str
) -> None:
    first = write_run(tmp_path / "a", content=contents[0]).path
    other = {**contents[1], "config": {**contents[1]["config"], "data": {**contents[1]["config"]["data"], "fold": 1}}}
    if change == "fingerprint":
        other = {**contents[1], "fingerprint": "0" * 64}
    second = write_run(tmp_path / "b", content=other).path
    trained = load(first, second)
    assert trained.fingerprint not in {member.fingerprint for member in trained.members}
    assert len(trained.fingerprint) == 64


def test_runs_are_separated_by_commas_but_for_a_path_that_exists(tmp_path: Path) -> None:
    assert split_runs("a, b,models:/fire@best") == ["a", "b", "models:/fire@best"]
    (tmp_path / "with,comma").mkdir()
    assert split_runs(str(tmp_path / "with,comma")) == [str(tmp_path / "with,comma")]
    with pytest.raises(SettingError, match=r"a,: no run before or after a comma"):
        split_runs("a,")


def test_checkpoints_outside_of_runs_have_no_folder(contents: list[dict[str, Any]], tmp_path: Path) -> None:
    for name, content in zip("ab", contents, strict=True):
        torch.save(content, tmp_path / f"{name}.pt")
    trained = load(tmp_path / "a.pt", tmp_path / "b.pt")
    assert (trained.folder, trained.name) == (None, "ensemble of a.pt, b.pt")
    assert trained.provenance == {}
