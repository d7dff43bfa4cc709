"""What the tracker of a run learns of its evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fireseg.evaluating.result import Content, name_evaluation
from fireseg.rundir import RunFolder
from fireseg.tracker import add_to_run
from fireseg.trained import Trained


def track(content: Content, trained: Trained, folder: RunFolder, *, files: Sequence[Path]) -> None:
    """Adds the scores to the run that was tracked in training, at the epoch of the checkpoint, and keeps the files.

    Args:
        content: Of the evaluation.
        trained: What was evaluated.
        folder: Of its run, which knows under which ids it is tracked.
        files: To be kept as artifacts.
    """
    add_to_run(
        trained.settings.get("tracker", {}).get("uri"),
        folder.read_facts().get("tracking", {}),
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
