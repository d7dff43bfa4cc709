"""Command line of `python -m fireseg.sweep`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from fireseg.console import run_command
from fireseg.sweep.options import RunOptions, SearchOptions, StatusOptions, WorkOptions

Command = (
    Annotated[RunOptions, tyro.conf.subcommand("run")]
    | Annotated[SearchOptions, tyro.conf.subcommand("search")]
    | Annotated[StatusOptions, tyro.conf.subcommand("status")]
    | Annotated[WorkOptions, tyro.conf.subcommand("work")]
)


def manage_sweep(options: Command) -> int:
    """Runs the missing jobs of a sweep, lists their states, or searches for the best settings.

    `python -m fireseg.train -m …` begins a sweep; `search` begins one itself.

    Several commands may run the same sweep, on one machine or on several that share a disk: each job is run
    by one of them. Exit codes: 0 if all jobs are finished, 1 if a job failed, 2 for a wrong argument.
    """
    from fireseg.sweep.plan import read_plan
    from fireseg.sweep.run import run_sweep, work
    from fireseg.sweep.status import format_status, read_statuses

    if isinstance(options, SearchOptions):
        from fireseg.sweep.search import run_search  # imports Hydra

        return run_search(options)
    plan = read_plan(options.sweep)
    if isinstance(options, StatusOptions):
        sys.stdout.write("\n".join([*format_status(read_statuses(plan)), ""]))
        return 0
    return work(options, plan) if isinstance(options, WorkOptions) else run_sweep(plan, options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line, runs the command and returns its exit code."""
    stopped = "the same command runs the rest"
    return run_command(manage_sweep, arguments, program="python -m fireseg.sweep", stopped=stopped)
