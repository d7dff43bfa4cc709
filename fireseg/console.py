"""What a person at the terminal sees of a run."""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import FrameType
from typing import Any

from tqdm import tqdm

from fireseg.errors import FiresegError


class _Terminated(BaseException):
    """SIGTERM came. Not an `Exception`, so that nothing on the way takes it for a fault to go on from."""


def metavar(metavar: str) -> Any:
    """How a door calls an option's value in its help, where None only means that nothing was said."""
    import tyro

    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


def run_command(door: Callable[..., int], arguments: Sequence[str] | None = None, *, program: str, stopped: str) -> int:
    """Reads a command line by the signature of a function, calls it, and says in one line what went wrong.

    Args:
        door: What is typed, as parameters; returns what to end with.
        arguments: The words typed; those of this process if not given.
        program: What stands before them.
        stopped: What is said after Ctrl-C or SIGTERM.

    Returns:
        What to end with: that of the function, that of a `FiresegError`, or 128 and the signal's number.
    """
    import tyro

    signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        return tyro.cli(door, prog=program, args=arguments, config=(tyro.conf.FlagCreatePairsOff,))
    except FiresegError as error:
        for fault in error.faults:
            sys.stderr.write(f"fireseg: {fault}\n")
        return error.exit_code
    except BrokenPipeError:  # as in `| head`: nobody reads on, and Python would complain once more at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        sys.stderr.write(f"fireseg: stopped; {stopped}\n")
        return 128 + signal.SIGINT
    except _Terminated:
        sys.stderr.write(f"fireseg: stopped; {stopped}\n")
        return 128 + signal.SIGTERM


def _raise_terminated(signum: int, frame: FrameType | None) -> None:
    raise _Terminated


class _Console(logging.Handler):
    """Writes lines above a progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        tqdm.write(line if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {line}", file=sys.stdout)


def start_logging() -> None:
    """Shows what the suite logs, once however often it is called."""
    logger = logging.getLogger("fireseg")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if not any(isinstance(handler, _Console) for handler in logger.handlers):
        logger.addHandler(_Console())


def progress_bar(batches: Any, label: str) -> Iterable[Any]:
    """Puts a progress bar with the time left around batches; without a terminal there is none."""
    return tqdm(batches, desc=label, unit="batch", leave=False, disable=not sys.stderr.isatty())


def format_epoch(row: Mapping[str, Any], *, total: int, seconds_left: float) -> str:
    """One line an epoch.

    Args:
        row: The epoch as `metrics.jsonl` has it.
        total: Epochs in all.
        seconds_left: Until the last epoch, at the pace so far.
    """
    names = ("fire_iou", "fire_recall", "detection_f1")
    scores = "  ".join(f"{name} {_score(row[f'val/{name}'])}" for name in names)
    return (
        f"epoch {row['epoch']:>{len(str(total))}}/{total}  "
        f"train loss {_score(row['train/loss'])}  val loss {_score(row['val/loss'])}  {scores}  "
        f"lr {row['lr']:.1e}  {format_seconds(row['seconds'])}, {format_seconds(seconds_left)} left"
        f"{'  * best' if row['best'] else ''}"
    )


def format_seconds(seconds: float) -> str:
    """Seconds as a person says them.

    Example:
        >>> format_seconds(8), format_seconds(200), format_seconds(8000)
        ('8 s', '3 min', '2.2 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _score(value: float) -> str:
    return "  -  " if math.isnan(value) else f"{value:.3f}"
