"""Options of the commands that run a sweep."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fireseg.errors import SettingError

EngineName = Literal["local"]


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How the jobs of a sweep are run; also options of `python -m fireseg.train -m`.

    Attributes:
        engine: What lends the processes: local runs them on this machine.
        jobs: Jobs at the same time; each gets an equal share of the cores.
        retries: How often a job is tried again, from its last epoch, if it was killed or ran out of memory.

    Raises:
        SettingError: If values are out of range; with all faults.
    """

    engine: EngineName = "local"
    jobs: int = 1
    retries: int = 2

    def __post_init__(self) -> None:
        faults = []
        if self.jobs < 1:
            faults.append(f"--jobs: {self.jobs}, but it must be 1 or more")
        if self.retries < 0:
            faults.append(f"--retries: {self.retries}, but it must be 0 or more")
        if faults:
            raise SettingError(*faults)


@dataclass(frozen=True, kw_only=True)
class RunOptions(EngineOptions):
    """Runs what is missing from a sweep, and waits for jobs that other processes run.

    Attributes:
        sweep: Folder of the sweep.
    """

    sweep: Annotated[Path, tyro.conf.Positional]


@dataclass(frozen=True, kw_only=True)
class WorkOptions:
    """Runs jobs of a sweep one after the other until none is left to begin: one process among several.

    Attributes:
        sweep: Folder of the sweep.
        retries: How often a job is tried again, from its last epoch, if it was killed or ran out of memory.
        call: Identity of the command that started this and other processes; a job that failed in one of them is not
            tried again by another (default: a new one).
    """

    sweep: Annotated[Path, tyro.conf.Positional]
    retries: int = 2
    call: str = ""


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
