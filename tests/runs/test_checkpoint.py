"""Checkpoints that somebody made up, or that are none at all: nothing in them runs."""

from __future__ import annotations

import copy
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fireseg.errors import FiresegError
from fireseg.runs import load_trained_model
from fireseg.runs.folder import RunFolder
from fireseg.runs.load import read_checkpoint
from tests.look_alike_run import make_checkpoint, make_settings, write_run
from tests.tiles.builders import make_reflectance, write_raster

Craft = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return make_checkpoint(make_settings())


@pytest.fixture
def content(made: dict[str, Any]) -> dict[str, Any]:
    """A whole checkpoint."""
    return copy.deepcopy(made)


@pytest.fixture
def hull(made: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint whose weights are not there: it has to be refused before they are missed, or for that."""
    return copy.deepcopy({**made, "model": {"mean": made["model"]["mean"]}})


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file that is there as soon as anything crafted below runs."""
    return tmp_path / "canary"


def refuse(path: Path) -> str:
    """The one clear line that names the file."""
    with pytest.raises(FiresegError) as caught:
        load_trained_model(path, device="cpu")
    (fault,) = caught.value.faults
    assert fault.startswith(f"{path}: ")
    assert len(fault.splitlines()) == 1
    return fault.removeprefix(f"{path}: ")


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def command(canary: Path) -> dict[str, Any]:
    return {"_target_": "os.system", "command": f"touch {canary}"}


@pytest.mark.parametrize(
    "place",
    [
        ("model",),
        ("task",),
        ("loss",),
        ("tracker",),
        ("model", "encoder"),
        ("model", "weights"),
        ("model", "bands"),
        ("task", "name"),
        ("data", "augment"),
        ("data", "augment", "steps", 0),
        ("scheduler",),
        ("resume",),
    ],
)
def test_settings_that_name_something_to_run_are_refused(
    hull: dict[str, Any], place: tuple[Any, ...], tmp_path: Path, canary: Path
) -> None:
    node = hull["config"]
    for step in place[:-1]:
        if isinstance(step, str) and not isinstance(node.get(step), dict):
            node[step] = [None] if step == "steps" else {}
        node = node[step]
    node[place[-1]] = command(canary)
    line = refuse(save(tmp_path / "best_model.pt", hull))
    wanted = "builds something, but a plain value" if place[0] in ("model", "task") and place[1:] else "os.system, but"
    assert line.startswith(".".join(map(str, place)))
    assert wanted in line
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
def test_a_model_is_built_by_what_conf_offers_and_nothing_else(
    hull: dict[str, Any], target: Any, tmp_path: Path, canary: Path
) -> None:
    hull["config"]["model"]["_target_"] = target
    assert "_target_" in refuse(save(tmp_path / "best_model.pt", hull))
    assert not canary.exists()


def test_a_model_within_the_settings_of_a_model_is_not_built(
    hull: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hull["config"]["model"]["encoder"] = dict(hull["config"]["model"])
    monkeypatch.setattr("fireseg.runs.load.make", pytest.fail)
    assert refuse(save(tmp_path / "best_model.pt", hull)).startswith("model.encoder: builds something")


@pytest.mark.parametrize("encoder", ["tu-hf-hub:somebody/evil", "tu-local-dir:/tmp", "tu-../../evil", "resnet34/../x"])
def test_an_encoder_is_not_fetched_from_anywhere(hull: dict[str, Any], encoder: str, tmp_path: Path) -> None:
    hull["config"]["model"]["encoder"] = encoder
    assert "model.encoder" in refuse(save(tmp_path / "best_model.pt", hull))


def test_weights_that_the_settings_name_are_not_read(content: dict[str, Any], tmp_path: Path) -> None:
    content["config"]["model"]["weights"] = str(tmp_path / "gone.pt")
    assert load_trained_model(save(tmp_path / "best_model.pt", content), device="cpu").epoch == 3


class _Bomb:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("where", ["whole", "config", "model", "epoch"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_would_run_code_is_refused(
    hull: dict[str, Any], where: str, protocol: int, tmp_path: Path, canary: Path
) -> None:
    for number, call in enumerate(
        [(Path.touch, canary), (exec, f"open({str(canary)!r}, 'w')"), (open, str(canary), "w")]
    ):
        bomb = _Bomb(*call)
        crafted = bomb if where == "whole" else {**hull, where: bomb}
        path = tmp_path / f"{number}.pt"
        torch.save(crafted, path, pickle_protocol=protocol)
        assert "not a readable checkpoint" in refuse(path)
        assert not canary.exists()
    pickle.loads(pickle.dumps(_Bomb(open, str(canary), "w"))).close()
    assert canary.exists(), "the bomb itself is a dud"


def test_a_bare_pickle_or_an_old_format_is_not_even_read(tmp_path: Path, canary: Path) -> None:
    path = tmp_path / "best_model.pt"
    path.write_bytes(pickle.dumps(_Bomb(open, str(canary), "w")))
    assert refuse(path).startswith("no checkpoint of fireseg, but")
    torch.save({"a": _Bomb(open, str(canary), "w")}, path, _use_new_zipfile_serialization=False)
    assert refuse(path).startswith("no checkpoint of fireseg, but")
    assert not canary.exists()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_code_in_the_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "best_model.pt"
    torch.jit.script(torch.nn.Linear(1, 1)).save(path)
    assert "not a readable checkpoint" in refuse(path)


def test_a_config_json_that_was_made_up_is_not_read(content: dict[str, Any], tmp_path: Path, canary: Path) -> None:
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


def _circle(hull: dict[str, Any]) -> None:
    circle: dict[str, Any] = {}
    circle |= {"a": circle, "b": circle}
    hull["config"]["extra"] = circle


def _deep(content: dict[str, Any]) -> None:
    for _ in range(30):
        content["config"]["extra"] = {"a": content["config"].get("extra")}


@pytest.mark.parametrize(
    ("craft", "words"),
    [
        (_drop("config"), "weights that nobody described"),
        (_drop("model"), "weights that nobody described"),
        (_drop("fingerprint"), "fingerprint: "),
        (_set("format", 2), "format: "),
        (_set("epoch", -1), "epoch: "),
        (_set("config", "text"), "config: "),
        (_set("config", {}), "task: no settings of its own"),
        (_set("config", "model", None), "model: no settings of its own"),
        (_set("config", "model", "arch", "yolo"), "model.arch: 'yolo', but it must be one of"),
        (_set("config", "model", "evil", 1), "model.evil: no such setting"),
        (_set("config", "task", "num_classes", 3), "task.class_names: 2 names"),
        (_set("config", "seed", torch.zeros(1)), "seed: a Tensor, but settings are plain values"),
        (_set("config", "model", "num_classes", 2**100), "model.num_classes: "),
        (_set("class_names", ["a", "b"]), "class_names: a b, but background fire in its settings"),
        (_set("bands", ["B02"]), "bands: B02, but B02 B03"),
        (_set("model", "mean", "zero"), "model.mean: no tensor"),
        (_set("model", "mean", torch.zeros(3)), "not the weights of its own settings"),
        (_set("model", {}), "not the weights of its own settings"),
        (_set("mean", {"module.a": torch.zeros(3)}), "not the weights of its own settings"),
        (_set("config", "extra", [0] * 20_000), "settings: far more values"),
        (_circle, "a dict, but settings are plain values"),
        (_deep, "a dict, but settings are plain values"),
    ],
)
def test_what_does_not_hang_together_is_one_clear_line(
    hull: dict[str, Any], craft: Craft, words: str, tmp_path: Path
) -> None:
    craft(hull)
    with pytest.raises(FiresegError) as caught:
        load_trained_model(save(tmp_path / "best_model.pt", hull), device="cpu")
    assert f"best_model.pt: {words}" in str(caught.value) or words in caught.value.faults[0]
    assert len(caught.value.faults) <= 8
    assert all(fault.startswith(f"{tmp_path / 'best_model.pt'}: ") for fault in caught.value.faults)


def test_another_kind_of_file_is_said(content: dict[str, Any], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", content=content)
    assert refuse(run.config).startswith("a JSON file, but a run folder is wanted, or a checkpoint in it")
    assert refuse(write_raster(tmp_path / "scene.tif", make_reflectance())).startswith("a raster, but")
    (tmp_path / "empty.pt").touch()
    assert refuse(tmp_path / "empty.pt").startswith("empty, but")
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    assert "not a readable checkpoint" in refuse(tmp_path / "arrays.npz")
    assert "holds a list" in refuse(save(tmp_path / "list.pt", [1, 2]))
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({"config": {}}))
    assert "not a readable checkpoint" in refuse(tmp_path / "zip.pt")


def test_a_checkpoint_cut_short_or_damaged_anywhere_is_said(content: dict[str, Any], tmp_path: Path) -> None:
    run: RunFolder = write_run(tmp_path / "run", content=content)
    whole = (run.checkpoints / "best_model.pt").read_bytes()
    path = tmp_path / "cut.pt"
    for share in (0.001, 0.3, 0.9, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        assert "not a readable checkpoint" in refuse(path)


def test_a_pickle_with_any_byte_changed_is_read_or_refused_and_never_a_crash(
    hull: dict[str, Any], tmp_path: Path
) -> None:
    path, rng = save(tmp_path / "best_model.pt", hull), np.random.default_rng(0)
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in files if name.endswith("data.pkl"))
    num_refused = 0
    for _ in range(300):
        damaged = bytearray(files[name])
        damaged[rng.integers(len(damaged))] = rng.integers(256)
        with zipfile.ZipFile(path, "w") as archive:
            for each, data in files.items():
                archive.writestr(each, bytes(damaged) if each == name else data)
        try:
            read_checkpoint(path)
        except FiresegError:
            num_refused += 1
    assert num_refused > 100
