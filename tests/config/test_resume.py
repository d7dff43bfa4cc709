"""A resumed run stays the experiment that it is, but for what may change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fireseg.config import preflight

Faults = Callable[..., list[str]]

WAY_OUT = "resume: a run that goes on stays the experiment that it is; for a new one leave resume out"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run of resnet18 at a learning rate of its own, tracked by W&B."""
    monkeypatch.chdir(tmp_path)
    settings = preflight(["model.encoder=resnet18", "optimizer.lr=3e-3", "tracker=wandb", "engine.epochs=7"]).settings
    checkpoints = tmp_path / "outputs/a/checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints.parent / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    torch.save({"config": settings}, checkpoints / "last.pt")
    return "outputs/a"


def read(run: str) -> dict[str, Any]:
    return json.loads((Path(run) / "config.json").read_text(encoding="utf-8"))


def settle(*argv: str) -> dict[str, Any]:
    settings = preflight(argv).settings
    assert settings is not None
    return settings


def test_every_setting_is_that_of_the_run(run: str) -> None:
    assert settle(f"resume={run}") == {**read(run), "resume": run}


def test_a_checkpoint_of_a_run_stands_for_it(run: str) -> None:
    path = f"{run}/checkpoints/last.pt"
    assert settle(f"resume={path}") == {**read(run), "resume": path}


def test_a_checkpoint_alone_brings_its_settings(run: str) -> None:
    Path("alone.pt").write_bytes((Path(run) / "checkpoints/last.pt").read_bytes())
    assert settle("resume=alone.pt")["model"] == read(run)["model"]


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
def test_what_does_not_make_another_experiment_may_change(
    run: str, word: str, place: tuple[str, ...], value: Any
) -> None:
    found: Any = settle(f"resume={run}", word)
    expected = read(run)
    for step in place:
        found = found[step]
    assert found == value
    assert settle(f"resume={run}", word)["optimizer"] == expected["optimizer"]


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("model.encoder=resnet34", "model.encoder: resnet18 in outputs/a, resnet34 asked for"),
        ("model/encoder=resnet34", "model.encoder: resnet18 in outputs/a, resnet34 asked for"),
        ("model.arch=unetplusplus", "model.arch: unet in outputs/a, unetplusplus asked for"),
        ("data.bands=[B04]", "data.bands: [B02,B03,B04,B08,B8A,B11,B12] in outputs/a, [B04] asked for"),
    ],
)
def test_another_model_is_refused_with_the_difference(faults: Faults, run: str, word: str, line: str) -> None:
    assert faults(f"resume={run}", word) == [line, WAY_OUT]


def test_another_task_is_refused_with_all_differences(faults: Faults, run: str) -> None:
    names = "[no_damage,negligible,moderate,high,destroyed]"
    assert faults(f"resume={run}", "task=gra") == [
        "task.name: del in outputs/a, gra asked for",
        "task.num_classes: 2 in outputs/a, 5 asked for",
        f"task.class_names: [background,fire] in outputs/a, {names} asked for",
        f"{WAY_OUT} and write model.weights=outputs/a to start from its weights",
    ]


@pytest.mark.parametrize("word", ["optimizer.lr=1e-2", "engine.limit_batches=3", "seed=5", "data/augment=none"])
def test_another_training_is_refused_with_a_warm_start_as_the_way_out(faults: Faults, run: str, word: str) -> None:
    assert faults(f"resume={run}", word)[-1] == f"{WAY_OUT} and write model.weights=outputs/a to start from its weights"


def test_what_the_run_says_anyway_may_be_typed_again(faults: Faults, run: str) -> None:
    words = ["model.encoder=resnet18", "task=del", "optimizer.lr=0.003", "engine.epochs=7", "tracker=wandb"]
    assert faults(f"resume={run}", *words) == []


def test_a_recipe_typed_again_leaves_the_run_its_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = settle("experiment=sample_quick", "tracker=wandb", "engine.epochs=3")
    (tmp_path / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    found = settle("resume=.", "experiment=sample_quick")
    assert (found["tracker"], found["engine"]) == (settings["tracker"], settings["engine"])


def test_a_recipe_that_contradicts_the_run_is_refused(faults: Faults, run: str) -> None:
    assert "model.encoder: resnet18 in outputs/a, resnet34 asked for" in faults(
        f"resume={run}", "experiment=warmup_cosine"
    )


def test_wrong_values_beside_resume_are_found_with_the_rest(faults: Faults, run: str) -> None:
    assert faults(f"resume={run}", "engine.epochs=-9", "model.encodr=x") == [
        "model.encodr: no such setting (did you mean 'encoder'?)",
        "engine.epochs: -9, but it must be greater than 0",
    ]


def test_settings_somebody_made_up_call_nothing(faults: Faults, run: str) -> None:
    settings = read(run)
    settings["data"]["maker"] = {"_target_": "os.system", "command": "ls"}
    (Path(run) / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    assert faults(f"resume={run}") == [
        "outputs/a/config.json: data.maker._target_: os.system, but conf/ offers no such thing here"
    ]


@pytest.mark.parametrize(
    ("path", "content", "fault"),
    [
        ("outputs/b", None, "resume: outputs/b: no such run folder or checkpoint file"),
        ("outputs", None, "resume: outputs has no config.json; name the folder of a run"),
        ("outputs/a", "{", "resume: outputs/a/config.json cannot be read (Expecting"),
        ("outputs/a", "[]", "resume: outputs/a/config.json holds no settings"),
    ],
)
def test_a_run_that_cannot_be_read_is_one_line(
    faults: Faults, run: str, path: str, content: str | None, fault: str
) -> None:
    if content is not None:
        (Path(run) / "config.json").write_text(content, encoding="utf-8")
    assert [line[: len(fault)] for line in faults(f"resume={path}")] == [fault]


def test_a_checkpoint_without_settings_is_told(faults: Faults, run: str) -> None:
    torch.save({"weights": torch.zeros(1)}, "other.pt")
    Path("text.pt").write_text("no checkpoint", encoding="utf-8")
    assert faults("resume=other.pt")[0].startswith("resume: other.pt holds no settings")
    assert faults("resume=text.pt")[0].startswith("resume: text.pt: not a readable checkpoint")
