"""The settings that mattered are found, and chance is not."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from fireseg.report.importance import MIN_RUNS, estimate_importance, mean_by_value
from fireseg.runs.leaderboard import Table, read_leaderboard
from tests.runs.builders import write_finished_run


def make_grid(folder: Path, num_seeds: int) -> Table:
    """Writes a grid of two encoders, two rates and seeds: the encoder is worth 0.2, the rate 0.02, the seed nothing."""
    choices = product(("resnet18", "resnet34"), (0.001, 0.01), range(num_seeds))
    for number, (encoder, rate, seed) in enumerate(choices):
        iou = 0.5 + 0.2 * (encoder == "resnet34") + 0.02 * (rate == 0.01) + 0.002 * (seed * 7 % 3)
        settings = {"model.encoder": encoder, "optimizer.lr": rate, "seed": seed}
        write_finished_run(folder / str(number), settings=settings, ious=[iou])
    return read_leaderboard([folder]).tables[0]


def test_one_factor_means_are_over_all_runs_with_the_value(tmp_path: Path) -> None:
    table = make_grid(tmp_path, 1)
    means = [(row.key, row.value, round(row.mean, 6), row.num) for row in mean_by_value(table)]
    assert means == [
        ("model.encoder", "resnet34", 0.71, 2),
        ("model.encoder", "resnet18", 0.51, 2),
        ("optimizer.lr", "0.01", 0.62, 2),
        ("optimizer.lr", "0.001", 0.6, 2),
    ]
    assert estimate_importance(table) is None


def test_a_setting_with_another_value_in_each_run_has_no_means(tmp_path: Path) -> None:
    for number, (encoder, rate) in enumerate((("a", 0.1), ("a", 0.2), ("b", 0.3))):
        settings = {"model.encoder": encoder, "optimizer.lr": rate}
        write_finished_run(tmp_path / str(number), settings=settings, ious=[0.5])
    assert {row.key for row in mean_by_value(read_leaderboard([tmp_path]).tables[0])} == {"model.encoder"}


def test_the_forest_ranks_the_settings_and_errs_less_than_the_mean(tmp_path: Path) -> None:
    importance = estimate_importance(make_grid(tmp_path, MIN_RUNS // 4))
    assert importance is not None
    assert list(importance.loss) == ["model.encoder", "optimizer.lr", "seed"]
    # An encoder that is exchanged is the other one in about half of the runs: an error of about 0.1.
    assert importance.loss["model.encoder"] == pytest.approx(0.1, abs=0.04)
    assert importance.loss["seed"] < 0.005
    assert importance.error < importance.baseline / 5
