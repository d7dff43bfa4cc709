"""Two runs on the same fires: is the difference real?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fireseg.errors import FiresegError
from fireseg.evaluate.results import Content, to_dict
from fireseg.metric import compare_paired
from fireseg.runs import TrainedModel


def check_comparable(ours: TrainedModel, theirs: TrainedModel) -> None:
    """Refuses to compare runs that were not trained for the same thing on the same patches.

    Args:
        ours: The run that is evaluated.
        theirs: The one that it is held against.

    Raises:
        FiresegError: With everything in which they differ.
    """
    facts = {
        "task": (_name_task(ours), _name_task(theirs)),
        "patches that they were trained on (fingerprint)": (ours.fingerprint[:12], theirs.fingerprint[:12]),
        "patches that they were trained on (data.root)": (_get_root(ours), _get_root(theirs)),
    }
    differing = {what: pair for what, pair in facts.items() if pair[0] != pair[1]}
    # Where the same patches lie is of no consequence; where others do, it tells which is which.
    if set(differing) <= {"patches that they were trained on (data.root)"}:
        return
    raise FiresegError(
        f"--against {_name_run(theirs)}: not comparable with {_name_run(ours)}, because what differs is more than the "
        "model; train both for one task and on one folder of patches",
        *(f"  {what}: {our}, theirs {their}" for what, (our, their) in differing.items()),
    )


def compare_runs(ours: Content, theirs: Content) -> dict[str, Any]:
    """Pairs two evaluations fire by fire.

    Args:
        ours: The evaluation of our run.
        theirs: That of the other one.

    Returns:
        The key `against` of an evaluation.

    Raises:
        FiresegError: If they did not see the same labels of the same fires of one split.
    """
    name = theirs["run"]["name"]
    if faults := _list_differences(ours, theirs):
        raise FiresegError(
            f"--against {name}: was not judged on the same pixels as {ours['run']['name']}; "
            "evaluate both on the same patches (--data)",
            *(f"  {fault}" for fault in faults),
        )
    labels = {fire["name"]: fire["iou"] for fire in theirs["fires"]}
    fires = [{"name": fire["name"], "ours": fire["iou"], "theirs": labels[fire["name"]]} for fire in ours["fires"]]
    pairs = compare_paired([_as_nan(fire["ours"]) for fire in fires], [_as_nan(fire["theirs"]) for fire in fires])
    pooled = {key: one["methods"][0]["pixels"]["fire_iou"] for key, one in (("ours", ours), ("theirs", theirs))}
    return to_dict(
        {
            "name": name,
            "sha256": theirs["run"]["sha256"],
            "split": theirs["split"],
            **pairs._asdict(),
            "pooled": pooled,
            "fires": fires,
        }
    )


def _list_differences(ours: Content, theirs: Content) -> list[str]:
    facts = {
        "split": (ours["split"], theirs["split"]),
        "task": (ours["run"]["task"], theirs["run"]["task"]),
        "classes": (ours["run"]["class_names"], theirs["run"]["class_names"]),
        "patches (fingerprint)": (ours["data"]["fingerprint"][:12], theirs["data"]["fingerprint"][:12]),
    }
    faults = [f"{what}: {our}, theirs {their}" for what, (our, their) in facts.items() if our != their]
    truths = [{fire["name"]: fire["truth_sha256"] for fire in one["fires"]} for one in (ours, theirs)]
    for fire in sorted(truths[0].keys() | truths[1].keys()):
        if truths[0].get(fire) != truths[1].get(fire):
            faults.append(f"fire {fire}: {_word_truth(fire, *truths)}")
    return faults


def _word_truth(fire: str, ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    if fire in ours and fire in theirs:
        return "labelled differently"
    return "ours alone" if fire in ours else "theirs alone"


def _as_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _name_task(trained: TrainedModel) -> str:
    return f"{trained.task.name} ({' '.join(trained.task.class_names)})"


def _name_run(trained: TrainedModel) -> str:
    return (trained.folder.path if trained.folder else trained.checkpoint).name


def _get_root(trained: TrainedModel) -> str:
    return str(trained.settings["data"].get("root"))
