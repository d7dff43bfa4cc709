"""HTML page of a leaderboard: table rows, figures and pictures for the template `report.html.j2`."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

from fireseg.console import format_command, format_seconds
from fireseg.errors import FiresegError
from fireseg.metric import Interval
from fireseg.plots import ERROR_COLOURS
from fireseg.plots.html import Cell, Picture, format_number, format_p_value, make_interval_cell, write_page
from fireseg.plots.leaderboard import (
    ScoredCost,
    find_pareto_front,
    plot_costs,
    plot_differences,
    plot_importance,
    plot_learning_curves,
)
from fireseg.plots.scores import Spread
from fireseg.report.comparison import (
    Difference,
    compare_to_best,
    find_unevaluated,
    format_evaluations,
    is_certain,
)
from fireseg.report.importance import MIN_RUNS, Importance, estimate_importance, mean_by_value
from fireseg.report.samples import Samples, predict_samples
from fireseg.runs.checkpoint import SelfTraining
from fireseg.runs.leaderboard import (
    Entry,
    Leaderboard,
    Table,
    format_epochs,
    format_memory,
    format_parameters,
    format_seeds,
    shorten_keys,
)

log = logging.getLogger("fireseg")

_MAX_PLOTTED = 16
"""Largest number of differences in a figure; the table has all."""


def write_leaderboard_page(leaderboard: Leaderboard, path: Path, *, split: str, data: Path | None = None) -> None:
    """Writes `leaderboard.html` atomically.

    Args:
        leaderboard: Ranked runs.
        path: HTML file to write.
        split: Split whose evaluations are compared fire by fire.
        data: Folder of the patches for the pictures, if they have moved since the training.

    Raises:
        FiresegError: If the file cannot be written.
    """
    write_page(
        path,
        "report.html.j2",
        filters={"interval": make_interval_cell},
        split=split,
        min_runs=MIN_RUNS,
        tables=[_describe_table(table, number, split, data) for number, table in enumerate(leaderboard.tables, 1)],
        unranked=[(str(run), reason) for run, reason in leaderboard.unranked],
        error_key=list(ERROR_COLOURS.items()),
    )


def _describe_table(table: Table, number: int, split: str, data: Path | None) -> dict[str, Any]:
    """Returns the values of the template for one table."""
    short = shorten_keys(table.swept)
    compared = compare_to_best(table, split)
    differences = [_describe_difference(one) for one in compared]
    unevaluated = find_unevaluated(table, split)
    samples, fault = _predict_samples(table, data)
    importance = estimate_importance(table)
    best = table.entries[0]
    return {
        "number": number,
        "table": table,
        "best": best,
        "has_score": not math.isnan(best.val_fire_iou),
        "seeds": format_seeds(best),
        "has_seeds": any(len(entry.runs) > 1 for entry in table.entries),
        "rows": _tabulate(table, short, split),
        "differences": differences,
        "second": next((one for one in differences if one["rank"] == 2 and one["interval"]), None),
        "evaluations": format_evaluations(unevaluated, split),
        "stale": [run.stale[split] for run in unevaluated if split in run.stale],
        "figures": _plot_figures(table, compared, importance, short, split),
        "importance": importance,
        "means": [(short[row.key], row.value, row.num, format_number(row.mean)) for row in mean_by_value(table)],
        "fronts": _describe_fronts(table),
        "runs": _tabulate_runs(table),
        "self_trained": [
            (str(run.path), str(SelfTraining(**run.provenance["self_training"])))
            for entry in table.entries
            for run in entry.runs
            if "self_training" in run.provenance
        ],
        "samples": samples,
        "fault": fault,
        "commands": [
            format_command("evaluate", best.best_run.path, "--split", split),
            format_command("predict", best.best_run.path, Path("SCENE.tif")),
        ],
    }


def _tabulate(table: Table, short: dict[str, str], split: str) -> dict[str, Any]:
    """Returns heading, alignment and cells of the main table; columns without any value are left out."""
    splits = ["val", *([split] if split != "val" else [])]
    names = [short[key] for key in table.swept]
    rows = [_make_row(rank, entry, table, splits) for rank, entry in enumerate(table.entries, start=1)]
    intervals = [f"IoU over fires, {name}" for name in splits]
    heading = ["rank", *(names or ["model"]), "val fire IoU", *intervals]
    heading += ["best epoch", "parameters", "time", "peak memory"]
    kept = [
        index
        for index, name in enumerate(heading)
        if name not in (*intervals, "peak memory", "parameters") or any(row[index] != Cell("-", None) for row in rows)
    ]
    align = "r" + "l" * max(len(names), 1) + "r" * (len(heading) - max(len(names), 1) - 1)
    return {
        "columns": [heading[index] for index in kept],
        "align": "".join(align[index] for index in kept),
        "rows": [[row[index] for index in kept] for row in rows],
        "has_intervals": any(heading[index] in intervals for index in kept),
    }


def _tabulate_runs(table: Table) -> list[list[Any]]:
    """Returns the cells of the table of single runs."""
    return [
        [
            str(run.path),
            Cell(str(rank), rank),
            Cell(str(run.seed), run.seed),
            format_number(run.val_fire_iou),
            Cell(f"{run.best_epoch} of {run.epochs}{', pruned' if run.pruned_epoch else ''}", run.best_epoch),
            Cell(format_seconds(run.seconds), run.seconds),
        ]
        for rank, entry in enumerate(table.entries, start=1)
        for run in entry.runs
    ]


def _make_row(rank: int, entry: Entry, table: Table, splits: list[str]) -> list[Any]:
    values = [_make_value_cell(entry.values.get(key)) for key in table.swept]
    number, memory = entry.num_parameters, entry.peak_memory_bytes
    intervals = [entry.fire_interval(split) for split in splits]
    return [
        str(rank),
        *(values or [entry.label]),
        Cell(format_seeds(entry), _nan_to_none(entry.val_fire_iou)),
        *(make_interval_cell(None if interval is None else interval._asdict()) for interval in intervals),
        Cell(format_epochs(entry), entry.best_run.best_epoch),
        Cell(format_parameters(number), number),
        Cell(format_seconds(entry.seconds), entry.seconds),
        Cell(format_memory(memory), memory),
    ]


def _make_value_cell(value: str | None) -> str | Cell:
    """Returns the value of a setting; a number sorts as a number."""
    if value is None:
        return Cell("-", None, "l")
    try:
        return Cell(value, float(value), "l")
    except ValueError:
        return value


def _describe_difference(difference: Difference) -> dict[str, Any]:
    pairs = difference.pairs
    row = {"rank": difference.rank, "label": difference.entry.label, "verdict": difference.reason, "interval": None}
    if pairs is None or not pairs.difference.num:
        return row | {"verdict": difference.reason or "no fire with an IoU"}
    if pairs.difference.values is not None:
        verdict = "too few fires"
    elif not is_certain(pairs):
        verdict = "may be chance"
    else:
        verdict = "worse" if pairs.difference.mean < 0 else "better"
    return row | {
        "interval": pairs.difference._asdict(),
        "wins": pairs.wins,
        "losses": pairs.losses,
        "p_value": Cell(format_p_value(pairs.p_value), pairs.p_value),
        "verdict": verdict,
    }


def _plot_figures(
    table: Table, differences: list[Difference], importance: Importance | None, short: dict[str, str], split: str
) -> dict[str, list[Picture]]:
    figures: dict[str, list[Picture]] = {"differences": [], "importance": []}
    rows = {
        f"{one.rank}  {one.entry.label}": _to_spread(one.pairs.difference)
        for one in differences
        if one.pairs is not None and one.pairs.difference.num
    }
    if rows:
        shown = dict(list(rows.items())[:_MAX_PLOTTED])
        figures["differences"] = [plot_differences(shown, best=table.entries[0].label, split=split)]
    if importance is not None:
        names = {key: short.get(key, "seed (chance)") for key in importance.loss}
        figures["importance"] = [plot_importance({names[key]: value for key, value in importance.loss.items()})]
    figures["cost"] = [
        plot_costs(points, title=title, axis=axis)
        for points, title, axis in (
            (_list_costs(table, "parameters"), "Fire IoU and parameters", "parameters, millions"),
            (_list_costs(table, "minutes"), "Fire IoU and training time", "training time, minutes"),
        )
    ]
    figures["curves"] = [
        plot_learning_curves(
            {
                entry.label: [
                    ([row["epoch"] for row in run.rows], [row.get("val/fire_iou") for row in run.rows])
                    for run in entry.runs
                ]
                for entry in table.entries
            }
        )
    ]
    return figures


def _to_spread(interval: Interval) -> Spread:
    mean, low, high = (_nan_to_none(value) for value in interval[:3])
    return Spread(mean, low, high, interval.values or ())


def _list_costs(table: Table, kind: str) -> list[ScoredCost]:
    points = []
    for rank, entry in enumerate(table.entries, start=1):
        number = entry.num_parameters
        cost = entry.seconds / 60 if kind == "minutes" else None if number is None else number / 1e6
        score, deviation = _nan_to_none(entry.val_fire_iou), _nan_to_none(entry.val_fire_iou_sd)
        points.append(ScoredCost(rank, cost, score, deviation))
    return points


def _describe_fronts(table: Table) -> dict[str, list[str]]:
    """Lists the entries on the Pareto front of each cost, cheapest first."""
    return {
        kind: [
            f"{point.rank} ({table.entries[point.rank - 1].label})"
            for point in find_pareto_front(_list_costs(table, kind))
        ]
        for kind in ("parameters", "minutes")
    }


def _predict_samples(table: Table, data: Path | None) -> tuple[Samples | None, str]:
    """Predicts the samples; returns the reason if that is not possible, as the rest of the page does without them."""
    try:
        return predict_samples(table, data), ""
    except FiresegError as error:
        reason = "; ".join(error.faults)
        log.warning("no pictures: %s", reason)
        return None, reason


def _nan_to_none(value: float) -> float | None:
    return None if math.isnan(value) else value
