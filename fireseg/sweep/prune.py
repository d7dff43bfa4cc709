"""Early ends of jobs that are behind the others of their sweep, read off the metrics that these have written.

Every job compares itself at a few epochs, the rungs: its best val/fire_iou up to there with that of each job that has
got as far. No process watches the sweep, so pruning works with every engine, and after any kill.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fireseg.errors import FiresegError
from fireseg.sweep.options import PruneRule
from fireseg.sweep.plan import Job, Plan, read_plan

log = logging.getLogger("fireseg")

MIN_SIBLINGS = 5
"""Number of other jobs that must have reached a rung before one is stopped there."""

REDUCTION = 3
"""Factor between the rungs of asha, which keeps one job in this many at each."""

_GRACE_SHARE = 10
"""The first rung is at a tenth of the epochs."""


_DESCRIPTIONS = {"median": "below the median", "asha": "not in the best third"}


class _Best(NamedTuple):
    score: float
    fingerprint: str  # of the patches: scores on others cannot be compared


def list_rungs(num_epochs: int, rule: PruneRule) -> list[int]:
    """Lists the epochs at which jobs are compared, none of them the last one.

    Args:
        num_epochs: Epochs that a job is to be trained.
        rule: median compares after each tenth of the epochs; asha at rungs that are three times as far each.

    Example:
        >>> list_rungs(50, "median"), list_rungs(50, "asha")
        ([5, 10, 15, 20, 25, 30, 35, 40, 45], [5, 15, 45])
    """
    grace = max(1, num_epochs // _GRACE_SHARE)
    if rule == "median":
        return list(range(grace, num_epochs, grace))
    rungs = [grace]
    while rungs[-1] * REDUCTION < num_epochs:
        rungs.append(rungs[-1] * REDUCTION)
    return [rung for rung in rungs if rung < num_epochs]


def is_behind(own: float, others: Sequence[float], rule: PruneRule) -> bool:
    """Returns True if a job should stop at a rung.

    median is the median stopping rule (Golovin et al. 2017, Google Vizier); asha the stopping form of asynchronous
    successive halving (Li et al. 2020, A System for Massively Parallel Hyperparameter Tuning).

    Args:
        own: Best score of the job so far.
        others: Best scores at the rung of the other jobs that have reached it.
        rule: median stops what is below the median of the others; asha what is not in the best third of all.

    Example:
        >>> is_behind(0.5, [0.4, 0.6, 0.6, 0.7, 0.7], "median"), is_behind(0.6, [0.4, 0.6, 0.6, 0.7, 0.7], "median")
        (True, False)
    """
    if len(others) < MIN_SIBLINGS:
        return False
    if rule == "median":
        return own < statistics.median(others)
    num_better = sum(other > own for other in others)
    return num_better >= max(1, (len(others) + 1) // REDUCTION)


def create_pruning(plan: Plan, job: Job, rule: PruneRule | None) -> Callable[[int], bool]:
    """Returns the function that decides after an epoch of a job if it should stop, and notes the end in `run.json`.

    A decision is final: a run that is killed after it is not trained further when it is resumed.

    Args:
        plan: The sweep.
        job: The job.
        rule: The rule; None if no job is stopped.
    """
    folder = plan.get_folder(job)
    rungs = list_rungs(job.settings["engine"]["epochs"], rule) if rule else []

    def should_prune(epoch: int) -> bool:
        if "pruned" in folder.read_provenance():
            return True
        if rule is None or epoch not in rungs:
            return False
        if (own := _read_best(plan, job, epoch)) is None:
            return False
        jobs = read_plan(plan.path).jobs  # a search has added some since
        others = [_read_best(plan, other, epoch) for other in jobs if other.number != job.number]
        scores = [other.score for other in others if other and other.fingerprint == own.fingerprint]
        if not is_behind(own.score, scores, rule):
            return False
        folder.write_provenance({"pruned": {"epoch": epoch, "rule": rule, "score": own.score, "others": scores}})
        log.info(
            "pruned at epoch %d: val/fire_iou %.4f is %s of %d other jobs",
            *(epoch, own.score, _DESCRIPTIONS[rule], len(scores)),
        )
        return True

    return should_prune


def _read_best(plan: Plan, job: Job, epoch: int) -> _Best | None:
    """Reads the best score of a job up to an epoch; None if the job is not as far."""
    folder = plan.get_folder(job)
    try:
        rows, provenance = folder.read_metrics(), folder.read_provenance()
    except FiresegError as error:  # damaged files of another job are no reason to stop this one
        log.warning("%s", error)
        return None
    scores = [row["val/fire_iou"] for row in rows if row["epoch"] <= epoch and row["val/fire_iou"] is not None]
    if not scores or rows[-1]["epoch"] < epoch:
        return None
    return _Best(score=max(scores), fingerprint=provenance.get("data", {}).get("fingerprint", ""))
