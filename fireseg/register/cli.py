"""Command line of `register`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fireseg.console import metavar, run_command, start_logging


@dataclass(frozen=True, kw_only=True)
class RegisterOptions:
    """Options of `register`.

    Attributes:
        run: Run folder.
        name: Name of the registered model; each run that is registered under it is a version.
        alias: Name that is to stand for this version, such as champion; it leaves the version that it stood for.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    name: Annotated[str, metavar("NAME")] = "burned-area"
    alias: Annotated[str | None, metavar("ALIAS")] = None


def register(options: RegisterOptions) -> int:
    """Registers the best model of a run in MLflow's model registry, as a version with its scores as tags.

    RUN is a run folder. A run that MLflow has not received, whatever tracker it was trained with, is sent first. The
    store is that of the run's settings (tracker.uri), else MLFLOW_TRACKING_URI, else mlflow.db in the working folder.
    A model that is a version already, with the same threshold, gets no second one. The last lines are the commands that
    use the model. Exit codes: 0 success, 1 error, 2 invalid argument.
    """
    # Imported here because torch takes seconds that --help need not wait for.
    from fireseg.register.pipeline import register_run

    start_logging()
    lines = register_run(options.run, name=options.name, alias=options.alias)
    sys.stdout.write("\n".join([*lines, ""]))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return run_command(
        register, arguments, program="python -m fireseg.register", stopped="the same command does the rest"
    )
