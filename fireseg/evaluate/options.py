"""Options of `python -m fireseg.evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fireseg.console import metavar
from fireseg.errors import SettingError

Split = Literal["test", "val", "train"]

OffCentre = Literal["auto", "always", "never"]


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Options of an evaluation.

    Attributes:
        run: Run folder, or a checkpoint in one; RUN1,RUN2,… are evaluated as one model.
        split: Split to evaluate on.
        data: Folder of the patches, if they have moved since training or others are to be used.
        tiles: Folder of the tiles that the patches were cut from, to read them in place of stitching the patches:
            windows that were left out, as cloudy, are then no gaps beside the pixels that are scored.
        against: Other run to compare with; evaluated first if it has no evaluation on the same patches.
        off_centre: Score the fires off centre as well, in mirrored and cropped tiles, to tell whether the model relies
            on their position; takes four times as long; auto: up to 50 tiles.
        device: Device of the model.
        batch_size: Windows per batch; 1 on a CPU and 8 elsewhere if not given.
        workers: Processes that read patches; as in training if not given.
        no_track: Do not log the scores to the run's tracker.

    Raises:
        SettingError: If values are out of range; with all faults.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    split: Split = "test"
    data: Annotated[Path | None, metavar("PATCHES")] = None
    tiles: Annotated[Path | None, metavar("FOLDER")] = None
    against: Annotated[Path | None, metavar("RUN")] = None
    off_centre: OffCentre = "auto"
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    batch_size: Annotated[int | None, metavar("INT")] = None
    workers: Annotated[int | None, metavar("INT")] = None
    no_track: bool = False

    def __post_init__(self) -> None:
        minimums = (("batch-size", self.batch_size, 1), ("workers", self.workers, 0))
        faults = [
            f"--{name}: {value}, but it must be {minimum} or more"
            for name, value, minimum in minimums
            if value is not None and value < minimum
        ]
        if self.tiles is not None and not self.tiles.is_dir():
            faults.append(f"--tiles {self.tiles}: no such folder; give the folder that was given to prepare")
        if faults:
            raise SettingError(*faults)
