"""The dict of an evaluation, put together key by key: see `result`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fireseg import __version__
from fireseg.evaluating.deciding import Decision
from fireseg.evaluating.detecting import score_plainly, score_rule
from fireseg.evaluating.measuring import INDEX_FIXED, INDEX_TUNED, METHODS, MODEL, MODEL_ARGMAX, FireScores
from fireseg.evaluating.opening import Patches, Split
from fireseg.evaluating.result import FORMAT, Content, to_plain
from fireseg.evaluating.tables import compare_to_index, describe_fire, group_fires, score_method
from fireseg.metric import precision_recall, reliability, score_calibration
from fireseg.trained import Trained

MAX_POINTS = 200
"""Of the precision-recall curve."""


class Rules(NamedTuple):
    """What burns by an index.

    Attributes:
        threshold: Of the burn ratio, from train; None where there is none.
        tuned_note: What is known of it, or why it is not there.
        fixed_note: The same of the fixed rule.
    """

    threshold: float | None
    tuned_note: str
    fixed_note: str


def put_together(
    trained: Trained, patches: Patches, split: Split, *, fires: Sequence[FireScores], decision: Decision, rules: Rules
) -> Content:
    """Everything but the comparison with another run, in plain values.

    Args:
        trained: The model.
        patches: What it was judged on.
        split: Of these.
        fires: All fires of the split.
        decision: By which the model was judged.
        rules: By which the indices were.
    """
    rows = [describe_fire(fire) for fire in fires]
    odds = np.sum([fire.odds for fire in fires], axis=0)
    methods = [_describe_method(name, trained, fires, decision, rules) for name in METHODS]
    listed = [patch for fire in fires for patch in fire.patches]
    content = {
        "format": FORMAT,
        "split": split,
        "run": _describe_run(trained),
        "data": _describe_data(trained, patches, split, fires),
        "decision": _describe_decision(decision, split),
        "methods": methods,
        "gain": compare_to_index(fires),
        "confusion": np.sum([fire.methods[MODEL].confusion for fire in fires], axis=0),
        "calibration": describe_calibration(odds, decision, methods[0]["pixels"]),
        "detection": {"plain": methods[0]["detection"], "rule": score_rule(listed, decision.rule)},
        "fires": rows,
        "groups": group_fires(rows),
        "against": None,
    }
    return to_plain(content)


def describe_calibration(odds: NDArray[np.int64], decision: Decision, pixels: Mapping[str, float]) -> dict[str, Any]:
    """How honest the probabilities are, before and after the temperature.

    Args:
        odds: From `metric.count_odds`, over all fires.
        decision: From val.
        pixels: Scores of the model at its threshold.
    """
    temperatures = {"before": 1.0, "after": decision.temperature}
    curve = precision_recall(odds, temperature=decision.temperature)
    num_points = len(curve.threshold)
    shown = np.unique(np.linspace(0, num_points - 1, min(num_points, MAX_POINTS)).round().astype(int))
    return {
        **{when: score_calibration(odds, temperature=value) for when, value in temperatures.items()},
        "reliability": {when: reliability(odds, temperature=value) for when, value in temperatures.items()},
        "precision_recall": {name: values[shown] for name, values in curve._asdict().items()},
        "operating_point": {
            "threshold": decision.threshold,
            "precision": pixels["fire_precision"],
            "recall": pixels["fire_recall"],
        },
    }


def _describe_run(trained: Trained) -> dict[str, Any]:
    assert trained.folder is not None
    folder, task = trained.folder.path.resolve(), trained.task
    return {
        "folder": str(folder),
        "name": folder.name,
        "checkpoint": trained.checkpoint.name,
        "sha256": trained.sha256,
        "epoch": trained.epoch,
        "task": task.name,
        "class_names": task.class_names,
        "colours": task.colours,
        "arch": trained.settings["model"].get("arch"),
        "encoder": trained.settings["model"].get("encoder"),
        "bands": trained.bands,
        "version": __version__,
    }


def _describe_data(trained: Trained, patches: Patches, split: Split, fires: Sequence[FireScores]) -> dict[str, Any]:
    return {
        "root": str(patches.root),
        "fingerprint": patches.fingerprint,
        "trained_on": trained.fingerprint,
        "is_same": patches.fingerprint == trained.fingerprint,
        "leaks": patches.leaks,
        "patches": len(patches.get(split)),
        "fires": len(fires),
        "labelled_pixels": sum(fire.labelled_pixels for fire in fires),
        "hectares_known": all(fire.true_ha is not None for fire in fires),
    }


def _describe_decision(decision: Decision, split: Split) -> dict[str, Any]:
    return {
        "temperature": decision.temperature,
        "threshold": decision.threshold,
        "rule": {"min_pixels": decision.rule.min_pixels, "min_probability": decision.least_peak},
        "chosen_on": "val" if decision.is_chosen else None,
        "is_optimistic": split == "val",
    }


def _describe_method(
    name: str, trained: Trained, fires: Sequence[FireScores], decision: Decision, rules: Rules
) -> dict[str, Any]:
    label, note = _word_method(name, decision, rules)
    is_there = all(name in fire.methods for fire in fires)
    about = {"name": name, "label": label, "note": note, "is_there": is_there}
    if not is_there:
        return about | dict.fromkeys(("pixels", "fires", "edges", "area", "detection"))
    patches = [patch for fire in fires for patch in fire.patches]
    calls = {
        MODEL: [patch.peak_odds >= decision.least_odds for patch in patches],
        MODEL_ARGMAX: [patch.is_argmax for patch in patches],
        INDEX_TUNED: [rules.threshold is not None and patch.lowest_ratio < rules.threshold for patch in patches],
        INDEX_FIXED: [patch.is_fixed for patch in patches],
    }
    scores = score_method(name, fires, trained.task.class_names)
    return {**about, **scores, "detection": score_plainly(patches, calls[name])}


def _word_method(name: str, decision: Decision, rules: Rules) -> tuple[str, str]:
    where = "both chosen on val" if decision.is_chosen else "val had no fire to choose on"
    at_least = f"burned where the probability is {decision.threshold:.3g} or more"
    return {
        MODEL: ("model", f"{at_least}, temperature {decision.temperature:.3g}, {where}"),
        MODEL_ARGMAX: ("model, likeliest class", "as training reports it: no threshold, no temperature"),
        INDEX_TUNED: ("burn ratio, tuned", rules.tuned_note),
        INDEX_FIXED: ("burn ratio, fixed", rules.fixed_note),
    }[name]
