"""Options of the commands that run a sweep."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fireseg.errors import SettingError

EngineName = Literal["local", "ray", "slurm"]

PruneRule = Literal["median", "asha"]

_ENGINE_OF = {"address": "ray", "gpus_per_job": "ray", "sbatch_options": "slurm"}
"""Options that only one engine has."""


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How the jobs of a sweep are run; also options of `python -m fireseg.train -m`.

    Attributes:
        engine: What lends the processes: local runs them on this machine, ray in a Ray cluster, slurm in an array of
            Slurm tasks, which the command submits without waiting for them.
        jobs: Jobs at the same time (default: local 1; ray and slurm as many as they have room for).
        retries: How often a job is tried again, from its last epoch, if it was killed or ran out of memory.
        prune: Stops a job early that is behind at least five others of the sweep: median, behind their median; asha,
            not in their best third (asynchronous successive halving).
        gpus_per_job: ray: GPUs of a job; 0.5 runs two on each (default: 1 if the cluster has any).
        address: ray: address of a running cluster (default: RAY_ADDRESS; without it a Ray of its own, here).
        sbatch_options: slurm: options of sbatch: --sbatch-options="--partition=gpu --gres=gpu:1 --time=8:00:00".

    Raises:
        SettingError: If values are out of range; with all faults.
    """

    engine: EngineName = "local"
    jobs: int | None = None
    retries: int = 2
    prune: PruneRule | None = None
    gpus_per_job: float | None = None
    address: str | None = None
    sbatch_options: str | None = None

    def __post_init__(self) -> None:
        faults = []
        if self.jobs is not None and self.jobs < 1:
            faults.append(f"--jobs: {self.jobs}, but it must be 1 or more")
        if self.retries < 0:
            faults.append(f"--retries: {self.retries}, but it must be 0 or more")
        # Ray packs fractions on one device and gives several whole ones.
        gpus = self.gpus_per_job
        if gpus is not None and not (0 <= gpus <= 1 or (gpus > 1 and gpus == int(gpus))):
            faults.append(f"--gpus-per-job: {gpus}, but it must be a share from 0 to 1, or a whole number")
        for name, engine in _ENGINE_OF.items():
            if getattr(self, name) is not None and self.engine != engine:
                option = f"--{name.replace('_', '-')}"
                faults.append(f"{option}: applies only to --engine {engine}; add it, or leave {option} out")
        if faults:
            raise SettingError(*faults)

    def list_words(self) -> list[str]:
        """Returns the options that differ from their defaults as words of a command line."""
        words = []
        for field in fields(EngineOptions):
            if (value := getattr(self, field.name)) != field.default:
                words.append(f"--{field.name.replace('_', '-')}={value}")
        return words


@dataclass(frozen=True, kw_only=True)
class RunOptions(EngineOptions):
    """Runs what is missing from a sweep, and waits for jobs that other processes run.

    Attributes:
        sweep: Folder of the sweep.
    """

    sweep: Annotated[Path, tyro.conf.Positional]


@dataclass(frozen=True, kw_only=True)
class SearchOptions(EngineOptions):
    """Searches for the settings with the best val/fire_iou with Optuna, each trial a job of a sweep.

    Attributes:
        overrides: Settings as of `python -m fireseg.train`: sweep=search, or values and ranges such as
            'optimizer.lr=tag(log,interval(1e-5,1e-2))' and loss=ce_dice,focal_dice; hydra.sweep.dir=DIR names the
            folder, and goes on with the search that is in it.
        trials: Number of jobs, with those of earlier commands on the same folder.
    """

    overrides: Annotated[tuple[str, ...], tyro.conf.Positional]
    trials: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trials < 1:
            raise SettingError(f"--trials: {self.trials}, but it must be 1 or more")


@dataclass(frozen=True, kw_only=True)
class WorkOptions:
    """Runs jobs of a sweep one after the other until none is left to begin: one process among several.

    Attributes:
        sweep: Folder of the sweep.
        retries: How often a job is tried again, from its last epoch, if it was killed or ran out of memory.
        call: Identity of the command that started this and other processes; a job that failed in one of them is not
            tried again by another (default: a new one).
        job: Number of the only job to run; waits for it if another process runs it (default: all that are left).
        prune: Rule by which a job that is behind others is stopped early.
    """

    sweep: Annotated[Path, tyro.conf.Positional]
    retries: int = 2
    call: str = ""
    job: int | None = None
    prune: PruneRule | None = None


@dataclass(frozen=True, kw_only=True)
class StatusOptions:
    """Lists the jobs of a sweep: finished, running, failed or missing.

    Attributes:
        sweep: Folder of the sweep.
    """

    sweep: Annotated[Path, tyro.conf.Positional]


def split_engine_options(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separates the options of an engine, with their values, from the other words of a command line.

    Returns:
        The other words, and the options.
    """
    names = {f"--{field.name.replace('_', '-')}" for field in fields(EngineOptions)}
    rest: list[str] = []
    options: list[str] = []
    iterator = iter(words)
    for word in iterator:
        name, equals, _ = word.partition("=")
        if name not in names:
            rest.append(word)
        elif equals:
            options.append(word)
        else:
            options += [word, *itertools.islice(iterator, 1)]
    return rest, options


def parse_engine_options(words: Sequence[str]) -> EngineOptions:
    """Parses the options of an engine.

    Raises:
        SettingError: If values are out of range; with all faults. A wrong type ends the process with exit code 2.
    """
    return tyro.cli(EngineOptions, args=words, prog="python -m fireseg.train -m")
