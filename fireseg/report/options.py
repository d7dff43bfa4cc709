"""Options of `python -m fireseg.report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fireseg.console import metavar
from fireseg.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Options of a report.

    Attributes:
        runs: Run folders, and sweep folders with the runs of a sweep.
        split: Split whose evaluations are compared fire by fire.
        out: Folder to write to; by default the first sweep folder, or the folder that holds the first run.
        data: Folder of the patches for the pictures, if they have moved since the training.

    Raises:
        SettingError: If no folder is given.
    """

    runs: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...", help_behavior_hint="(required)")
    ]
    split: Literal["test", "val", "train"] = "test"
    out: Annotated[Path | None, metavar("DIR")] = None
    data: Annotated[Path | None, metavar("PATCHES")] = None

    def __post_init__(self) -> None:
        if not self.runs:
            raise SettingError("RUN: no run or sweep folder given; outputs/ and multirun/ contain the runs")
