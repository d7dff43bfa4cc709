"""What a person at the terminal wants to know at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fireseg.evaluate.results import Content, name_evaluation
from fireseg.runs import TrainedModel
from fireseg.runs.folder import RunFolder
from fireseg.tracker import log_to_existing_run


def format_summary(content: Content) -> Iterator[str]:
    """The lines to be shown, the gain over the index first.

    Args:
        content: Of an evaluation.
    """
    run, data = content["run"], content["data"]
    yield f"{run['name']}, {run['checkpoint']} of epoch {run['epoch']}, on {content['split']}: " + (
        f"{_count(data['fires'], 'fire')}, {data['labelled_pixels']:,} labelled pixels"
    )
    yield _word_gain(content)
    yield from _table(content)
    if content["decision"]["is_optimistic"]:
        yield "threshold and temperature were chosen on these very patches: --split test says what they are worth"
    if (against := content["against"]) is not None:
        yield _word_against(against)


def _word_gain(content: Content) -> str:
    gain = content["gain"]
    if gain["pooled"] is None:
        tuned = next(method for method in content["methods"] if method["name"] == "index_tuned")
        why = "nothing burned, nothing found" if tuned["is_there"] else tuned["note"]
        return f"gain over the index: unknown ({why})"
    return f"gain over the index: {gain['pooled']:+.3f} fire IoU over all pixels; {_word_pairs(gain['per_fire'])}"


def _word_against(against: Mapping[str, Any]) -> str:
    ours, theirs = (_number(against["pooled"][key]) for key in ("ours", "theirs"))
    return f"against {against['name']}: fire IoU {ours} to {theirs}; {_word_pairs(against)}"


def _word_pairs(pairs: Mapping[str, Any]) -> str:
    difference, wins = pairs["difference"], f"better on {pairs['wins']}, worse on {pairs['losses']}"
    if difference["mean"] is None:
        return "no fire to compare"
    interval = _span(difference, "+.3f")
    return f"{interval} mean over fires, {wins} (p = {pairs['p_value']:.2g})"


def _table(content: Content) -> Iterator[str]:
    yield f"{'':24}{'fire IoU':>9}  {'mean over fires':>22}  {'precision':>9}  {'recall':>6}  {'area error':>10}"
    for method in content["methods"]:
        if not method["is_there"]:
            yield f"{method['label']:24}{method['note']}"
            continue
        pixels, error = method["pixels"], method["area"]["relative_error"]
        cells = (
            f"{_number(pixels['fire_iou']):>9}",
            f"{_span(method['fires']['iou'], '.3f'):>22}",
            f"{_number(pixels['fire_precision']):>9}",
            f"{_number(pixels['fire_recall']):>6}",
            f"{'-' if error is None else f'{100 * error:+.1f} %':>10}",
        )
        yield f"{method['label']:24}" + "  ".join(cells)


def _span(interval: Mapping[str, Any], form: str) -> str:
    mean, low, high = (interval[key] for key in ("mean", "low", "high"))
    if mean is None:
        return "-"
    return f"{mean:{form}}" if low is None else f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def log_to_tracker(content: Content, trained: TrainedModel, folder: RunFolder, *, files: Sequence[Path]) -> None:
    """Adds the scores to the run that was tracked in training, at the epoch of the checkpoint, and keeps the files.

    Args:
        content: Of the evaluation.
        trained: What was evaluated.
        folder: Of its run, which knows under which ids it is tracked.
        files: To be kept as artifacts.
    """
    log_to_existing_run(
        trained.settings.get("tracker", {}).get("uri"),
        folder.read_provenance().get("tracking", {}),
        metrics=list_metrics(content),
        step=trained.epoch,
        artifacts=files,
    )


def list_metrics(content: Content) -> dict[str, float | None]:
    """The scores of the model as a chart shows them, `test/fire_iou` first.

    Training has written down `val/` and `train/` as it went; what is found afterwards, with another threshold,
    stands beside it as `evaluation_val/`.
    """
    split, model, gain = content["split"], content["methods"][0], content["gain"]
    tuned = next(method for method in content["methods"] if method["name"] == "index_tuned")
    after = content["calibration"]["after"]
    scores = {
        **model["pixels"],
        **{f"mean_fire_{measure}": interval["mean"] for measure, interval in model["fires"].items()},
        "gain_over_index": gain["pooled"],
        "index_fire_iou": tuned["pixels"]["fire_iou"] if tuned["is_there"] else None,
        **model["edges"],
        **{name: after[name] for name in ("ece", "brier", "nll", "average_precision")},
        "area_relative_error": model["area"]["relative_error"],
        **content["detection"]["rule"],
    }
    name = name_evaluation(split, content["data"]["fingerprint"], content["data"]["trained_on"])
    prefix = name if name == "test" else f"evaluation_{name}"
    return {f"{prefix}/{name}": value for name, value in scores.items()}
