"""Estimates how much each swept setting mattered for the fire IoU on val."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fireseg.runs.leaderboard import Table

MIN_RUNS = 20
"""Smallest number of runs for which a forest is fitted; for fewer, the means of each value say as much."""

_FOLDS, _TREES, _REPEATS = 5, 100, 10


@dataclass(frozen=True)
class ValueMean:
    """Mean fire IoU of the runs that have one value of a setting.

    Attributes:
        key: Dotted key of the setting.
        value: Its value as text.
        mean: Mean fire IoU on val, 0 to 1.
        num: Number of runs.
    """

    key: str
    value: str
    mean: float
    num: int


@dataclass(frozen=True)
class Importance:
    """Permutation importance of the settings.

    Attributes:
        loss: Increase of the mean absolute error of the predicted IoU if the values of a setting are permuted among
            the runs, by key, largest first. The key `seed` is a reference: it is noise.
        error: Mean absolute error of the predictions of runs that the forest was not fitted on, in IoU.
        baseline: The same if each run is predicted by the mean of the others.
        num: Number of runs.
    """

    loss: Mapping[str, float]
    error: float
    baseline: float
    num: int


def mean_by_value(table: Table) -> list[ValueMean]:
    """Computes the mean fire IoU of the runs with each value of each swept setting, best value first.

    These one-factor means ignore the other settings: in a full grid they are the same for every value, in another
    sweep they may explain a difference. Settings that have another value in each run, as in a random search, are
    left out.

    Args:
        table: Ranked entries.
    """
    means = []
    for key in table.swept:
        scores: dict[str, list[float]] = defaultdict(list)
        for entry in table.entries:
            if key in entry.values:
                scores[entry.values[key]] += [run.val_fire_iou for run in entry.runs]
        known = {value: [iou for iou in each if iou == iou] for value, each in scores.items()}
        rows = [ValueMean(key, value, statistics.fmean(each), len(each)) for value, each in known.items() if each]
        if len(rows) > 1 and (len(table.swept) == 1 or any(row.num > 1 for row in rows)):
            means += sorted(rows, key=lambda row: -row.mean)
    return means


def estimate_importance(table: Table) -> Importance | None:
    """Estimates the importance of the swept settings by permutation on a random forest.

    The forest predicts the fire IoU of a run from its settings. In a cross-validation of five folds, the values of one
    setting are permuted among the runs that the forest has not seen: the increase of its error is the importance
    (scikit-learn's `permutation_importance`). Correlated settings share theirs.

    Args:
        table: Ranked entries.

    Returns:
        None if there are fewer than `MIN_RUNS` runs with a score, or nothing was swept.

    References:
        Breiman, Random forests, Machine Learning 45, 2001.
    """
    runs = [(entry, run) for entry in table.entries for run in entry.runs if run.val_fire_iou == run.val_fire_iou]
    if len(runs) < MIN_RUNS or not table.swept:
        return None
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.model_selection import KFold

    keys = [*table.swept, *(["seed"] if len({run.seed for _, run in runs}) > 1 else [])]
    values = [[str(run.seed) if key == "seed" else entry.values.get(key, "") for entry, run in runs] for key in keys]
    features = np.column_stack([_encode(column) for column in values])
    scores = np.array([run.val_fire_iou for _, run in runs])
    losses, errors, baselines = [], [], []
    for fitted, held_out in KFold(_FOLDS, shuffle=True, random_state=0).split(features):
        forest = RandomForestRegressor(_TREES, random_state=0).fit(features[fitted], scores[fitted])
        result = permutation_importance(
            forest,
            features[held_out],
            scores[held_out],
            scoring="neg_mean_absolute_error",
            n_repeats=_REPEATS,
            random_state=0,
        )
        losses.append(result["importances_mean"])
        errors.append(np.abs(forest.predict(features[held_out]) - scores[held_out]).mean())
        baselines.append(np.abs(scores[fitted].mean() - scores[held_out]).mean())
    mean = dict(zip(keys, np.mean(losses, axis=0).tolist(), strict=True))
    return Importance(
        loss=dict(sorted(mean.items(), key=lambda item: -item[1])),
        error=float(np.mean(errors)),
        baseline=float(np.mean(baselines)),
        num=len(runs),
    )


def _encode(values: Sequence[str]) -> NDArray[np.float64]:
    """Encodes the values of a setting as numbers; words by their position in the alphabet, which suffices for trees."""
    try:
        return np.array([float(value) for value in values])
    except ValueError:
        words = sorted(set(values))
        return np.array([words.index(value) for value in values], np.float64)
