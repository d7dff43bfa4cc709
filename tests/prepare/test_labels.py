"""Which labels count."""

from __future__ import annotations

import numpy as np
import pytest

from fireseg.prepare.tiling import Labels, mask_labels

DEL = np.array([[0, 0, 1, 1, 255, 1]], np.uint8)
GRA = np.array([[0, 3, 0, 4, 2, 255]], np.uint8)
CLEAR = np.zeros(DEL.shape, np.bool_)
SKY = np.array([[0, 1, 2, 3, 0, 255]], np.uint8)


def lists(labels: Labels) -> tuple[list[int], list[int]]:
    return labels.delineation[0].tolist(), labels.grading[0].tolist()


def test_opaque_cloud_shadow_and_unknown_sky_hide_labels_but_haze_does_not() -> None:
    labels = mask_labels(DEL, GRA, SKY, CLEAR)
    assert lists(labels) == ([0, 255, 1, 255, 255, 255], [0, 255, 0, 255, 2, 255])
    assert labels.cloudy[0].tolist() == [False, True, False, True, False, True]


def test_light_cloud_hides_labels_by_choice() -> None:
    assert lists(mask_labels(DEL, GRA, SKY, CLEAR, light_clouds="ignore"))[0] == [0, 255, 255, 255, 255, 255]


def test_kept_clouds_hide_nothing_and_are_still_known_as_clouds() -> None:
    labels = mask_labels(DEL, GRA, SKY, CLEAR, clouds="keep")
    assert lists(labels) == (DEL[0].tolist(), GRA[0].tolist())
    assert labels.cloudy.sum() == 3


def test_where_the_image_knows_nothing_nothing_is_labelled_even_if_clouds_are_kept() -> None:
    unknown = np.array([[True, False, True, False, False, False]])
    labels = mask_labels(DEL, GRA, None, unknown, clouds="keep")
    assert lists(labels) == ([255, 0, 255, 1, 255, 1], [255, 3, 255, 4, 2, 255])


def test_disagreements_are_counted_where_both_masks_say_something() -> None:
    assert mask_labels(DEL, GRA, None, CLEAR).disagreements == (1, 1)


def test_disagreements_are_counted_under_clouds_too() -> None:
    assert mask_labels(DEL, GRA, np.ones_like(DEL), CLEAR).disagreements == (1, 1)


def test_disagreeing_labels_stay_or_go_in_both_masks() -> None:
    assert lists(mask_labels(DEL, GRA, None, CLEAR)) == (DEL[0].tolist(), GRA[0].tolist())
    ignored = mask_labels(DEL, GRA, None, CLEAR, disagreement="ignore")
    assert lists(ignored) == ([0, 255, 255, 1, 255, 1], [0, 255, 255, 4, 2, 255])


def test_without_a_grading_all_grades_are_unknown_and_nothing_disagrees() -> None:
    labels = mask_labels(DEL, None, None, CLEAR, disagreement="ignore")
    assert lists(labels) == (DEL[0].tolist(), [255] * 6)
    assert labels.disagreements == (0, 0)


@pytest.mark.parametrize("clouds", ["ignore", "keep"])
def test_the_masks_given_stay_as_they_are(clouds: str) -> None:
    delineation, grading = DEL.copy(), GRA.copy()
    unknown = ~CLEAR
    mask_labels(delineation, grading, SKY, unknown, clouds=clouds, disagreement="ignore")  # type: ignore[arg-type]
    np.testing.assert_array_equal(delineation, DEL)
    np.testing.assert_array_equal(grading, GRA)
    assert unknown.all()
