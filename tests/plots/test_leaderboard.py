"""Plots that compare runs."""

from __future__ import annotations

from fireseg.plots.leaderboard import ScoredCost, find_pareto_front, plot_costs, plot_learning_curves


def test_the_pareto_front_has_no_entry_that_another_one_beats_in_cost_and_score() -> None:
    points = [
        ScoredCost(1, 20, 0.8),
        ScoredCost(2, 25, 0.79),  # dearer and worse than 1
        ScoredCost(3, 5, 0.7),
        ScoredCost(4, 5, 0.65),  # as dear as 3, and worse
        ScoredCost(5, 1, 0.5),
        ScoredCost(6, None, 0.9),
        ScoredCost(7, 2, None),
    ]
    assert [point.rank for point in find_pareto_front(points)] == [5, 3, 1]


def test_the_description_of_a_cost_figure_names_the_front() -> None:
    picture = plot_costs([ScoredCost(1, 9, 0.8), ScoredCost(2, 3, 0.7)], title="Fire IoU and time", axis="minutes")
    assert picture.alt == "Fire IoU and time of 2 entries. On the Pareto front, cheapest first: 2, 1."
    assert plot_costs([], title="Nothing", axis="minutes").alt.endswith("cheapest first: none.")


def test_curves_with_undefined_scores_odd_names_and_more_entries_than_colours_are_drawn() -> None:
    curves = {f"loss $x {number}": [([1, 2], [None, 0.5]), ([1], [0.2])] for number in range(9)}
    assert plot_learning_curves(curves).alt == "Fire IoU on val by epoch of 18 runs of 9 entries."
