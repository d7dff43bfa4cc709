"""Results of a benchmark: scores of every recipe over all fires, compared with the first recipe fire by fire.

```
format      1
protocol    the protocol, as in protocol.yaml
version     of fireseg
fires       names of the fires, each of which was judged once for each seed
rows        a list, the recipes first, then the baselines, for each number of tiles; each
              recipe, is_baseline, max_tiles (None for all)
              iou           mean over fires of the fire IoU, its mean over the seeds, with an interval
              pooled        fire IoU over all pixels, mean of the seeds; pooled_off_centre on corner crops of the tiles,
                            None without the check
              area_error    relative error of the burned area of all fires together, mean of the seeds
              boundary_f1   F1 of the boundary at 2 pixels, mean over fires; None for baselines
              difference    to the first recipe: {difference (interval), wins, losses, ties, p_value}; None for itself
              severity_iou  of `metric.severity_scores`: mean over fires, its mean over the seeds, with an interval;
                            None for task=del and baselines; severity_difference as difference
              grade_mae     of `metric.severity_scores`, mean over fires and seeds; None like severity_iou
              minutes       mean time of a training; of an ensemble, the sum of its trainings
judged      a list, one entry for each recipe, number of tiles, seed and fire: recipe, max_tiles, seed (None of an
            ensemble), fold, fire, iou, severity_iou, grade_mae, iou_off_centre, true_ha, predicted_ha,
            boundary_f1
```
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from fireseg import __version__
from fireseg.benchmark.protocol import Group, Protocol
from fireseg.console import format_table
from fireseg.errors import FiresegError
from fireseg.evaluate.results import to_dict
from fireseg.files import atomic_write
from fireseg.metric import compare_paired, estimate_mean
from fireseg.metric.interval import PairedComparison
from fireseg.plots.benchmark import plot_benchmark

FORMAT = 1

_NOT_BASELINES = ("model", "model_argmax")


class JudgedRun(NamedTuple):
    """An evaluated training.

    Attributes:
        group: Recipe and number of tiles.
        fold: Fold whose test fires were judged.
        seed: Seed of the training; None for an ensemble.
        seconds: Time of the training, or of all trainings of an ensemble.
        results: Content of its `evaluation_test.json`.
    """

    group: Group
    fold: int
    seed: int | None
    seconds: float
    results: Mapping[str, Any]


def build_results(protocol: Protocol, runs: Sequence[JudgedRun]) -> dict[str, Any]:
    """Scores the groups whose trainings are complete.

    Args:
        protocol: The protocol.
        runs: All evaluated trainings of these groups.

    Raises:
        FiresegError: If a fire was judged twice, or by some of the recipes only.
    """
    groups: dict[Group, list[JudgedRun]] = defaultdict(list)
    for run in runs:
        groups[run.group].append(run)
    fires = _check_fires(groups)
    rows = []
    for max_tiles in dict.fromkeys(group.max_tiles for group in groups):
        base = groups.get(Group(protocol.base, max_tiles))
        reference = _list_scores(base or [])
        for group, members in groups.items():
            if group.max_tiles == max_tiles:
                is_compared = group.recipe != protocol.base
                rows.append(_score_recipe(group, members, fires, base if is_compared else None))
        recipes = [members for group, members in groups.items() if group.max_tiles == max_tiles]
        rows += _score_baselines(recipes, max_tiles, reference, fires)
    content = {
        "format": FORMAT,
        "protocol": asdict(protocol),  # pyright: ignore[reportArgumentType] - a dataclass of pydantic
        "version": __version__,
        "fires": fires,
        "rows": rows,
        "judged": [entry for run in runs for entry in _list_judged(run)],
    }
    return to_dict(content)


def _check_fires(groups: Mapping[Group, Sequence[JudgedRun]]) -> list[str]:
    """Returns the names of the fires; each must be judged once for each seed and by every recipe."""
    fires: list[str] | None = None
    for group, runs in groups.items():
        for seed in {run.seed for run in runs}:
            names = sorted(fire["name"] for run in runs if run.seed == seed for fire in _list_burned(run))
            if len(set(names)) < len(names):
                raise FiresegError(
                    f"{group.folder_name}: a fire was judged twice; a recipe is one training for each fold and seed: "
                    "give each of its settings one value, and further values recipes of their own"
                )
            if fires is not None and names != fires:
                others = sorted(set(names) ^ set(fires))
                raise FiresegError(
                    f"{group.folder_name}, seed {seed}: {', '.join(others[:5])}: judged for some of the recipes only; "
                    "give all recipes patches that cover the same fires"
                )
            fires = names
    return fires or []


def _list_burned(run: JudgedRun) -> list[Mapping[str, Any]]:
    """Returns the tiles on which something burned; others have no IoU."""
    return [fire for fire in run.results["fires"] if fire["burned_share"]]


def _list_scores(runs: Sequence[JudgedRun], key: str = "iou") -> dict[str, float]:
    """Returns a score of each fire, the mean over the seeds."""
    return _average((fire["name"], fire[key]) for run in runs for fire in _list_burned(run))


def _has_severity(runs: Sequence[JudgedRun]) -> bool:
    """Returns True for task=gra; evaluations of earlier versions lack the severity of each fire."""
    return all("severity_iou" in fire for run in runs for fire in _list_burned(run))


def _average(pairs: Iterator[tuple[str, float | None]]) -> dict[str, float]:
    values: dict[str, list[float]] = defaultdict(list)
    for name, value in pairs:
        values[name].append(math.nan if value is None else value)
    return {name: sum(some) / len(some) for name, some in values.items()}


def _compare(ours: Mapping[str, float], theirs: Mapping[str, float], fires: Sequence[str]) -> PairedComparison:
    return compare_paired([ours[name] for name in fires], [theirs[name] for name in fires])


def _score_recipe(
    group: Group, runs: Sequence[JudgedRun], fires: Sequence[str], base: Sequence[JudgedRun] | None
) -> dict[str, Any]:
    """Scores a recipe, compared with the first one unless this is None."""
    ious, edges = _list_scores(runs), _list_scores(runs, "boundary_f1_2px")
    by_seed: dict[int | None, list[JudgedRun]] = defaultdict(list)
    for run in runs:
        by_seed[run.seed].append(run)
    models = [[_get_method(run, "model") for run in some] for some in by_seed.values()]
    views = [[run.results["off_centre"] for run in some] for some in by_seed.values()]
    known = [value for value in edges.values() if not math.isnan(value)]
    severities = _list_scores(runs, "severity_iou") if _has_severity(runs) else None
    base_severities = _list_scores(base, "severity_iou") if base and _has_severity(base) else None
    return {
        "recipe": group.recipe,
        "is_baseline": False,
        "max_tiles": group.max_tiles,
        "iou": estimate_mean([ious[name] for name in fires]),
        "pooled": _mean([_pool([model["confusion"] for model in some]) for some in models]),
        "pooled_off_centre": _mean(
            [_pool([view["cropped"]["confusion"]["off_centre"] for view in some]) for some in views]
        )
        if all(view for some in views for view in some)
        else None,
        "area_error": _mean([_sum_area_error([model["area"] for model in some]) for some in models]),
        "boundary_f1": _mean(known),
        "difference": _compare(ious, _list_scores(base), fires) if base else None,
        "severity_iou": estimate_mean([severities[name] for name in fires]) if severities else None,
        "severity_difference": _compare(severities, base_severities, fires) if severities and base_severities else None,
        "grade_mae": _mean(list(_list_scores(runs, "grade_mae").values())) if severities else None,
        "minutes": sum(run.seconds for run in runs) / len(runs) / 60,
    }


def _score_baselines(
    recipes: Sequence[Sequence[JudgedRun]], max_tiles: int | None, reference: Mapping[str, float], fires: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Scores the rules that need no training, with their thresholds tuned on the training tiles of a recipe.

    Of each rule the first recipe counts: those over the change of a pair are known only to recipes with `data.pre`.
    """
    done = {*_NOT_BASELINES}
    for runs in recipes:
        for method in runs[0].results["methods"]:
            name = method["name"]
            if name in done or not all(_has_rule(run, name) for run in runs):
                continue
            done.add(name)
            seeds = {run.seed for run in runs}
            entries = [[_get_method(run, name) for run in runs if run.seed == seed] for seed in seeds]
            ious = _list_scores(runs, f"{name}_iou")
            yield {
                "recipe": method["label"],
                "is_baseline": True,
                "max_tiles": max_tiles,
                "iou": estimate_mean([ious[fire] for fire in fires]),
                "pooled": _mean([_pool([entry["confusion"] for entry in some]) for some in entries]),
                "pooled_off_centre": None,
                "area_error": _mean([_sum_area_error([entry["area"] for entry in some]) for some in entries]),
                "boundary_f1": None,
                "difference": _compare(ious, reference, fires) if reference else None,
                "severity_iou": None,
                "severity_difference": None,
                "grade_mae": None,
                "minutes": None,
            }


def _has_rule(run: JudgedRun, name: str) -> bool:
    """Returns True if a rule was judged on every fire; evaluations of earlier versions lack the change of pairs."""
    return _get_method(run, name)["is_there"] and all(f"{name}_iou" in fire for fire in _list_burned(run))


def _get_method(run: JudgedRun, name: str) -> Mapping[str, Any]:
    return next(method for method in run.results["methods"] if method["name"] == name)


def _pool(confusions: Sequence[Sequence[Sequence[int]]]) -> float:
    """Returns the fire IoU of confusion matrices together: all classes above 0 are fire."""
    hits = sum(sum(row[1:]) for one in confusions for row in one[1:])
    misses = sum(row[0] for one in confusions for row in one[1:])
    false_alarms = sum(sum(one[0][1:]) for one in confusions)
    union = hits + misses + false_alarms
    return hits / union if union else math.nan


def _sum_area_error(areas: Sequence[Mapping[str, float | None]]) -> float:
    true, predicted = (sum(area[key] or 0.0 for area in areas) for key in ("true_ha", "predicted_ha"))
    return predicted / true - 1 if true else math.nan


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _list_judged(run: JudgedRun) -> Iterator[dict[str, Any]]:
    check = run.results["off_centre"]
    crops = {fire["name"]: fire["cropped"]["off_centre"] for fire in check["fires"]} if check else {}
    for fire in _list_burned(run):
        yield {
            "recipe": run.group.recipe,
            "max_tiles": run.group.max_tiles,
            "seed": run.seed,
            "fold": run.fold,
            "fire": fire["name"],
            "iou": fire["iou"],
            "severity_iou": fire.get("severity_iou"),
            "grade_mae": fire.get("grade_mae"),
            "iou_off_centre": crops.get(fire["name"]),
            "true_ha": fire["true_ha"],
            "predicted_ha": fire["predicted_ha"],
            "boundary_f1": fire["boundary_f1_2px"],
        }


def write_results(results: Mapping[str, Any], folder: Path) -> None:
    """Writes `results.json`, `results.csv`, `results.md` and `results.png`.

    Raises:
        FiresegError: If a file cannot be written.
    """
    with atomic_write(folder / "results.json") as part:
        part.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = io.StringIO()
    writer = csv.DictWriter(text, list(results["judged"][0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(results["judged"])
    with atomic_write(folder / "results.csv") as part:
        part.write_text(text.getvalue(), encoding="utf-8", newline="")
    rows = _tabulate(results)
    lines = [f"| {' | '.join(row)} |" for row in (rows[0], ["---", *["---:"] * (len(rows[0]) - 1)], *rows[1:])]
    with atomic_write(folder / "results.md") as part:
        part.write_text("\n".join([*lines, "", *_explain(results), ""]), encoding="utf-8")
    plot_benchmark(results["rows"], folder / "results.png", num_fires=len(results["fires"]))


def format_results(results: Mapping[str, Any]) -> list[str]:
    """Formats the table for a terminal."""
    rows = _tabulate(results)
    return [*format_table(rows, align="<" + ">" * (len(rows[0]) - 1)), "", *_explain(results)]


def _tabulate(results: Mapping[str, Any]) -> list[list[str]]:
    heading = ["recipe", "tiles", "IoU, mean over fires", "pooled", "off centre", "area error", "boundary F1"]
    has_severity = any(row["severity_iou"] for row in results["rows"])
    severity = ["severity IoU, mean over fires", "difference in it", "grade error"] if has_severity else []
    rows = [[*heading, "difference to the first", "better/worse", *severity, "minutes"]]
    for row in results["rows"]:
        difference = row["difference"]
        rows.append(
            [
                row["recipe"],
                "all" if row["max_tiles"] is None else str(row["max_tiles"]),
                _format_interval(row["iou"], ".3f"),
                _format(row["pooled"], ".3f"),
                _format(row["pooled_off_centre"], ".3f"),
                _format(row["area_error"], "+.1%"),
                _format(row["boundary_f1"], ".3f"),
                _format_interval(difference["difference"], "+.3f") if difference else "-",
                f"{difference['wins']}/{difference['losses']}" if difference else "-",
                *(_format_severity(row) if has_severity else ()),
                _format(row["minutes"], ".1f"),
            ]
        )
    return rows


def _format_severity(row: Mapping[str, Any]) -> Iterator[str]:
    yield _format_interval(row["severity_iou"], ".3f") if row["severity_iou"] else "-"
    change = row["severity_difference"]
    yield _format_interval(change["difference"], "+.3f") if change else "-"
    yield _format(row["grade_mae"], ".2f")


def _format(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _format_interval(interval: Mapping[str, Any], form: str) -> str:
    mean = _format(interval["mean"], form)
    return mean if interval["low"] is None else f"{mean} [{interval['low']:{form}}, {interval['high']:{form}}]"


def _explain(results: Mapping[str, Any]) -> list[str]:
    protocol, num_fires = results["protocol"], len(results["fires"])
    seeds = ", ".join(map(str, protocol["seeds"]))
    return [
        f"{num_fires} fires, {protocol['folds']} folds, seeds {seeds}, fireseg {results['version']}. Each fire is "
        "judged once for each seed, on the map of its whole tile, by a model that saw neither it nor its neighbours, "
        "with a threshold from other fires. Off centre: pooled IoU of maps of the corners of the tiles. Intervals: 95 "
        "% over fires; differences are paired by fire. Minutes: one training"
        + (", or all of an ensemble." if protocol["ensembles"] else "."),
    ]
