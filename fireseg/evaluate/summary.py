"""Terminal summary of an evaluation, and its metrics for the tracker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fireseg.console import format_count, format_interval, format_score, format_table
from fireseg.evaluate.off_centre import VIEWS
from fireseg.evaluate.results import Results, name_evaluation
from fireseg.runs import TrainedModel
from fireseg.runs.checkpoint import SelfTraining
from fireseg.runs.folder import RunFolder
from fireseg.runs.sync import describe_results
from fireseg.tracker import log_to_existing_run
from fireseg.tracker.protocol import name_metric


def format_summary(results: Results) -> Iterator[str]:
    """Formats the lines printed at the end, in the words of the JSON file.

    Args:
        results: Results of an evaluation.
    """
    run, data, gain, against = (results[key] for key in ("run", "data", "gain", "against"))
    yield (
        f"{run['name']}, {_describe_origin(run)}, on {results['split']}: "
        f"{format_count(data['fires'], 'fire')}, "
        + (f"{format_count(data['unburned_tiles'], 'tile')} without fire, " if data["unburned_tiles"] else "")
        + f"{format_count(data['labelled_pixels'], 'labelled pixel')}"
    )
    if run.get("self_training"):
        yield f"self-training: {SelfTraining(**run['self_training'])}"
    if gain["pooled"] is None:
        tuned = _get_method(results, "index_tuned")
        reason = "nothing burned" if tuned["is_there"] else tuned["note"]
        yield f"gain over index_tuned: unknown ({reason})"
    else:
        yield f"gain over index_tuned: fire_iou {gain['pooled']:+.3f} pooled; {_format_pairs(gain['per_fire'])}"
    yield from format_table([*_list_rows(results)], align="<" + ">" * 5)
    if data["unburned_tiles"]:
        for method in results["methods"]:
            if method["is_there"]:
                yield f"{method['name']}: {format_false_alarms(method['unburned'])}"
    if results["off_centre"]:
        for view, description in VIEWS.items():
            pair = results["off_centre"][view]
            before, after = (format_score(pair["pooled"][key]) for key in ("centred", "off_centre"))
            yield f"{description}: fire_iou {after} instead of {before}; {_format_pairs(pair)}"
        if results["off_centre"]["advice"]:
            yield results["off_centre"]["advice"]
    yield f"threshold {results['decision']['threshold']:.3g}: {results['decision']['threshold_reason']}"
    if results["decision"]["chosen_on"] and results["decision"]["is_optimistic"]:
        yield "threshold and temperature were chosen on these patches, so scores are optimistic; use --split test"
    if against is not None:
        ours, theirs = (format_score(against["pooled"][key]) for key in ("ours", "theirs"))
        yield f"against {against['name']}: fire_iou {ours}, theirs {theirs}; {_format_pairs(against)}"
        if data["unburned_tiles"]:
            yield f"against {against['name']}: theirs {format_false_alarms(against['unburned']['theirs'])}"


def format_false_alarms(unburned: Mapping[str, Any]) -> str:
    """Formats the false alarms of a method on tiles on which nothing burned.

    Example:
        >>> format_false_alarms({"num": 3, "num_false_alarms": 2, "predicted_ha": 4.2, "ha_per_1000_km2": 1.9})
        '3 tiles without fire: false alarms on 2, 4.2 ha, 1.9 ha per 1000 km²'
    """
    text = f"{format_count(unburned['num'], 'tile')} without fire: false alarms on {unburned['num_false_alarms']}"
    if unburned["predicted_ha"] is None:
        return f"{text}, {format_count(unburned['predicted_pixels'], 'pixel')}"
    return f"{text}, {unburned['predicted_ha']:,.1f} ha, {unburned['ha_per_1000_km2']:,.1f} ha per 1000 km²"


def _format_pairs(pairs: Mapping[str, Any]) -> str:
    if pairs["difference"]["mean"] is None:
        return "no fire to compare"
    difference = format_interval(pairs["difference"], "+.3f")
    return f"{difference} per fire, wins {pairs['wins']}, losses {pairs['losses']}, p_value {pairs['p_value']:.2g}"


def _describe_origin(run: Mapping[str, Any]) -> str:
    if "members" in run:
        return f"mean of {', '.join(member['name'] for member in run['members'])}"
    return f"{run['checkpoint']} of epoch {run['epoch']}"


def _list_rows(results: Results) -> Iterator[list[str]]:
    yield ["method", "fire_iou", "iou over fires", "fire_precision", "fire_recall", "relative_error of area"]
    for method in results["methods"]:
        if not method["is_there"]:
            yield [method["name"], method["note"]]
            continue
        pixels, error = method["pixels"], method["area"]["relative_error"]
        yield [
            method["name"],
            format_score(pixels["fire_iou"]),
            format_interval(method["fires"]["iou"]),
            format_score(pixels["fire_precision"]),
            format_score(pixels["fire_recall"]),
            "-" if error is None else f"{100 * error:+.1f} %",
        ]


def _get_method(results: Results, name: str) -> Mapping[str, Any]:
    return next(method for method in results["methods"] if method["name"] == name)


def log_to_tracker(results: Results, trained: TrainedModel, folder: RunFolder, *, files: Sequence[Path]) -> None:
    """Logs the scores and files to the tracked run of the training, at the epoch of the checkpoint.

    Args:
        results: Results of an evaluation.
        trained: Evaluated model.
        folder: Folder of its run, with the ids of the tracked run.
        files: Files to log as artifacts.
    """
    log_to_existing_run(
        trained.settings.get("tracker", {}).get("uri"),
        folder.read_provenance().get("tracking", {}),
        metrics=list_metrics(results),
        step=trained.epoch,
        artifacts=files,
        description=describe_results(folder),
    )


def list_metrics(results: Results) -> dict[str, float | None]:
    """Lists the scores of the model by metric name, `test/fire_iou` first.

    Metrics of other evaluations are prefixed as `evaluation_val/`, because training has logged `val/` and `train/`.
    """
    model, tuned = results["methods"][0], _get_method(results, "index_tuned")
    after = results["calibration"]["after"]
    scores = {
        **model["pixels"],
        **{f"mean_fire_{measure}": interval["mean"] for measure, interval in model["fires"].items()},
        "gain_over_index": results["gain"]["pooled"],
        "index_fire_iou": tuned["pixels"]["fire_iou"] if tuned["is_there"] else None,
        **model["edges"],
        **{name: after[name] for name in ("ece", "brier", "nll", "average_precision")},
        "area_relative_error": model["area"]["relative_error"],
        **results["detection"]["rule"],
    }
    name = name_evaluation(results["split"], results["data"]["fingerprint"], results["data"]["trained_on"])
    prefix = name if name == "test" else f"evaluation_{name}"
    return {name_metric(f"{prefix}/{name}"): value for name, value in scores.items()}
