"""Compares the entries of a leaderboard with its best entry, fire by fire."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fireseg.console import format_command
from fireseg.runs.leaderboard import Entry, Table
from fireseg.runs.summary import RunSummary, list_differences

if TYPE_CHECKING:
    from fireseg.metric.interval import PairedComparison


@dataclass(frozen=True)
class Difference:
    """Comparison of an entry with the best one on the same fires.

    Attributes:
        rank: Rank of the entry.
        entry: The entry.
        pairs: Scores of the entry minus those of the best one; None if it cannot be compared.
        reason: Reason why it cannot be compared; empty otherwise.
    """

    rank: int
    entry: Entry
    pairs: PairedComparison | None
    reason: str = ""


def compare_to_best(table: Table, split: str) -> list[Difference]:
    """Compares each entry with the first one by the IoU of each fire, the mean over the seeds.

    Args:
        table: Ranked entries.
        split: Evaluated split.

    Returns:
        One difference for each entry but the first; empty if the first is not evaluated.
    """
    from fireseg.metric import compare_paired

    best, *others = table.entries
    theirs = best.fire_ious(split)
    if theirs is None:
        return []
    differences = []
    for rank, entry in enumerate(others, start=2):
        ours = entry.fire_ious(split)
        if ours is None:
            reason = f"{_count_missing(entry, split)} of {len(entry.runs)} runs not evaluated on {split}"
            differences.append(Difference(rank, entry, None, reason))
        elif faults := _find_faults(entry, best, split):
            differences.append(Difference(rank, entry, None, "; ".join(faults[:3])))
        else:
            pairs = compare_paired([ours[name] for name in theirs], list(theirs.values()))
            differences.append(Difference(rank, entry, pairs))
    return differences


def _count_missing(entry: Entry, split: str) -> int:
    return sum(split not in run.evaluations for run in entry.runs)


def _find_faults(entry: Entry, best: Entry, split: str) -> list[str]:
    reference = best.runs[0].evaluations[split]
    faults = (list_differences(run.evaluations[split], reference) for run in (*entry.runs, *best.runs))
    return [fault for each in faults for fault in each]


def find_unevaluated(table: Table, split: str) -> list[RunSummary]:
    """Lists the ranked runs without a usable evaluation on a split, best entry first.

    Args:
        table: Ranked entries.
        split: Split to evaluate on.
    """
    return [run for entry in table.entries for run in entry.runs if split not in run.evaluations]


def format_evaluations(runs: Sequence[RunSummary], split: str) -> list[str]:
    """Formats the commands that evaluate runs.

    Args:
        runs: Runs without an evaluation.
        split: Split to evaluate on.
    """
    return [format_command("evaluate", run.path, "--split", split) for run in runs]


def is_certain(pairs: PairedComparison) -> bool:
    """Returns True if the interval of the mean difference excludes 0; False with too few fires for an interval."""
    low, high = pairs.difference.low, pairs.difference.high
    return not math.isnan(low) and not low <= 0 <= high
