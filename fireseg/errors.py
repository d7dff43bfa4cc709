"""What a user can mend, and the nearest right name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FiresegError(Exception):
    """One fault or several, each worded *place: what came, what is wanted, what to do*.

    Args:
        *faults: One sentence a fault. All that were found, not just the first.

    Attributes:
        exit_code: What a door ends with when this error reaches it.

    Example:
        >>> str(FiresegError("patches: no such folder; python -m fireseg.prepare makes it"))
        'patches: no such folder; python -m fireseg.prepare makes it'
    """

    exit_code = 1

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class SettingError(FiresegError):
    """A setting that cannot be: found before anything is built."""

    exit_code = 2


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns ` (did you mean 'encoder'?)`, or nothing where no known name is near.

    Example:
        >>> did_you_mean("encodr", ["arch", "encoder"])
        " (did you mean 'encoder'?)"
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""
