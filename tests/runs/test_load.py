"""Loading a trained model, and refusing checkpoints that are broken or crafted: nothing in them is executed."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import logging
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from fireseg import config
from fireseg.errors import FiresegError, SettingError
from fireseg.files import find_checkpoint
from fireseg.model import FireSegmentationModel
from fireseg.runs import Calibration, TrainedModel, load_trained_model, write_calibration
from fireseg.runs.checkpoint import read_checkpoint
from fireseg.runs.folder import RunFolder
from tests.runs.builders import FINGERPRINT, make_checkpoint, make_settings, write_run
from tests.tiles.builders import make_reflectance, write_raster

Craft = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def delineation() -> dict[str, Any]:
    return make_checkpoint(make_settings())


@pytest.fixture
def content(delineation: dict[str, Any]) -> dict[str, Any]:
    """A whole checkpoint."""
    return copy.deepcopy(delineation)


@pytest.fixture
def hollow(delineation: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint without most of its weights: it must be rejected before they are loaded, or because of them."""
    return copy.deepcopy({**delineation, "model": {"mean": delineation["model"]["mean"]}})


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file that exists as soon as any of the crafted code below is executed."""
    return tmp_path / "canary"


def load_error(path: Path) -> str:
    """The error of loading a path, the same if its weights are read later: one line that starts with the path."""
    with pytest.raises(FiresegError) as caught:
        load_trained_model(path, device="cpu")
    with pytest.raises(FiresegError) as later:
        _ = load_trained_model(path, device="cpu", build=False).model
    assert later.value.faults == caught.value.faults
    (fault,) = caught.value.faults
    assert fault.startswith(f"{path}: ")
    assert len(fault.splitlines()) == 1
    return fault.removeprefix(f"{path}: ")


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def command(canary: Path) -> dict[str, Any]:
    return {"_target_": "os.system", "command": f"touch {canary}"}


@pytest.fixture(scope="module")
def grading() -> dict[str, Any]:
    """A checkpoint of a grading run with three bands."""
    return make_checkpoint(make_settings("task=gra", "data.bands=[B04,B08,B12]"))


@pytest.fixture
def run(grading: dict[str, Any], tmp_path: Path) -> RunFolder:
    return write_run(tmp_path / "run", content=copy.deepcopy(grading))


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


def test_a_run_is_loaded_as_it_was_saved(run: RunFolder, grading: dict[str, Any]) -> None:
    trained = load_trained_model(run.path, device="cpu")
    best = run.checkpoints / "best_model.pt"
    assert trained.checkpoint == best
    assert (trained.sha256, trained.epoch, trained.fingerprint) == (digest(best), 3, FINGERPRINT)
    assert trained.val_fire_iou == 0.5
    assert (trained.task.name, trained.task.num_classes, trained.bands) == ("gra", 5, ("B04", "B08", "B12"))
    assert (trained.settings, trained.device, trained.calibration) == (grading["config"], "cpu", None)
    assert trained.folder is not None
    assert trained.folder.path == run.path
    state = trained.model.state_dict()
    assert state.keys() == grading["model"].keys()
    assert all(torch.equal(state[key], value) for key, value in grading["model"].items())
    assert not trained.model.training
    assert not any(parameter.requires_grad for parameter in trained.model.parameters())


def test_a_run_is_described_before_its_weights_are_read(run: RunFolder, grading: dict[str, Any]) -> None:
    whole = load_trained_model(run.path, device="cpu")
    later = load_trained_model(run.path, device="cpu", build=False)
    names = {field.name for field in dataclasses.fields(TrainedModel)} - {"build_model", "folder"}
    assert [getattr(later, name) for name in names] == [getattr(whole, name) for name in names]
    state = later.model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in grading["model"].items())


def test_weights_that_were_replaced_after_the_run_was_described_are_not_used(run: RunFolder) -> None:
    trained = load_trained_model(run.path, device="cpu", build=False)
    best = run.checkpoints / "best_model.pt"
    torch.save(torch.load(best, weights_only=True) | {"epoch": 4}, best)
    with pytest.raises(FiresegError, match=r"best_model\.pt: was replaced .*start again"):
        _ = trained.model


def test_a_path_may_be_a_string_or_a_checkpoint_of_the_run(run: RunFolder) -> None:
    whole = load_trained_model(str(run.path), device="cpu")
    file = load_trained_model(run.checkpoints / "best_model.pt", device="cpu")
    assert whole.checkpoint == file.checkpoint
    assert file.folder is not None
    assert file.folder.path == run.path


def test_a_run_that_was_moved_is_loaded(run: RunFolder, tmp_path: Path) -> None:
    moved = tmp_path / "another place"
    run.path.rename(moved)
    trained = load_trained_model(moved, device="cpu")
    assert trained.folder is not None
    assert trained.folder.path == moved


def test_a_checkpoint_outside_of_a_run_has_no_folder_and_no_calibration(run: RunFolder, tmp_path: Path) -> None:
    calibrate(run, digest(run.checkpoints / "best_model.pt"))
    shutil.copy(run.checkpoints / "best_model.pt", tmp_path / "copied.pt")
    trained = load_trained_model(tmp_path / "copied.pt", device="cpu")
    assert (trained.folder, trained.calibration) == (None, None)


def test_the_running_mean_of_a_training_state_is_loaded_if_there_is_one(tmp_path: Path) -> None:
    settings = make_settings()
    model = config.make(settings["model"], FireSegmentationModel)
    mean = AveragedModel(model, use_buffers=True)
    mean.update_parameters(model)
    averaged = {key: value.clone() for key, value in mean.module.state_dict().items()}
    state = make_checkpoint(settings, seed=1) | {"optimizer": {}, "mean": mean.state_dict()}
    run = write_run(tmp_path, content=state)
    loaded = load_trained_model(run.path, device="cpu").model.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in averaged.items())
    torch.save(state | {"mean": None}, run.checkpoints / "best_model.pt")
    loaded = load_trained_model(run.path, device="cpu").model.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state["model"].items())


def test_a_calibration_is_used_for_its_own_checkpoint_only(run: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    best, final = run.checkpoints / "best_model.pt", run.checkpoints / "final_model.pt"
    calibration = calibrate(run, digest(best))
    torch.save(torch.load(best, weights_only=True) | {"epoch": 4}, final)
    assert load_trained_model(run.path, device="cpu").calibration == calibration
    assert caplog.records == []
    assert load_trained_model(final, device="cpu").calibration is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert str(run.calibration) in record.getMessage()
    assert digest(best)[:12] in record.getMessage()


def test_threads_are_set_only_if_given(run: RunFolder) -> None:
    before = torch.get_num_threads()
    try:
        load_trained_model(run.path, device="cpu")
        assert torch.get_num_threads() == before
        load_trained_model(run.path, device="cpu", threads=before + 1)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_a_checkpoint_given_by_its_bare_name_belongs_to_its_run(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.checkpoints)
    trained = load_trained_model("best_model.pt")
    assert trained.folder is not None
    assert trained.folder.path == run.path.resolve()


def test_an_unavailable_device_is_named(run: RunFolder) -> None:
    name = "mps" if not torch.backends.mps.is_available() else "cuda"
    with pytest.raises(SettingError, match=f"--device: {name}"):
        load_trained_model(run.path, device=name)


def test_a_run_in_mlflow_is_loaded_by_its_uri(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_logits_of_a_batch_are_those_of_the_model(run: RunFolder) -> None:
    trained = load_trained_model(run.path, device="cpu")
    image = torch.rand(2, 3, 64, 96)
    torch.testing.assert_close(trained.predict_logits(image), trained.model(image), atol=1e-5, rtol=1e-5)


def test_a_batch_that_does_not_fit_in_memory_names_the_option_to_lower(run: RunFolder) -> None:
    class Full(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError

    trained = load_trained_model(run.path, device="cpu")
    trained.model.network = Full()
    with pytest.raises(SettingError, match=r"--batch-size: 2 images of 64 x 96 .*--device cpu"):
        trained.predict_logits(torch.rand(2, 3, 64, 96))


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_a_run_folder_stands_for_its_best_checkpoint_else_the_final_else_the_last(tmp_path: Path) -> None:
    for name in ("last.pt", "final_model.pt", "best_model.pt"):
        path = touch(tmp_path / "checkpoints" / name)
        assert find_checkpoint(tmp_path) == find_checkpoint(tmp_path / "checkpoints") == find_checkpoint(path) == path


def test_a_missing_path_is_reported_with_the_nearest_name(tmp_path: Path) -> None:
    touch(tmp_path / "del_unet_resnet34" / "config.json")
    fault = load_error(tmp_path / "del_unet_resnet")
    assert "no such run folder or checkpoint (did you mean 'del_unet_resnet34'?)" in fault
    assert "outputs/" in load_error(tmp_path / "none" / "of" / "it")


def test_a_folder_of_runs_is_reported_with_one_of_them(tmp_path: Path) -> None:
    for run in ("a", "b"):
        touch(tmp_path / run / "checkpoints" / "last.pt")
    fault = load_error(tmp_path)
    assert "a folder of 2 runs" in fault
    assert f"use them as one model with {tmp_path}/a,{tmp_path}/b, or name one" in fault
    assert fault.endswith(f"{tmp_path}/b")


def test_a_run_without_a_checkpoint_is_reported(tmp_path: Path) -> None:
    touch(tmp_path / "config.json")
    fault = load_error(tmp_path)
    assert "a run without a checkpoint" in fault
    assert fault.endswith(f"resume={tmp_path}")


def test_a_folder_of_patches_is_reported(tmp_path: Path) -> None:
    touch(tmp_path / "train" / "a_image.npy")
    assert "a folder of patches or tiles" in load_error(tmp_path)


def test_any_other_folder_is_reported_with_the_names_that_are_expected(tmp_path: Path) -> None:
    assert "best_model.pt, final_model.pt, last.pt" in load_error(tmp_path)


@pytest.mark.parametrize(
    "keys", [("model",), ("task",), ("model", "encoder"), ("model", "weights"), ("model", "bands"), ("task", "name")]
)
def test_a_crafted_target_in_model_or_task_is_rejected(
    hollow: dict[str, Any], keys: tuple[str, ...], tmp_path: Path, canary: Path
) -> None:
    node = hollow["config"]
    for key in keys[:-1]:
        node = node[key]
    node[keys[-1]] = command(canary)
    fault = load_error(save(tmp_path / "best_model.pt", hollow))
    assert fault.startswith(".".join(keys))
    assert ("plain value" if keys[1:] else "os.system") in fault
    assert not canary.exists()


@pytest.mark.parametrize(
    "keys", [("loss",), ("tracker",), ("data", "augment"), ("data", "augment", "steps"), ("scheduler",), ("resume",)]
)
def test_targets_of_other_nodes_are_neither_checked_nor_built(
    content: dict[str, Any], keys: tuple[str, ...], tmp_path: Path, canary: Path
) -> None:
    node = content["config"]
    for key in keys[:-1]:
        if not isinstance(node.get(key), dict):
            node[key] = {}
        node = node[key]
    node[keys[-1]] = command(canary)
    assert load_trained_model(save(tmp_path / "best_model.pt", content), device="cpu").epoch == 3
    assert not canary.exists()


@pytest.mark.parametrize(
    "target",
    [
        "builtins.exec",
        "subprocess.Popen",
        "os.path.os.system",
        "fireseg.task.os.system",
        "fireseg.model.weights.read_weights",
        "hydra.utils.instantiate",
        "fireseg.task.Task",
        ["os.system"],
        {"_target_": "os.system"},
        None,
    ],
)
def test_a_model_is_built_only_by_a_target_in_conf(
    hollow: dict[str, Any], target: Any, tmp_path: Path, canary: Path
) -> None:
    hollow["config"]["model"]["_target_"] = target
    assert "_target_" in load_error(save(tmp_path / "best_model.pt", hollow))
    assert not canary.exists()


def test_a_model_inside_the_settings_of_a_model_is_not_built(
    hollow: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hollow["config"]["model"]["encoder"] = dict(hollow["config"]["model"])
    monkeypatch.setattr("fireseg.runs.load.make", pytest.fail)
    assert load_error(save(tmp_path / "best_model.pt", hollow)).startswith("model.encoder: ")


@pytest.mark.parametrize("encoder", ["tu-hf-hub:somebody/evil", "tu-local-dir:/tmp", "tu-../../evil", "resnet34/../x"])
def test_an_encoder_is_never_fetched_from_an_arbitrary_source(
    hollow: dict[str, Any], encoder: str, tmp_path: Path
) -> None:
    hollow["config"]["model"]["encoder"] = encoder
    assert "model.encoder" in load_error(save(tmp_path / "best_model.pt", hollow))


def test_initial_weights_named_in_the_settings_are_not_read(content: dict[str, Any], tmp_path: Path) -> None:
    content["config"]["model"]["weights"] = str(tmp_path / "gone.pt")
    assert load_trained_model(save(tmp_path / "best_model.pt", content), device="cpu").epoch == 3


class _CraftedPickle:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("location", ["whole", "config", "model", "epoch"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_would_execute_code_is_rejected(
    hollow: dict[str, Any], location: str, protocol: int, tmp_path: Path, canary: Path
) -> None:
    for number, call in enumerate(
        [(Path.touch, canary), (exec, f"open({str(canary)!r}, 'w')"), (open, str(canary), "w")]
    ):
        payload = _CraftedPickle(*call)
        crafted = payload if location == "whole" else {**hollow, location: payload}
        path = tmp_path / f"{number}.pt"
        torch.save(crafted, path, pickle_protocol=protocol)
        assert "not a readable checkpoint" in load_error(path)
        assert not canary.exists()
    pickle.loads(pickle.dumps(_CraftedPickle(open, str(canary), "w"))).close()
    assert canary.exists(), "the crafted pickle itself does nothing"


def test_a_bare_pickle_or_a_legacy_format_is_not_read(tmp_path: Path, canary: Path) -> None:
    path = tmp_path / "best_model.pt"
    path.write_bytes(pickle.dumps(_CraftedPickle(open, str(canary), "w")))
    assert load_error(path).startswith("not a checkpoint of fireseg")
    torch.save({"a": _CraftedPickle(open, str(canary), "w")}, path, _use_new_zipfile_serialization=False)
    assert load_error(path).startswith("not a checkpoint of fireseg")
    assert not canary.exists()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_code_in_the_archive_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "best_model.pt"
    torch.jit.script(torch.nn.Linear(1, 1)).save(path)
    assert "not a readable checkpoint" in load_error(path)


def test_a_crafted_config_json_is_not_read(content: dict[str, Any], tmp_path: Path, canary: Path) -> None:
    run = write_run(tmp_path / "run", content=content)
    whole = load_trained_model(run.path, device="cpu")
    run.config.write_text(json.dumps({key: command(canary) for key in content["config"]}))
    again = load_trained_model(run.path, device="cpu")
    assert again.settings == whole.settings
    assert not canary.exists()


def _set(*path_and_value: Any) -> Craft:
    def craft(content: dict[str, Any]) -> None:
        node = content
        for step in path_and_value[:-2]:
            node = node[step]
        node[path_and_value[-2]] = path_and_value[-1]

    return craft


def _drop(name: str) -> Craft:
    return lambda content: content.pop(name)


def _circle(hollow: dict[str, Any]) -> None:
    circle: dict[str, Any] = {}
    circle |= {"a": circle, "b": circle}
    hollow["config"]["extra"] = circle


def _deep(content: dict[str, Any]) -> None:
    for _ in range(30):
        content["config"]["extra"] = {"a": content["config"].get("extra")}


@pytest.mark.parametrize(
    ("craft", "words"),
    [
        (_drop("config"), "weights without settings"),
        (_drop("model"), "weights without settings"),
        (_drop("fingerprint"), "fingerprint: "),
        (_set("format", 2), "format: "),
        (_set("epoch", -1), "epoch: "),
        (_set("val/fire_iou", "high"), "val/fire_iou: "),
        (_set("config", "text"), "config: "),
        (_set("config", {}), "task: missing"),
        (_set("config", "model", None), "model: missing"),
        (_set("config", "model", "arch", "yolo"), "model.arch: 'yolo'"),
        (_set("config", "model", "evil", 1), "model.evil: "),
        (_set("config", "task", "num_classes", 3), "task.class_names: "),
        (_set("config", "seed", torch.zeros(1)), "seed: a Tensor"),
        (_set("config", "model", "num_classes", 2**100), "model.num_classes: "),
        (_set("class_names", ["a", "b"]), "class_names: a b, but background fire"),
        (_set("bands", ["B02"]), "bands: B02, but B02 B03"),
        (_set("model", "mean", "zero"), "model.mean: "),
        (_set("model", "mean", torch.zeros(3)), "weights that do not match its settings"),
        (_set("model", {}), "weights that do not match its settings"),
        (_set("mean", {"module.a": torch.zeros(3)}), "weights that do not match its settings"),
        (_set("config", "extra", [0] * 20_000), "settings: more than"),
        (_circle, "a dict, but"),
        (_deep, "a dict, but"),
    ],
)
def test_an_inconsistent_checkpoint_is_reported_with_its_cause(
    hollow: dict[str, Any], craft: Craft, words: str, tmp_path: Path
) -> None:
    craft(hollow)
    with pytest.raises(FiresegError) as caught:
        load_trained_model(save(tmp_path / "best_model.pt", hollow), device="cpu")
    assert f"best_model.pt: {words}" in str(caught.value) or words in caught.value.faults[0]
    assert len(caught.value.faults) <= 8
    assert all(fault.startswith(f"{tmp_path / 'best_model.pt'}: ") for fault in caught.value.faults)


def test_another_file_type_is_named(content: dict[str, Any], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", content=content)
    assert load_error(run.config).startswith("a JSON file")
    assert load_error(write_raster(tmp_path / "scene.tif", make_reflectance())).startswith("a raster")
    (tmp_path / "empty.pt").touch()
    assert load_error(tmp_path / "empty.pt").startswith("empty")
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    assert "not a readable checkpoint" in load_error(tmp_path / "arrays.npz")
    assert "contains a list" in load_error(save(tmp_path / "list.pt", [1, 2]))
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({"config": {}}))
    assert "not a readable checkpoint" in load_error(tmp_path / "zip.pt")


def test_a_truncated_checkpoint_is_reported(content: dict[str, Any], tmp_path: Path) -> None:
    run: RunFolder = write_run(tmp_path / "run", content=content)
    whole = (run.checkpoints / "best_model.pt").read_bytes()
    path = tmp_path / "cut.pt"
    for share in (0.001, 0.3, 0.9, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        assert "not a readable checkpoint" in load_error(path)


def test_a_pickle_with_any_byte_changed_is_read_or_rejected_and_never_crashes(
    hollow: dict[str, Any], tmp_path: Path
) -> None:
    path, rng = save(tmp_path / "best_model.pt", hollow), np.random.default_rng(0)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in files if name.endswith("data.pkl"))
    num_rejected = 0
    for _ in range(300):
        damaged = bytearray(files[name])
        damaged[rng.integers(len(damaged))] = rng.integers(256)
        with zipfile.ZipFile(path, "w") as archive:
            for each, data in files.items():
                archive.writestr(each, bytes(damaged) if each == name else data)
        try:
            read_checkpoint(path)
        except FiresegError:
            num_rejected += 1
    assert num_rejected > 100
