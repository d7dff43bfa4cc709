"""Command that evaluates a trained run on a split."""

from __future__ import annotations

from collections.abc import Sequence

from fireseg.console import run_command, start_logging
from fireseg.evaluate.options import EvaluateOptions


def evaluate(options: EvaluateOptions) -> int:
    """Evaluates a trained run fire by fire and compares it with the NBR baseline.

    RUN is a run folder or a checkpoint in one; RUN1,RUN2,… are evaluated as one model, the mean of their probabilities.
    The results are written to the run folder, or to the folder ensemble_… beside the first: evaluation_<split>.json and
    the report evaluation_<split>.html. Temperature, threshold and detection rule are chosen on val and stored in
    calibration.json, which fireseg.predict reads. Exit codes: 0 success, 1 error, 2 invalid argument.
    """
    # Imported here because torch takes seconds that --help need not wait for.
    from fireseg.evaluate import pipeline

    start_logging()
    pipeline.evaluate(options)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return run_command(
        evaluate, arguments, program="python -m fireseg.evaluate", stopped="run the same command to start again"
    )
