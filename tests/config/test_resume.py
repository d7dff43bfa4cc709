"""A resumed run keeps its settings, except for those that may change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fireseg.config import compose_settings

Faults = Callable[..., list[str]]

WARM_START = "write model.weights=outputs/a"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Writes the folder of a run with resnet18, a learning rate of 3e-3 and W&B."""
    monkeypatch.chdir(tmp_path)
    settings = compose_settings(["model.encoder=resnet18", "optimizer.lr=3e-3", "tracker=wandb", "engine.epochs=7"])
    checkpoints = tmp_path / "outputs/a/checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints.parent / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    torch.save({"config": settings}, checkpoints / "last.pt")
    return "outputs/a"


def read(run: str) -> dict[str, Any]:
    return json.loads((Path(run) / "config.json").read_text(encoding="utf-8"))


def settings_of(*overrides: str) -> dict[str, Any]:
    return compose_settings(overrides)


def test_all_settings_are_those_of_the_run(run: str) -> None:
    assert settings_of(f"resume={run}") == {**read(run), "resume": run}


def test_a_checkpoint_in_a_run_folder_has_the_settings_of_the_run(run: str) -> None:
    path = f"{run}/checkpoints/last.pt"
    assert settings_of(f"resume={path}") == {**read(run), "resume": path}


def test_a_checkpoint_elsewhere_has_its_own_settings(run: str) -> None:
    Path("alone.pt").write_bytes((Path(run) / "checkpoints/last.pt").read_bytes())
    assert settings_of("resume=alone.pt")["model"] == read(run)["model"]


@pytest.mark.parametrize(
    ("word", "place", "value"),
    [
        ("engine.epochs=9", ("engine", "epochs"), 9),
        ("engine.device=cpu", ("engine", "device"), "cpu"),
        ("engine.threads=1", ("engine", "threads"), 1),
        ("data.root=elsewhere", ("data", "root"), "elsewhere"),
        ("data.num_workers=0", ("data", "num_workers"), 0),
        ("stopping.patience=3", ("stopping", "patience"), 3),
        ("checkpoint.keep=5", ("checkpoint", "keep"), 5),
        ("tracker=none", ("tracker",), {"_target_": "fireseg.tracker.create_no_tracker"}),
    ],
)
def test_settings_that_do_not_change_the_experiment_may_change(
    run: str, word: str, place: tuple[str, ...], value: Any
) -> None:
    found: Any = settings_of(f"resume={run}", word)
    expected = read(run)
    for step in place:
        found = found[step]
    assert found == value
    assert settings_of(f"resume={run}", word)["optimizer"] == expected["optimizer"]


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("model.encoder=resnet34", "model.encoder: resnet18 in outputs/a, resnet34 requested"),
        ("model/encoder=resnet34", "model.encoder: resnet18 in outputs/a, resnet34 requested"),
        ("model.arch=unetplusplus", "model.arch: unet in outputs/a, unetplusplus requested"),
        ("data.indices=[NBR]", "data.indices: [] in outputs/a, [NBR] requested"),
        ("data.bands=[B04]", "data.bands: [B02,B03,B04,B08,B8A,B11,B12] in outputs/a, [B04] requested"),
    ],
)
def test_another_model_is_rejected_with_the_difference(faults: Faults, run: str, word: str, line: str) -> None:
    difference, cure = faults(f"resume={run}", word)
    assert difference == line
    assert cure.startswith("resume: ")
    assert "leave out resume" in cure
    assert WARM_START not in cure


def test_another_task_is_rejected_with_all_differences(faults: Faults, run: str) -> None:
    names = "[no_damage,negligible,moderate,high,destroyed]"
    *differences, cure = faults(f"resume={run}", "task=gra")
    assert differences == [
        "task.name: del in outputs/a, gra requested",
        "task.num_classes: 2 in outputs/a, 5 requested",
        f"task.class_names: [background,fire] in outputs/a, {names} requested",
    ]
    assert WARM_START in cure


@pytest.mark.parametrize("word", ["optimizer.lr=1e-2", "engine.limit_batches=3", "seed=5", "data/augment=none"])
def test_other_training_settings_are_rejected_with_a_warm_start_as_the_cure(
    faults: Faults, run: str, word: str
) -> None:
    assert WARM_START in faults(f"resume={run}", word)[-1]


def test_the_settings_of_the_run_may_be_repeated(faults: Faults, run: str) -> None:
    words = ["model.encoder=resnet18", "task=del", "optimizer.lr=0.003", "engine.epochs=7", "tracker=wandb"]
    assert faults(f"resume={run}", *words) == []


def test_a_repeated_recipe_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = settings_of("experiment=sample_quick", "tracker=wandb", "engine.epochs=3")
    (tmp_path / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    found = settings_of("resume=.", "experiment=sample_quick")
    assert (found["tracker"], found["engine"]) == (settings["tracker"], settings["engine"])


def test_a_recipe_is_repeated_for_a_run_of_an_earlier_version_that_lacks_a_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = settings_of("experiment=sample_quick")
    for part in ("data", "model"):
        del settings[part]["indices"]
    (tmp_path / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    assert settings_of("resume=.", "experiment=sample_quick") == {**settings, "resume": "."}


def test_a_recipe_that_contradicts_the_run_is_rejected(faults: Faults, run: str) -> None:
    assert "model.encoder: resnet18 in outputs/a, resnet34 requested" in faults(
        f"resume={run}", "experiment=warmup_cosine"
    )


def test_invalid_settings_beside_resume_are_all_reported(faults: Faults, run: str) -> None:
    found = faults(f"resume={run}", "engine.epochs=-9", "model.encodr=x")
    assert [fault.partition(":")[0] for fault in found] == ["model.encodr", "engine.epochs"]


def test_a_made_up_target_in_a_config_is_never_called(faults: Faults, run: str) -> None:
    settings = read(run)
    settings["data"]["maker"] = {"_target_": "os.system", "command": "ls"}
    (Path(run) / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    (fault,) = faults(f"resume={run}")
    assert fault.startswith("outputs/a/config.json: data.maker._target_: os.system, ")


@pytest.mark.parametrize(
    ("path", "content", "fault"),
    [
        ("outputs/b", None, "resume: outputs/b: no such run folder or checkpoint file"),
        ("outputs", None, "resume: outputs has no config.json; give the folder of a run"),
        ("outputs/a", "{", "resume: outputs/a/config.json cannot be read (Expecting"),
        ("outputs/a", "[]", "resume: outputs/a/config.json has no settings"),
    ],
)
def test_an_unreadable_run_is_reported_in_one_line(
    faults: Faults, run: str, path: str, content: str | None, fault: str
) -> None:
    if content is not None:
        (Path(run) / "config.json").write_text(content, encoding="utf-8")
    assert [line[: len(fault)] for line in faults(f"resume={path}")] == [fault]


def test_a_checkpoint_without_settings_is_reported(faults: Faults, run: str) -> None:
    torch.save({"weights": torch.zeros(1)}, "other.pt")
    Path("text.pt").write_text("no checkpoint", encoding="utf-8")
    assert faults("resume=other.pt")[0].startswith("resume: other.pt has no settings")
    assert faults("resume=text.pt")[0].startswith("resume: text.pt: ")
