"""Door: a finished run against a split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fireseg.console import metavar, run_command, start_logging
from fireseg.errors import SettingError


def evaluate(
    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    /,
    *,
    split: Literal["test", "val", "train"] = "test",
    data: Annotated[Path | None, metavar("PATCHES")] = None,
    against: Annotated[Path | None, metavar("RUN")] = None,
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto",
    batch_size: Annotated[int | None, metavar("INT")] = None,
    workers: Annotated[int | None, metavar("INT")] = None,
    no_track: bool = False,
) -> int:
    """Says how good a run is, fire by fire, beside an index that costs nothing.

    RUN is a run folder, or a checkpoint in one. Its folder gets evaluation_<split>.json and, to be looked at,
    evaluation_<split>.html. Temperature, threshold and detection rule are chosen on val and only there; they stay in
    calibration.json, where fireseg.predict finds them. It ends with 0 if all is well, 1 if something has to be mended,
    and 2 for a wrong argument.

    Args:
        run: The run.
        split: What it is judged on.
        data: Folder of the patches, if it is not where it was in training, or others are wanted.
        against: Another run: is the difference real? It is evaluated first if it was not yet.
        device: Where the model computes.
        batch_size: Patches at a time; as in training if not given.
        workers: Processes that read patches; as in training if not given.
        no_track: Leave the run as it is in MLflow.
    """
    if faults := [
        f"--{name}: {value}, but {wanted} is the least"
        for name, value, wanted in (("batch-size", batch_size, 1), ("workers", workers, 0))
        if value is not None and value < wanted
    ]:
        raise SettingError(*faults)
    # Only now: seconds that --help need not wait for.
    from fireseg.evaluate.pipeline import EvaluateOptions
    from fireseg.evaluate.pipeline import evaluate as judge

    start_logging()
    judge(
        EvaluateOptions(
            run=run,
            split=split,
            data=data,
            against=against,
            device=device,
            batch_size=batch_size,
            workers=workers,
            is_tracked=not no_track,
        )
    )
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line, does what it says, and returns what to end with."""
    return run_command(
        evaluate, arguments, program="python -m fireseg.evaluate", stopped="the same command begins again"
    )
