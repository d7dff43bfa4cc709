"""Command line of `benchmark`."""

from __future__ import annotations

from collections.abc import Sequence

from fireseg.benchmark.options import BenchmarkOptions
from fireseg.console import run_command, start_logging


def benchmark(options: BenchmarkOptions) -> int:
    """Judges training recipes by cross-validation over fires.

    PROTOCOL is a YAML file with the folds, the seeds and the recipes (docs/benchmark.md); TILES a folder of tiles, as
    of `prepare`. Every recipe is trained on each fold with each seed, and every fire is judged once for each seed, by a
    model that saw neither it nor its neighbours; thresholds come from other fires than those judged. The table
    compares each recipe with the first, fire by fire; it is written as results.md, results.csv, results.json and
    results.png. Trainings and evaluations that are done are not repeated, so the same command goes on after it was
    stopped or killed, or with recipes that were added to the protocol.
    The exit code is 0 on success, 1 if a training failed, and 2 for an invalid argument or protocol.
    """
    # Imported here, so that --help answers without waiting for torch.
    from fireseg.benchmark.pipeline import run_benchmark

    start_logging()
    return run_benchmark(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command with the given arguments, `sys.argv[1:]` if None, and returns the exit code."""
    return run_command(benchmark, arguments, program="python -m fireseg.benchmark", stopped="the same command goes on")
