"""Comparison of two runs on the same fires."""

from __future__ import annotations

import math
from typing import Any

from fireseg.errors import FiresegError
from fireseg.evaluate.results import to_dict
from fireseg.metric import compare_paired
from fireseg.runs import TrainedModel
from fireseg.runs.summary import Results, list_differences

_ROOT = "training patches (data.root)"


def check_comparable(ours: TrainedModel, theirs: TrainedModel) -> None:
    """Checks that two runs were trained for the same task on the same patches.

    Args:
        ours: Run that is evaluated.
        theirs: Run to compare with.

    Raises:
        FiresegError: If they differ; it lists all differences.
    """
    pairs = {
        "task": (_format_task(ours), _format_task(theirs)),
        "training patches (fingerprint)": (ours.fingerprint[:12], theirs.fingerprint[:12]),
        _ROOT: tuple(str(run.settings["data"].get("root")) for run in (ours, theirs)),
    }
    differences = {what: pair for what, pair in pairs.items() if pair[0] != pair[1]}
    # The same patches may have moved; the folder is only listed to tell different patches apart.
    if set(differences) <= {_ROOT}:
        return
    raise FiresegError(
        f"--against {theirs.name}: not comparable with {ours.name}, because more than the model differs; "
        "train both for one task and on one folder of patches",
        *(f"  {what}: {our}, theirs {their}" for what, (our, their) in differences.items()),
    )


def compare_runs(ours: Results, theirs: Results) -> dict[str, Any]:
    """Compares two evaluations fire by fire.

    Args:
        ours: Results of this run.
        theirs: Results of the other run.

    Returns:
        Value of the key `against` of the results.

    Raises:
        FiresegError: If the evaluations are not of the same labels of the same fires and split.
    """
    name = theirs["run"]["name"]
    if faults := list_differences(ours, theirs):
        raise FiresegError(
            f"--against {name}: not evaluated on the same pixels as {ours['run']['name']}; "
            "evaluate both on the same patches (--data)",
            *(f"  {fault}" for fault in faults),
        )
    ious = {fire["name"]: fire["iou"] for fire in theirs["fires"]}
    fires = [{"name": fire["name"], "ours": fire["iou"], "theirs": ious[fire["name"]]} for fire in ours["fires"]]
    our_ious, their_ious = (
        [math.nan if fire[key] is None else fire[key] for fire in fires] for key in ("ours", "theirs")
    )
    return to_dict(
        {
            "name": name,
            "sha256": theirs["run"]["sha256"],
            "split": theirs["split"],
            **compare_paired(our_ious, their_ious)._asdict(),
            "pooled": {
                key: results["methods"][0]["pixels"]["fire_iou"]
                for key, results in (("ours", ours), ("theirs", theirs))
            },
            "unburned": {
                key: results["methods"][0]["unburned"] for key, results in (("ours", ours), ("theirs", theirs))
            },
            "fires": fires,
        }
    )


def _format_task(trained: TrainedModel) -> str:
    return f"{trained.task.name} ({' '.join(trained.task.class_names)})"
