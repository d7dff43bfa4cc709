"""Command line of `python -m fireseg.runs`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fireseg.console import print_error, run_command, start_logging
from fireseg.errors import FiresegError, SettingError


@dataclass(frozen=True)
class RunsOptions:
    """Command-line options of `python -m fireseg.runs`.

    Attributes:
        command: `sync` sends MLflow the epochs and files that it has not received.
        runs: Run folders.
    """

    command: Annotated[Literal["sync"], tyro.conf.Positional]
    runs: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...", help_behavior_hint="(required)")
    ]


def manage_runs(options: RunsOptions) -> int:
    """Sends finished or interrupted runs to MLflow after its server was down during the training.

    What MLflow has received already is not sent again. The server is the one of the run's settings
    (tracker.uri), or MLFLOW_TRACKING_URI. Exit codes: 0 if MLflow has everything, 1 if a run could not be
    sent (the others are), 2 for a wrong argument.
    """
    from fireseg.runs.sync import sync_run

    start_logging()
    if not options.runs:
        raise SettingError("RUN: no run folder given; outputs/ and multirun/ contain the runs")
    exit_code = 0
    for path in options.runs:
        try:
            sys.stdout.write(f"{sync_run(path)}\n")
        except FiresegError as error:
            exit_code = max(exit_code, print_error(error))
    return exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line, runs the command and returns its exit code."""
    stopped = "the same command sends the rest"
    return run_command(manage_runs, arguments, program="python -m fireseg.runs", stopped=stopped)
