"""A tree of settings is held against the signatures of what it builds."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from fireseg.config import check, make
from fireseg.data import WildfireDataModule
from fireseg.data.augment import FireAwareAugmentation
from fireseg.engine import Checkpoints, EarlyStopping
from fireseg.errors import FiresegError, SettingError
from fireseg.task import Task

Settings = dict[str, Any]


def change(settings: Settings, place: str, value: Any) -> Settings:
    """A copy with one value changed."""
    tree = copy.deepcopy(settings)
    *path, last = place.split(".")
    node = tree
    for step in path:
        node = node[step]
    node[last] = value
    return tree


def test_the_settings_of_a_run_have_no_fault_and_are_plain(settings: Settings) -> None:
    assert check(settings) == []
    assert json.loads(json.dumps(settings)) == settings


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        ("engine.epochs", "16", "engine.epochs: '16', but it must be a whole number; write it without quotes"),
        ("engine.epochs", True, "engine.epochs: true, but it must be a whole number"),
        ("engine.epochs", 2.0, "engine.epochs: 2.0, but it must be a whole number"),
        ("engine.epochs", -3, "engine.epochs: -3, but it must be greater than 0"),
        ("engine.device", "gpu", "engine.device: 'gpu', but it must be one of auto, cuda, mps, cpu"),
        ("optimizer.lr", float("inf"), "optimizer.lr: Infinity, but it must be a finite number"),
        ("optimizer.lr", float("nan"), "optimizer.lr: NaN, but it must be a finite number"),
        ("optimizer.betas", [0.9, 2], "optimizer.betas[1]: 2, but it must be less than 1.0"),
        ("data.bands", "B04", "data.bands: 'B04', but it must be a list, as [a,b]; for a list of one write [B04]"),
        ("data.bands", ["B04", "B8"], "data.bands: no band 'B8' (did you mean 'B8A'?)"),
        ("data.root", 5, "data.root: 5, but it must be text; quote it twice for the shell: data.root='\"5\"'"),
        ("data.root", "${x}", "data.root: '${x}' is not resolved; write the value itself"),
        ("data.augment.strong.flip", 2, "data.augment.strong.flip: 2, but it must be less than or equal to 1.0"),
        ("data.augment.standard", None, "data.augment.standard: null, but it must be settings of its own, as in conf/"),
        ("data.seed", 3, "data.seed: comes from the run itself; leave it out"),
        ("data.patches_root", "x", "data.patches_root: no such setting"),
        ("loss.gama", 2, "loss.gama: no such setting (did you mean 'gamma'?)"),
        ("loss._convert_", "all", "loss._convert_: no such setting"),
        ("loss._partial_", True, "loss._partial_: no such setting"),
        ("model.encoder", "resnet43", "model.encoder: no encoder 'resnet43' (did you mean 'resnet34'?)"),
        ("model", "resnet18", "model: 'resnet18', but it must be settings of its own, as in conf/"),
        ("tracker", None, "tracker: null, but it must be settings of its own, as in conf/"),
        ("seed", -1, "seed: -1, but it must be greater than or equal to 0"),
        ("extra", 1, "extra: no such setting"),
    ],
)
def test_a_wrong_value_is_one_fault_in_plain_words(settings: Settings, place: str, value: Any, fault: str) -> None:
    assert [line[: len(fault)] for line in check(change(settings, place, value))] == [fault]


@pytest.mark.parametrize(
    ("place", "value"), [("optimizer.lr", 1), ("scheduler", None), ("data.augment", None), ("engine.clip_norm", None)]
)
def test_what_a_signature_allows_is_no_fault(settings: Settings, place: str, value: Any) -> None:
    assert check(change(settings, place, value)) == []


@pytest.mark.parametrize("target", ["os.system", "fireseg.task.Task", "fireseg.loss", 3, ["os.system"]])
@pytest.mark.parametrize("place", ["loss", "data.augment.strong"])
def test_nothing_is_called_that_conf_does_not_offer_there(settings: Settings, place: str, target: Any) -> None:
    fault = f"{place}._target_: {target}, but conf/ offers no such thing here"
    assert [line[: len(fault)] for line in check(change(settings, f"{place}._target_", target))] == [fault]


def test_settings_that_do_not_say_what_they_build_are_told(settings: Settings) -> None:
    del settings["loss"]["_target_"]
    assert check(settings) == ["loss._target_: missing; it says what is built, as fireseg.loss.create_loss"]


def test_a_made_up_target_is_never_called() -> None:
    with pytest.raises(SettingError, match="conf/ offers no such thing"):
        make({"_target_": "os.getcwd"}, object)


@pytest.mark.parametrize("key", ["task", "loss", "seed", "output_dir"])
def test_a_lost_key_is_told(settings: Settings, key: str) -> None:
    del settings[key]
    assert check(settings) == [f"{key}: missing; every run has it, so leave it in"]


def test_a_lost_setting_without_a_default_is_told(settings: Settings) -> None:
    del settings["data"]["root"]
    assert check(settings) == ["data.root: missing, and nothing stands in for it; give data.root=..."]


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        ("model.in_channels", 3, "model.in_channels: 3, but the number of data.bands is 7"),
        ("model.num_classes", 5, "model.num_classes: 5, but task.num_classes is 2"),
        ("model.bands", ["B02"], "model.bands: [B02], but data.bands is [B02,B03,B04,B08,B8A,B11,B12]"),
        ("task.class_names", ["a", "b", "c"], "task.class_names: 3 names for task.num_classes=2"),
    ],
)
def test_settings_that_contradict_one_another_are_told(settings: Settings, place: str, value: Any, fault: str) -> None:
    assert [line[: len(fault)] for line in check(change(settings, place, value))] == [fault]


def test_a_loss_without_any_part_is_told(settings: Settings) -> None:
    tree = change(change(settings, "loss.ce_weight", 0), "loss.dice_weight", 0.0)
    assert check(tree) == ["loss.ce_weight: 0, and loss.dice_weight is 0 too; one of them must be greater than 0"]


def test_values_arrive_as_their_annotations_have_them(settings: Settings) -> None:
    task = make(settings["task"], Task)
    assert task.class_names == ("background", "fire")


def test_what_only_the_run_knows_is_given(settings: Settings, tmp_path: Path) -> None:
    checkpoints = make(settings["checkpoint"], Checkpoints, folder=tmp_path / "checkpoints")
    assert (checkpoints.folder, checkpoints.every) == (tmp_path / "checkpoints", 5)


def test_a_part_is_built_with_what_is_inside_and_under_its_alias(settings: Settings) -> None:
    data = make(settings["data"], WildfireDataModule, task=make(settings["task"], Task), seed=3)
    assert isinstance(data.augment, FireAwareAugmentation)
    assert (data.patches_root, data.seed) == (Path("patches"), 3)


def test_what_a_part_does_not_take_is_not_given_to_it(settings: Settings) -> None:
    assert make(settings["stopping"], EarlyStopping, epochs=3).patience == 10


def test_another_kind_than_wanted_is_refused(settings: Settings) -> None:
    with pytest.raises(SettingError, match=r"stopping._target_: makes a EarlyStopping, but a Task is wanted"):
        make(settings["stopping"], Task)


def test_a_fault_is_found_before_anything_is_built(settings: Settings) -> None:
    with pytest.raises(SettingError, match=r"stopping.patience: -1, but it must be greater than or equal to 0"):
        make({**settings["stopping"], "patience": -1}, EarlyStopping)


def test_what_a_constructor_says_comes_as_it_was_said(settings: Settings) -> None:
    with pytest.raises(FiresegError, match=r"^task.ignore_index: 1 is one of the classes 0 to 1"):
        make({**settings["task"], "ignore_index": 1}, Task)
