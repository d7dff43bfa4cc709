"""Settings are checked against the signatures of what they build."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from fireseg.config import check, compose_settings, make
from fireseg.data import WildfireDataModule
from fireseg.data.augment import FireAwareAugmentation
from fireseg.engine import Checkpoints, EarlyStopping
from fireseg.errors import FiresegError, SettingError
from fireseg.indices import INDICES
from fireseg.task import Task

Settings = dict[str, Any]


def change(settings: Settings, place: str, value: Any) -> Settings:
    """Returns a copy with one value changed."""
    tree = copy.deepcopy(settings)
    *parents, last = place.split(".")
    node = tree
    for step in parents:
        node = node[step]
    node[last] = value
    return tree


def test_default_settings_are_valid_plain_values(settings: Settings) -> None:
    assert check(settings) == []
    assert json.loads(json.dumps(settings)) == settings


@pytest.mark.parametrize(
    ("place", "value", "cure"),
    [
        ("engine.epochs", "16", "write it without quotes"),
        ("engine.epochs", True, "true, but it must be a valid integer"),
        ("engine.epochs", 2.0, "2.0, but it must be a valid integer"),
        ("engine.epochs", -3, "greater than 0"),
        ("engine.device", "gpu", "one of auto, cuda, mps, cpu"),
        ("optimizer.lr", float("inf"), "Infinity, but it must be a finite number"),
        ("optimizer.lr", float("nan"), "NaN, but it must be a finite number"),
        ("optimizer.betas[1]", 2, "less than 1"),
        ("data.bands", "B04", "a list, as [a,b]; for a list of one write [B04]"),
        ("data.bands", ["B04", "B8"], "did you mean 'B8A'?"),
        ("data.indices", ["NDVI", "NBRR"], "no index 'NBRR' (did you mean 'NBR'?)"),
        ("data.indices", ["NBR", "NBR"], "NBR is repeated"),
        ("data.root", 5, "quote it twice for the shell: data.root='\"5\"'"),
        ("data.root", "${x}", "'${x}' is not resolved"),
        ("data.augment.strong.flip", 2, "less than or equal to 1"),
        ("data.augment.standard", None, "as in conf/"),
        ("data.seed", 3, "leave it out"),
        ("data.patches_root", "x", "no such setting"),
        ("loss.gama", 2, "did you mean 'gamma'?"),
        ("loss._convert_", "all", "no such setting"),
        ("loss._partial_", True, "no such setting"),
        ("model.encoder", "resnet43", "did you mean 'resnet34'?"),
        ("model", "resnet18", "as in conf/"),
        ("tracker", None, "as in conf/"),
        ("seed", -1, "greater than or equal to 0"),
        ("extra", 1, "no such setting"),
    ],
)
def test_an_invalid_value_is_one_fault_with_its_cure(settings: Settings, place: str, value: Any, cure: str) -> None:
    if place == "optimizer.betas[1]":
        tree = change(settings, "optimizer.betas", [0.9, value])
    else:
        tree = change(settings, place, value)
    (fault,) = check(tree)
    assert fault.startswith(f"{place}: ")
    assert cure in fault


@pytest.mark.parametrize(
    ("place", "value"), [("optimizer.lr", 1), ("scheduler", None), ("data.augment", None), ("engine.clip_norm", None)]
)
def test_values_that_a_signature_allows_are_valid(settings: Settings, place: str, value: Any) -> None:
    assert check(change(settings, place, value)) == []


@pytest.mark.parametrize("target", ["os.system", "fireseg.task.Task", "fireseg.loss", 3, ["os.system"]])
@pytest.mark.parametrize("place", ["loss", "data.augment.strong"])
def test_a_target_that_conf_does_not_use_there_is_rejected(settings: Settings, place: str, target: Any) -> None:
    (fault,) = check(change(settings, f"{place}._target_", target))
    assert fault.startswith(f"{place}._target_: {target}, ")
    assert "conf/" in fault


def test_a_missing_target_is_reported_with_an_example(settings: Settings) -> None:
    del settings["loss"]["_target_"]
    (fault,) = check(settings)
    assert fault.startswith("loss._target_: missing")
    assert "fireseg.loss.create_loss" in fault


def test_a_made_up_target_is_never_called() -> None:
    with pytest.raises(SettingError, match=r"_target_: os.getcwd.*conf/"):
        make({"_target_": "os.getcwd"}, object)


@pytest.mark.parametrize("key", ["task", "loss", "seed", "output_dir"])
def test_a_missing_key_is_reported(settings: Settings, key: str) -> None:
    del settings[key]
    (fault,) = check(settings)
    assert fault.startswith(f"{key}: missing")


def test_a_missing_setting_without_a_default_is_reported(settings: Settings) -> None:
    del settings["data"]["root"]
    (fault,) = check(settings)
    assert fault.startswith("data.root: missing")
    assert "give data.root=" in fault


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        ("model.in_channels", 3, "model.in_channels: 3, but the number of data.bands is 7"),
        ("model.num_classes", 5, "model.num_classes: 5, but task.num_classes is 2"),
        ("model.bands", ["B02"], "model.bands: [B02], but data.bands is [B02,B03,B04,B08,B8A,B11,B12]"),
        ("model.indices", ["NBR"], "model.indices: [NBR], but data.indices is []; set data.indices"),
        ("task.class_names", ["a", "b", "c"], "task.class_names: 3 names for task.num_classes=2"),
    ],
)
def test_settings_that_contradict_each_other_are_reported(
    settings: Settings, place: str, value: Any, fault: str
) -> None:
    assert [line[: len(fault)] for line in check(change(settings, place, value))] == [fault]


def test_bands_that_indices_need_are_reported_beside_all_other_faults(settings: Settings) -> None:
    tree = change(change(settings, "data.indices", ["NBR", "NBRR", "BAIS2"]), "data.bands", ["B04", "B12"])
    assert [fault.partition(", but data.bands")[0] for fault in check(tree)] == [
        "data.indices: no index 'NBRR' (did you mean 'NBR'?); use " + ", ".join(INDICES),
        "data.indices: NBR needs B08 or B8A",
        "data.indices: BAIS2 needs B06 and B07 and B8A",
    ]


def test_the_bands_of_an_augmentation_are_those_of_the_data() -> None:
    settings = compose_settings(["data/augment=radiometric", "data.bands=[B08,B12]"])
    assert settings["data"]["augment"]["bands"] == ["B08", "B12"]
    (fault,) = check(change(settings, "data.augment.bands", ["B12", "B08"]))
    assert fault.startswith("data.augment.bands: [B12,B08], but data.bands is [B08,B12]; set data.bands and leave out")


def test_a_loss_without_any_part_is_reported(settings: Settings) -> None:
    (fault,) = check(change(change(settings, "loss.ce_weight", 0), "loss.dice_weight", 0.0))
    assert fault.startswith("loss.ce_weight, loss.dice_weight, loss.tversky_weight")
    assert not check(change(change(settings, "loss.ce_weight", 0), "loss.tversky_weight", 0.5))
    assert "greater than 0" in fault


def test_values_are_converted_to_their_annotations(settings: Settings) -> None:
    task = make(settings["task"], Task)
    assert task.class_names == ("background", "fire")


def test_arguments_of_the_run_are_passed(settings: Settings, tmp_path: Path) -> None:
    checkpoints = make(settings["checkpoint"], Checkpoints, folder=tmp_path / "checkpoints")
    assert (checkpoints.folder, checkpoints.every) == (tmp_path / "checkpoints", 5)


def test_inner_objects_are_built_and_aliases_are_resolved(settings: Settings) -> None:
    data = make(settings["data"], WildfireDataModule, task=make(settings["task"], Task), seed=3)
    assert isinstance(data.augment, FireAwareAugmentation)
    assert (data.patches_root, data.seed) == (Path("patches"), 3)


def test_arguments_that_a_part_does_not_take_are_left_out(settings: Settings) -> None:
    assert make(settings["stopping"], EarlyStopping, epochs=3).patience == 10


def test_an_object_of_another_type_is_rejected(settings: Settings) -> None:
    with pytest.raises(SettingError, match=r"stopping._target_: .*EarlyStopping.*Task"):
        make(settings["stopping"], Task)


def test_make_checks_before_it_builds(settings: Settings) -> None:
    with pytest.raises(SettingError, match=r"stopping.patience: -1.*greater than or equal to 0"):
        make({**settings["stopping"], "patience": -1}, EarlyStopping)


def test_an_error_of_a_constructor_is_passed_on(settings: Settings) -> None:
    with pytest.raises(FiresegError, match=r"^task.ignore_index: 1"):
        make({**settings["task"], "ignore_index": 1}, Task)


def test_a_pair_gives_the_model_the_bands_before_the_fire_behind_the_others() -> None:
    words = ["data.bands=[B08,B12]", "data.pre=true", "data.indices=[dNBR]", "data/augment=radiometric"]
    settings = compose_settings(words)
    bands = ["B08", "B12", "B08_PRE", "B12_PRE"]
    assert (settings["model"]["bands"], settings["model"]["in_channels"]) == (bands, 4)
    assert settings["data"]["augment"]["bands"] == bands
    assert settings["data"]["augment"]["base"]["strong"]["pre"] is True
    assert check(settings) == []


def test_an_index_of_change_without_a_pair_is_one_fault_with_its_cure() -> None:
    with pytest.raises(
        SettingError, match=r"data.indices: RBR needs B08_PRE or B8A_PRE .*; set data.pre=true"
    ) as caught:
        compose_settings(["data.indices=[RBR]"])
    assert len(caught.value.faults) == 1


def test_a_wrong_value_of_the_pair_is_one_fault() -> None:
    with pytest.raises(SettingError) as caught:
        compose_settings(["data.pre=yes please"])
    assert [fault.partition(":")[0] for fault in caught.value.faults] == ["data.pre"]
