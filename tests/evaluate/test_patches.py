"""Tests of finding and reading patches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fireseg.errors import SettingError
from fireseg.evaluate.patches import open_patches
from fireseg.prepare.cli import main as prepare
from fireseg.task import DELINEATION_CLASSES, Task
from tests.prepare.builders import write_set

DEL = Task(name="del", num_classes=2, class_names=DELINEATION_CLASSES)
BANDS = ["B02", "B03", "B04", "B08", "B8A", "B11", "B12"]


def make_settings(root: Path | str, **data: Any) -> dict[str, Any]:
    node = {"_target_": "fireseg.data.WildfireDataModule", "root": str(root), "bands": BANDS, "batch_size": 3}
    return {"seed": 0, "data": {**node, **data}}


def test_train_is_read_once_in_order_without_augmentation(make_patches: Callable[..., Path]):
    root = make_patches(train=7)
    augment = {"_target_": "fireseg.data.get_strong_augmentation"}
    settings = make_settings(root, weighted_sampling=True, augment=augment, maker=None)

    patches = open_patches(settings, root, task=DEL, required="train")
    with patches.batches("train", "train") as batches:
        seen = list(batches)

    assert tuple(name for batch in seen for name in batch.names) == patches.get("train").names
    assert [len(batch.names) for batch in seen] == [3, 3, 1]
    first = patches.get("train")[0]
    assert (seen[0].image[0] == first.image).all()


def test_a_missing_split_is_rejected_with_the_available_ones(make_patches: Callable[..., Path]):
    root = make_patches()
    with pytest.raises(SettingError, match=r"--split test: .* available: train val; try --split val"):
        open_patches(make_settings(root), root, task=DEL, required="test")


def test_the_fold_of_the_run_is_evaluated_and_other_patches_need_none(
    tmp_path: Path, make_patches: Callable[..., Path]
):
    tiles = write_set(tmp_path / "tiles", train=4, val=0, test=0)
    assert prepare([str(tiles), str(tmp_path / "folds"), "--size", "16", "--folds", "4"]) == 0
    splits = [open_patches(make_settings("", fold=n), tmp_path / "folds", task=DEL, required="test") for n in range(4)]
    tested = [fire.name for patches in splits for fire in patches.group_by_fire("test")]
    assert sorted(tested) == [f"EMSR10{n}_AOI01_01" for n in range(4)]

    plain = make_patches(tmp_path / "plain")
    assert len(open_patches(make_settings("", fold=1), plain, task=DEL, required="val").get("val")) == 4
    with pytest.raises(SettingError, match=r"has 4 folds, but the run was trained on patches without"):
        open_patches(make_settings(plain), tmp_path / "folds", task=DEL, required="test")
