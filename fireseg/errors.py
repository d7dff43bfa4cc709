"""Errors that a user can fix, suggestions for misspelt names, and shortened lists."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

MAX_FAULTS_SHOWN = 20
"""Number of faults that an error lists; the others are only counted."""


class FiresegError(Exception):
    """One or more faults that a user can fix, each worded *place: what came, what is wanted, what to do*.

    Args:
        *faults: One sentence for each fault found, not only the first.

    Attributes:
        exit_code: Exit code of a command that ends with this error.

    Example:
        >>> str(FiresegError("patches: no such folder; python -m fireseg.prepare creates it"))
        'patches: no such folder; python -m fireseg.prepare creates it'
    """

    exit_code = 1

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class SettingError(FiresegError):
    """An invalid setting or option, found before anything is built."""

    exit_code = 2


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns ` (did you mean 'encoder'?)`, or an empty text if no known name is close.

    Example:
        >>> did_you_mean("encodr", ["arch", "encoder"])
        " (did you mean 'encoder'?)"
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""


def shorten(faults: Sequence[str]) -> list[str]:
    """Returns the first 20 faults, and a line with the number of the others if there are more.

    Example:
        >>> shorten([f"fault {number}" for number in range(25)])[-2:]
        ['fault 19', 'and 5 more']
    """
    num_more = len(faults) - MAX_FAULTS_SHOWN
    return [*faults[:MAX_FAULTS_SHOWN], *([f"and {num_more} more"] if num_more > 0 else [])]


def join_names(names: Sequence[str], limit: int) -> str:
    """Joins names with commas, and ends with an ellipsis if there are more than the limit.

    Example:
        >>> join_names(["a", "b", "c"], 2)
        'a, b, …'
    """
    return ", ".join(names[:limit]) + ", …" * (len(names) > limit)
