"""Options of `python -m fireseg.benchmark`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from fireseg.errors import SettingError
from fireseg.sweep.options import EngineOptions


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions(EngineOptions):
    """Options of a benchmark.

    Attributes:
        protocol: YAML file with the folds, the seeds and the recipes, see docs/benchmark.md.
        tiles: Folder of tiles, as of `python -m fireseg.prepare`.
        out: Folder of the benchmark; a benchmark that is in it goes on.
        workers: Processes that cut tiles into patches.
    """

    protocol: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PROTOCOL")]
    tiles: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="TILES")]
    out: Path = Path("benchmark")
    workers: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        faults = []
        if self.engine == "slurm":
            faults.append("--engine slurm: does not wait for its jobs, which are judged here; use local or ray")
        if self.prune is not None:
            faults.append(f"--prune {self.prune}: a model that was stopped early is no measure of its recipe; omit it")
        if self.workers < 1:
            faults.append(f"--workers: {self.workers}, but it must be 1 or more")
        if faults:
            raise SettingError(*faults)
