"""Conversion and checks of mask values."""

from __future__ import annotations

import numpy as np
import pytest

from fireseg.errors import FiresegError, SettingError
from fireseg.tiles.masks import MaskKind, normalize_mask
from fireseg.tiles.options import LabelOptions


def test_delineation_keeps_its_values_and_255() -> None:
    mask, flags = normalize_mask(np.array([[0, 1, 255]], np.uint8), "DEL", None)
    assert (mask.tolist(), mask.dtype, flags) == ([[0, 1, 255]], np.uint8, [])


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("DEL", [0, 2], "value 2, but DEL has 0 to 1 and 255 for unknown"),
        ("GRA", [0, 5, 9], "values 5, 9, but GRA has 0 to 4 and 255 for unknown"),
        ("CM", [0, 255], "value 255, but CM has 0 to 3;"),
        ("DEL", [7, 6, 5, 4, 3, 2], "values 2, 3, 4, 5, 6, …, but"),
    ],
)
def test_invalid_values_are_an_error(kind: MaskKind, values: list[int], message: str) -> None:
    with pytest.raises(FiresegError, match=message):
        normalize_mask(np.array([values], np.uint8), kind, None)


def test_fractions_are_an_error() -> None:
    with pytest.raises(FiresegError, match=r"value 0\.5, but DEL"):
        normalize_mask(np.array([[0.0, 0.5]], np.float32), "DEL", None)


def test_nan_and_nodata_are_unknown() -> None:
    mask, _ = normalize_mask(np.array([[0.0, 1.0, np.nan, -1.0]], np.float32), "DEL", -1.0)
    assert mask.tolist() == [[0, 1, 255, 255]]
    assert normalize_mask(np.array([[3, -9999]], np.int16), "GRA", -9999.0)[0].tolist() == [[3, 255]]
    assert normalize_mask(np.array([[3, 200]], np.uint8), "CM", 200.0)[0].tolist() == [[3, 255]]


def test_nodata_tag_beyond_the_type_matches_nothing() -> None:
    assert normalize_mask(np.array([[0, 1]], np.uint8), "DEL", -9999.0)[0].tolist() == [[0, 1]]


def test_nodata_tag_that_is_a_class_is_ignored_and_flagged() -> None:
    mask, flags = normalize_mask(np.array([[0, 1]], np.uint8), "DEL", 0.0)
    assert mask.tolist() == [[0, 1]]
    assert "nodata tag 0 is also a value of DEL" in flags[0]


def test_delineation_of_0_and_255_only_is_flagged() -> None:
    _, (flag,) = normalize_mask(np.array([[0, 255, 255]], np.uint8), "DEL", None)
    assert flag.startswith("no pixel is 1, but 2 pixels are 255")


def test_values_are_replaced_at_once_and_before_they_are_checked() -> None:
    mask, flags = normalize_mask(np.array([[1, 2, 255]], np.uint8), "DEL", None, {1: 0, 2: 1})
    assert (mask.tolist(), flags) == ([[0, 1, 255]], [])
    assert normalize_mask(np.array([[-1, 7]], np.int8), "GRA", None, {-1: 255, 7: 4})[0].tolist() == [[255, 4]]


def test_replaced_values_have_priority_over_the_nodata_tag() -> None:
    mask, flags = normalize_mask(np.array([[0, 255]], np.uint8), "DEL", 255.0, {255: 1})
    assert (mask.tolist(), flags) == ([[0, 1]], [])


def test_nodata_tag_of_0_is_unknown_where_another_value_becomes_0() -> None:
    mask, flags = normalize_mask(np.array([[0, 1, 2]], np.uint8), "DEL", 0.0, {1: 0, 2: 1})
    assert (mask.tolist(), flags) == ([[255, 0, 1]], [])


def test_255_that_is_said_to_be_unknown_is_not_flagged() -> None:
    assert normalize_mask(np.array([[0, 255]], np.uint8), "DEL", None, {255: 255})[1] == []


def test_rules_of_classes_may_be_for_one_kind_of_mask() -> None:
    labels = LabelOptions(classes=("1=0,2=1", "GRA:5=4"))
    assert labels.class_map("DEL") == {1: 0, 2: 1}
    assert labels.class_map("GRA") == {1: 0, 2: 1, 5: 4}
    assert labels.as_dict() == {"classes": ["1=0", "2=1", "GRA:5=4"]}
    assert LabelOptions().as_dict() == {}


def test_all_invalid_rules_of_classes_are_listed() -> None:
    with pytest.raises(SettingError) as caught:
        LabelOptions(classes=("burned=1", "3=7", "2=1,DEL:2=0"))
    assert [fault.split(":")[0] for fault in caught.value.faults] == [
        "--classes burned=1",
        "--classes 3=7",
        "--classes DEL",
    ]
