"""Boundary metrics: shapes with results worked out by hand, and random masks against the definition."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fireseg.metric import BoundaryCounts, boundary_counts, boundary_scores, hausdorff_95, sum_boundary_counts

MASKS = st.tuples(st.integers(1, 8), st.integers(1, 8)).flatmap(
    lambda shape: st.tuples(*(arrays(bool, shape) for _ in range(3)))
)


def draw_box(top: int, left: int, height: int, width: int, *, size: int = 30) -> np.ndarray:
    drawn = np.zeros((size, size), bool)
    drawn[top : top + height, left : left + width] = True
    return drawn


def draw_square(left: int = 10) -> np.ndarray:
    """A square of 10 x 10 pixels with a boundary of 36 pixels."""
    return draw_box(10, left, 10, 10)


def all_labelled(drawn: np.ndarray) -> np.ndarray:
    return np.ones_like(drawn)


def score(truth: np.ndarray, predicted: np.ndarray, is_labelled: np.ndarray | None = None) -> dict[str, float]:
    is_labelled = all_labelled(truth) if is_labelled is None else is_labelled
    return boundary_scores(boundary_counts(truth, predicted, is_labelled=is_labelled))


def name_scores(f1: list[float], iou: list[float]) -> dict[str, float]:
    return {f"boundary_f1_{d}px": value for d, value in zip((1, 2, 3), f1, strict=True)} | {
        f"boundary_iou_{d}px": value for d, value in zip((1, 2, 3), iou, strict=True)
    }


def find_boundary(region: np.ndarray, is_labelled: np.ndarray) -> np.ndarray:
    """Positions `(n, 2)` of labelled burned pixels next to a labelled unburned one, pixel by pixel."""
    positions = []
    for row, col in np.argwhere(region & is_labelled):
        beside = [(row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)]
        inside = [(r, c) for r, c in beside if 0 <= r < region.shape[0] and 0 <= c < region.shape[1]]
        if any(is_labelled[each] and not region[each] for each in inside):
            positions.append((row, col))
    return np.array(positions, float).reshape(-1, 2)


def nearest(positions: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distance of each position to the nearest of the others, from all pairs."""
    return np.hypot(*(positions[:, None] - others[None]).transpose(2, 0, 1)).min(axis=1, initial=math.inf)


# Of the 36 boundary pixels of a square, those within d of one moved 2 columns: of its upper and lower rows 9 each at
# d = 1, and 2 of its near side beside these. Moved by 3: 8 each and 2 (d = 1), 9 each and 4 (d = 2).
# The band at d is the square less its inner 10 - 2d columns and rows: 36, 64, 84 pixels. Two bands share what the
# squares share less either inner square: moved by 1, 90 less 8 x 9, 6 x 7, 4 x 5; by 2, 80 less 8 x 8 (the inner
# squares end where the shared part does), 6 x 8, 4 x 6; by 3, 70 less 8 x 7, 6 x 7, 4 x 7.
@pytest.mark.parametrize(
    ("shift", "f1", "iou"),
    [
        (1, [1, 1, 1], [18 / 54, 48 / 80, 70 / 98]),
        (2, [20 / 36, 1, 1], [16 / 56, 32 / 96, 56 / 112]),
        (3, [18 / 36, 22 / 36, 1], [14 / 58, 28 / 100, 42 / 126]),
    ],
)
def test_scores_of_a_shifted_square_by_hand(shift: int, f1: list[float], iou: list[float]):
    assert score(draw_square(), draw_square(10 + shift)) == pytest.approx(name_scores(f1, iou))


@pytest.mark.parametrize("shift", [0, 1, 2, 3])
def test_the_hausdorff_distance_of_a_shifted_square_is_the_shift(shift: int):
    # The whole far side, 10 of 36 pixels, is that far away: more than 5 %.
    truth, predicted = draw_square(), draw_square(10 + shift)
    assert hausdorff_95(truth, predicted, is_labelled=all_labelled(truth)) == shift


def test_counts_of_a_shifted_square_are_symmetric():
    truth = draw_square()
    counts = boundary_counts(truth, draw_square(12), is_labelled=all_labelled(truth))
    assert (counts.truth_pixels, counts.predicted_pixels) == (36, 36)
    assert counts.truth_near.tolist() == counts.predicted_near.tolist() == [20, 36, 36]
    assert counts.band_intersection.tolist() == [16, 32, 56]
    assert counts.band_union.tolist() == [56, 96, 112]


def test_precision_is_relative_to_the_prediction_and_recall_to_the_truth():
    # A single pixel on the corner of the square: precision 1, and 3 of 36 true pixels within 1 px.
    counts = boundary_counts(draw_square(), draw_box(10, 10, 1, 1), is_labelled=np.ones((30, 30), bool))
    assert (counts.predicted_pixels, counts.predicted_near[0], counts.truth_near[0]) == (1, 1, 3)
    assert boundary_scores(counts)["boundary_f1_1px"] == pytest.approx(2 * (3 / 36) / (1 + 3 / 36))


def test_distance_is_euclidean():
    # Diagonal neighbours are 1.41 px apart, a knight's move 2.24.
    point, diagonal, knight = draw_box(5, 5, 1, 1), draw_box(6, 6, 1, 1), draw_box(6, 7, 1, 1)
    assert [score(point, diagonal)[f"boundary_f1_{d}px"] for d in (1, 2, 3)] == [0, 1, 1]
    assert [score(point, knight)[f"boundary_f1_{d}px"] for d in (1, 2, 3)] == [0, 0, 1]
    assert hausdorff_95(point, knight, is_labelled=all_labelled(point)) == pytest.approx(math.sqrt(5))


def test_a_few_stray_pixels_do_not_change_the_hausdorff_distance():
    # One stray pixel among 36 + 1 is 2.7 %: the full Hausdorff distance is 15, the 95th percentile 0.
    truth = draw_square()
    predicted = truth | draw_box(10, 4, 1, 1)
    assert hausdorff_95(truth, predicted, is_labelled=all_labelled(truth)) == 0


def test_the_hausdorff_distance_is_the_larger_of_both_directions():
    # A second fire is not predicted: the distance from the prediction to the truth is 0.
    predicted = draw_box(2, 2, 4, 4)
    truth = predicted | draw_box(2, 12, 4, 4)
    expected = float(np.percentile(nearest(*(find_boundary(x, all_labelled(x)) for x in (truth, predicted))), 95))
    assert expected > 9
    assert hausdorff_95(truth, predicted, is_labelled=all_labelled(truth)) == pytest.approx(expected)


@given(masks=MASKS)
def test_identical_masks_score_1_and_distance_0_or_nan_without_a_boundary(masks: tuple[np.ndarray, ...]):
    truth, _, is_labelled = masks
    has_boundary = len(find_boundary(truth, is_labelled)) > 0
    values = [1.0 if has_boundary else math.nan] * 3
    assert score(truth, truth.copy(), is_labelled) == pytest.approx(name_scores(values, values), nan_ok=True)
    distance = hausdorff_95(truth, truth.copy(), is_labelled=is_labelled)
    assert distance == 0 if has_boundary else math.isnan(distance)


@pytest.mark.parametrize("drawn", [np.zeros((6, 5), bool), np.ones((6, 5), bool)], ids=["empty", "full"])
def test_masks_without_a_boundary_have_no_score(drawn: np.ndarray):
    assert all(math.isnan(value) for value in score(drawn, drawn).values())
    assert math.isnan(hausdorff_95(drawn, drawn, is_labelled=all_labelled(drawn)))


@pytest.mark.parametrize("is_missed", [True, False])
def test_a_fire_in_one_mask_only_scores_0_without_a_distance(is_missed: bool):
    pair = (draw_square(), np.zeros((30, 30), bool))
    truth, predicted = pair if is_missed else pair[::-1]
    assert set(score(truth, predicted).values()) == {0.0}
    assert math.isnan(hausdorff_95(truth, predicted, is_labelled=all_labelled(truth)))


def test_the_edge_of_the_mask_is_no_boundary():
    # The left 5 of 10 columns burn; 6 are predicted. Only the inner sides count: 10 pixels each, 1 px apart.
    truth, predicted = draw_box(0, 0, 10, 5, size=10), draw_box(0, 0, 10, 6, size=10)
    counts = boundary_counts(truth, predicted, is_labelled=all_labelled(truth))
    assert (counts.truth_pixels, counts.predicted_pixels) == (10, 10)
    # Bands of d columns: 4 and 5 at 1 px, and so on to 2 to 4 and 3 to 5 at 3 px.
    assert counts.band_intersection.tolist() == [0, 10, 20]
    assert counts.band_union.tolist() == [20, 30, 40]
    assert boundary_scores(counts)["boundary_f1_1px"] == 1.0
    assert hausdorff_95(truth, predicted, is_labelled=all_labelled(truth)) == 1.0


def test_the_edge_of_an_unlabelled_area_is_no_boundary():
    # The left 5 of 10 columns are burned, and the next column is unlabelled.
    truth = draw_box(0, 0, 10, 5, size=10)
    is_labelled = ~draw_box(0, 5, 10, 1, size=10)
    assert boundary_counts(truth, truth, is_labelled=is_labelled).truth_pixels == 0
    assert all(math.isnan(value) for value in score(truth, truth, is_labelled).values())


def test_unlabelled_pixels_are_in_no_boundary_and_no_band():
    # Rows 4 and 5 are unlabelled: of the inner sides 8 of 10 pixels remain, and in the bands 8 of 10 rows.
    truth, predicted = draw_box(0, 0, 10, 5, size=10), draw_box(0, 0, 10, 6, size=10)
    counts = boundary_counts(truth, predicted, is_labelled=~draw_box(4, 0, 2, 10, size=10))
    assert (counts.truth_pixels, counts.predicted_pixels) == (8, 8)
    assert counts.band_intersection.tolist() == [0, 8, 16]
    assert counts.band_union.tolist() == [16, 24, 32]


@given(masks=MASKS)
def test_values_of_unlabelled_pixels_do_not_matter(masks: tuple[np.ndarray, ...]):
    truth, predicted, is_labelled = masks
    inverted = score(truth ^ ~is_labelled, predicted ^ ~is_labelled, is_labelled)
    assert inverted == pytest.approx(score(truth, predicted, is_labelled), nan_ok=True, abs=0)


@given(masks=MASKS)
def test_counts_equal_the_definition(masks: tuple[np.ndarray, ...]):
    truth, predicted, is_labelled = masks
    edges = [find_boundary(each, is_labelled) for each in (truth, predicted)]
    counts = boundary_counts(truth, predicted, is_labelled=is_labelled)
    assert [counts.truth_pixels, counts.predicted_pixels] == [len(each) for each in edges]
    positions = [np.argwhere(each & is_labelled).astype(float) for each in (truth, predicted)]
    for number, distance in enumerate((1, 2, 3)):
        assert counts.truth_near[number] == (nearest(edges[0], edges[1]) <= distance).sum()
        assert counts.predicted_near[number] == (nearest(edges[1], edges[0]) <= distance).sum()
        bands = [
            set(map(tuple, each[nearest(each, edge) <= distance - 1]))
            for each, edge in zip(positions, edges, strict=True)
        ]
        assert counts.band_intersection[number] == len(bands[0] & bands[1])
        assert counts.band_union[number] == len(bands[0] | bands[1])


@given(masks=MASKS)
def test_the_hausdorff_distance_equals_the_definition(masks: tuple[np.ndarray, ...]):
    truth, predicted, is_labelled = masks
    edge, other = (find_boundary(each, is_labelled) for each in (truth, predicted))
    expected = math.nan
    if len(edge) and len(other):
        expected = max(np.percentile(nearest(edge, other), 95), np.percentile(nearest(other, edge), 95))
    distance = hausdorff_95(truth, predicted, is_labelled=is_labelled)
    assert distance == pytest.approx(expected, nan_ok=True)


def test_counts_of_several_fires_can_be_added():
    # 36 of 36 and 20 of 36 boundary pixels at 1 px; bands 18 of 54 and 16 of 56.
    truth = draw_square()
    parts = [boundary_counts(truth, draw_square(left), is_labelled=all_labelled(truth)) for left in (11, 12)]
    total = sum_boundary_counts(parts)
    assert isinstance(total, BoundaryCounts)
    assert total.truth_pixels == 72
    scores = boundary_scores(total)
    assert scores["boundary_f1_1px"] == pytest.approx(56 / 72)
    assert scores["boundary_iou_1px"] == pytest.approx(34 / 110)


def test_scores_of_no_fires_are_nan():
    assert all(math.isnan(value) for value in boundary_scores(sum_boundary_counts([])).values())


@pytest.mark.parametrize("other", [np.zeros((3, 4), bool), np.zeros((3, 3), np.uint8)])
def test_masks_of_another_shape_or_dtype_are_an_error(other: np.ndarray):
    drawn = np.zeros((3, 3), bool)
    for measure in (boundary_counts, hausdorff_95):
        with pytest.raises(ValueError, match=r"truth, predicted, is_labelled: .*bool"):
            measure(drawn, other, is_labelled=drawn)


def test_the_largest_tile_takes_less_than_three_seconds():
    from scipy import ndimage

    rng = np.random.default_rng(0)
    truth = ndimage.gaussian_filter(rng.normal(size=(2085, 2045)), 3.0) > 0
    predicted = np.roll(truth, 7, axis=0)
    is_labelled = rng.random(truth.shape) < 0.95
    start = time.process_time()
    boundary_counts(truth, predicted, is_labelled=is_labelled)
    hausdorff_95(truth, predicted, is_labelled=is_labelled)
    assert time.process_time() - start < 3.0
