"""Command that compares runs side by side."""

from __future__ import annotations

from collections.abc import Sequence

from fireseg.console import run_command, start_logging
from fireseg.report.options import ReportOptions


def report(options: ReportOptions) -> int:
    """Compares the runs of a sweep, or any runs, side by side.

    RUN is a run folder, or a sweep folder with several. Runs are ranked by their fire IoU on val; runs that differ
    only in their seed are one entry. Written are leaderboard.html (the table, differences fire by fire, what mattered,
    cost, learning curves and pictures), leaderboard.csv (a row for each run) and leaderboard.md. Runs on different
    patches, folds or tasks are never ranked together. Exit codes: 0 success, 1 error, 2 invalid argument.
    """
    # Imported here because torch takes seconds that --help need not wait for.
    from fireseg.report import pipeline

    start_logging()
    pipeline.write_reports(options)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return run_command(
        report, arguments, program="python -m fireseg.report", stopped="run the same command to start again"
    )
