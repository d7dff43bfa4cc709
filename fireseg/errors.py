"""Errors that a user can fix, and those that nothing foresaw; suggestions for misspelt names, and shortened lists."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

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


class OutOfMemoryError(FiresegError):
    """Memory ran out for one scene, tile or product."""


@contextmanager
def convert_unexpected_errors(location: object) -> Iterator[None]:
    """Converts exceptions that nothing foresaw to a fault of one scene, tile or product, so that the others go on.

    It is for loops over inputs of a user alone. The traceback is printed on stderr, because such an error is a bug.

    Args:
        location: The file or address that is processed.

    Raises:
        FiresegError: If an exception is raised in the context; a `FiresegError` is passed on.
    """
    try:
        yield
    except (FiresegError, BrokenPipeError):
        raise
    except Exception as error:
        if _is_out_of_memory(error):
            raise OutOfMemoryError(
                f"{location}: memory ran out; close other programs, or use a machine with more"
            ) from error
        traceback.print_exc()
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise FiresegError(
            f"{location}: unexpected error ({text}), which is a bug of fireseg; report it with the traceback above"
        ) from error


def _is_out_of_memory(error: Exception) -> bool:
    """Returns True also for a library that the loader of the system has no memory to map."""
    return isinstance(error, MemoryError) or (isinstance(error, ImportError) and "failed to map segment" in str(error))


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
