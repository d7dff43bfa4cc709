"""Tests of the figures of an evaluation."""

from __future__ import annotations

import math
from base64 import b64decode
from collections.abc import Callable, Sequence
from io import BytesIO

import numpy as np
import pytest
from matplotlib.image import imread

from fireseg.plots.html import Picture
from fireseg.plots.scores import (
    Spread,
    plot_areas,
    plot_confusion,
    plot_groups,
    plot_paired_ious,
    plot_precision_recall,
    plot_reliability,
)

NOTHING = Spread(None, None, None)


def read(picture: Picture) -> np.ndarray:
    return imread(BytesIO(b64decode(picture.uri.removeprefix("data:image/png;base64,"))), format="png")[..., :3]


def make_curve() -> dict[str, Sequence[float | None]]:
    return {
        "confidence": [1 / 6, 0.5, 5 / 6],
        "frequency": [0.1, None, 0.9],
        "pixels": [1000, 0, 500],
    }


def test_the_confusion_matrix_is_described_by_its_row_shares() -> None:
    alt = plot_confusion([[90, 10], [25, 75]], ["background", "fire"]).alt
    assert "truly background: 90 % background, 10 % fire; truly fire: 25 % background, 75 % fire." in alt


def test_a_class_without_pixels_has_no_shares() -> None:
    assert "truly fire" not in plot_confusion([[90, 10], [0, 0]], ["background", "fire"]).alt


def test_cells_are_darker_the_larger_their_row_share() -> None:
    pixels = read(plot_confusion([[99, 1], [1, 99]], ["background", "fire"])).mean(axis=2)
    height, width = pixels.shape
    # Well within the cells, away from their text and the labels.
    right, wrong = pixels[height // 8, width * 55 // 100], pixels[height // 8, width * 92 // 100]
    assert right < 0.4
    assert wrong > 0.9


def test_reliability_describes_each_bin_with_pixels() -> None:
    alt = plot_reliability(make_curve(), make_curve()).alt
    assert "0.17: 0.10, 0.83: 0.90." in alt
    assert "0.50" not in alt


def test_precision_recall_describes_the_operating_point_and_the_rules() -> None:
    alt = plot_precision_recall(
        {"precision": [1.0, 0.8], "recall": [0.1, 0.9]},
        point={"threshold": 0.43, "precision": 0.85, "recall": 0.8},
        rules={"burn ratio": (0.6, 0.7), "another": (None, None)},
    ).alt
    assert "Operating point at threshold 0.430: precision 0.850, recall 0.800." in alt
    assert "burn ratio: precision 0.700, recall 0.600." in alt
    assert "another" not in alt


def test_fires_above_and_below_the_line_are_counted() -> None:
    picture = plot_paired_ious([0.9, 0.5, 0.4, None, 0.3], [0.8, 0.5, 0.5, 0.1, math.nan], other="burn ratio")
    assert "IoU of 3 fires by the model and by burn ratio: the model is better on 1, worse on 1." in picture.alt
    alt = plot_areas([10.0, 100.0, None, 0.0], [12.0, 90.0, 5.0, 1.0]).alt
    assert "of 3 fires: too large for 2, too small for 1." in alt


def test_groups_are_described_by_both_means() -> None:
    rows = {"< 1 %": (Spread(0.4, 0.3, 0.5), NOTHING), "> 30 %": (Spread(0.9, None, None), Spread(0.8, 0.7, 0.9))}
    alt = plot_groups(rows, title="By size", other="index").alt
    assert "< 1 %: model 0.400, index unknown; > 30 %: model 0.900, index 0.800." in alt


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plot_confusion([[0, 0], [0, 0]], ["a$_^$", "b"]),
        lambda: plot_confusion(
            np.zeros((9, 9), int).tolist(), [f"a long name of class {number}" for number in range(9)]
        ),
        lambda: plot_reliability(*[{"confidence": [None], "frequency": [None], "pixels": [0]}] * 2),
        lambda: plot_precision_recall(
            {"precision": [], "recall": []}, point=dict.fromkeys(("threshold", "precision", "recall")), rules={}
        ),
        lambda: plot_areas([0.0], [0.0]),
        lambda: plot_areas([], []),
        lambda: plot_areas([1e6, 0.002], [0.0, 3e5]),
        lambda: plot_paired_ious([], [], other="$x_"),
        lambda: plot_groups({"$a^": (NOTHING, NOTHING)}, title="", other="$"),
    ],
    ids=["no pixel", "many classes", "no bin", "no curve", "no hectare", "no area", "extremes", "no fire", "no mean"],
)
def test_extreme_inputs_can_be_plotted_narrow_enough_for_a_phone(draw: Callable[[], Picture]) -> None:
    picture = draw()
    height, width, _ = read(picture).shape
    assert width == 704
    assert 200 < height < 1200
    assert len(picture.alt) > 15


def test_equal_content_gives_equal_bytes() -> None:
    assert plot_reliability(make_curve(), make_curve()) == plot_reliability(make_curve(), make_curve())
    other = make_curve() | {"frequency": [0.2, None, 0.9]}
    assert plot_reliability(make_curve(), other).uri != plot_reliability(make_curve(), make_curve()).uri
