"""All files of conf/ compose to valid settings, and name each parameter of what they build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fireseg.config import CONF_DIR, compose_settings, preflight
from fireseg.config.schema import PARTS, read_signature
from fireseg.errors import SettingError
from fireseg.model.encoders import ENCODERS

FILES = sorted(path.relative_to(CONF_DIR).with_suffix("") for path in CONF_DIR.rglob("*.yaml"))
CHOICES = [path for path in FILES if len(path.parts) > 1 and path.parts[0] not in ("hydra", "sweep")]
ONE_KEY = [path for path in CHOICES if path.parent.as_posix() in ("model/arch", "model/encoder")]


REQUIRED = {"loss=ordinal": ("task=gra",)}
"""Further overrides that a choice requires."""


def override_of(path: Path) -> str:
    return f"{path.parent.as_posix()}={path.name}"


def settings_of(*overrides: str) -> dict[str, Any]:
    return compose_settings(overrides)


@pytest.mark.parametrize("path", CHOICES, ids=override_of)
def test_each_choice_gives_valid_settings(path: Path) -> None:
    override = override_of(path)
    assert settings_of(override, *REQUIRED.get(override, ()))


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.parts[0] == "sweep" and path.stem != "search"], ids=override_of
)
def test_each_sweep_has_valid_jobs(path: Path) -> None:
    assert len(preflight([override_of(path)]).jobs) > 1


def test_the_robust_recipe_has_indices_in_each_of_three_seeds() -> None:
    jobs = preflight(["experiment=robust", "sweep=seeds", "data=sample"]).jobs
    assert len(jobs) == 3
    assert settings_of("experiment=robust")["model"]["indices"] == ["NBR", "NDVI", "NDWI", "BAI"]


@pytest.mark.parametrize("path", CHOICES, ids=override_of)
def test_each_parameter_can_be_set_without_a_plus(path: Path) -> None:
    override = override_of(path)
    settings = settings_of(override, *REQUIRED.get(override, ()))
    for key, part in PARTS.items():
        if settings[key] is not None:
            signature = read_signature(settings[key]["_target_"])
            settable = {name for name, setting in signature.items() if setting.parameter not in part.given}
            assert set(settings[key]) - {"_target_"} == settable


@pytest.mark.parametrize("path", ONE_KEY, ids=override_of)
def test_files_of_arch_and_encoder_have_one_key_named_like_the_folder(path: Path) -> None:
    text = (CONF_DIR / f"{path}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# @package model\n")
    assert yaml.safe_load(text) == {path.parent.name: path.name}


@pytest.mark.parametrize("path", ONE_KEY, ids=override_of)
def test_choice_and_value_give_the_same_settings(path: Path) -> None:
    assert settings_of(override_of(path)) == settings_of(f"model.{path.parent.name}={path.name}")


def test_there_is_a_file_for_each_known_encoder() -> None:
    assert {path.name for path in ONE_KEY if path.parent.name == "encoder"} == set(ENCODERS)


def test_default_settings() -> None:
    settings = settings_of()
    model, data, loss, engine = settings["model"], settings["data"], settings["loss"], settings["engine"]
    assert (settings["task"]["name"], model["arch"], model["encoder"], model["weights"]) == (
        "del",
        "unet",
        "resnet34",
        "imagenet",
    )
    assert (loss["ce_weight"], loss["dice_weight"], loss["class_weights"], loss["weight_cap"]) == (0.5, 0.5, True, 20)
    assert (settings["optimizer"]["lr"], settings["optimizer"]["weight_decay"]) == (1e-4, 1e-4)
    assert (settings["scheduler"]["factor"], settings["scheduler"]["patience"]) == (0.5, 5)
    assert (engine["epochs"], engine["device"], engine["clip_norm"]) == (50, "auto", 1.0)
    assert (data["batch_size"], data["weighted_sampling"], data["fire_weight"]) == (16, False, 5.0)
    assert data["augment"]["_target_"].endswith("FireAwareAugmentation")
    assert (settings["stopping"]["patience"], settings["checkpoint"]["every"], settings["checkpoint"]["keep"]) == (
        10,
        5,
        2,
    )
    assert (model["in_channels"], model["num_classes"], model["bands"]) == (7, 2, data["bands"])


def test_the_model_has_the_bands_and_classes_of_data_and_task() -> None:
    model = settings_of("task=gra", "data.bands=[B04,B08]")["model"]
    assert (model["in_channels"], model["num_classes"], model["bands"]) == (2, 5, ["B04", "B08"])


@pytest.mark.parametrize("override", ["loss=ordinal", "loss.soft_labels=1.0"])
def test_losses_of_ordered_classes_need_more_than_two(override: str) -> None:
    with pytest.raises(SettingError, match=r"loss\.(ordinal_weight|soft_labels): .* two classes .*set task=gra"):
        settings_of(override)
    assert settings_of(override, "task=gra")


def test_the_sample_has_the_masks_of_the_task() -> None:
    data = settings_of("data=sample", "task=gra")["data"]
    assert (data["root"], data["maker"]["task_name"]) == ("data/sample/gra", "gra")


def test_help_lists_all_choices_with_the_default_first() -> None:
    template = yaml.safe_load((CONF_DIR / "hydra/help/fireseg.yaml").read_text(encoding="utf-8"))["template"]
    lines = template[template.index("CHOICES") : template.index("SEE ALSO")].splitlines()
    listed = [path for path in FILES if len(path.parts) > 1 and path.parent.name != "help"]
    words = {word.strip(",;") for line in lines for word in line.split()}
    assert {part for path in listed for part in (path.parent.as_posix(), path.name)} <= words
    first = {line.split()[0]: line.split()[1].strip(",;") for line in lines if len(line.split()) > 1}
    defaults = {"task": "del", "data": "patches", "data/augment": "fire_aware", "model/arch": "unet"}
    defaults |= {"model/encoder": "resnet34", "loss": "ce_dice", "optimizer": "adamw", "scheduler": "plateau"}
    assert {group: first[group] for group in defaults} == defaults
