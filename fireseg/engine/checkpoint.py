"""The checkpoint files of a run: which there are, when each is written, and which may go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveInt

from fireseg.files import BEST_CHECKPOINT as BEST
from fireseg.files import FINAL_CHECKPOINT as FINAL
from fireseg.files import LAST_CHECKPOINT as LAST
from fireseg.files import atomic_write


class Checkpoints:
    """Writes a run's checkpoints, each whole or not at all.

    `best_model.pt` and `final_model.pt` hold weights and what is needed to use them;
    `last.pt` and `checkpoint_epoch_{n}.pt` hold the whole state of the training besides.

    Args:
        folder: Where they lie; made if it is not there.
        every: Epochs from one numbered checkpoint to the next.
        keep: How many of the numbered ones stay, the newest.
    """

    def __init__(self, folder: Path, *, every: PositiveInt = 5, keep: PositiveInt = 2) -> None:
        self.folder = folder
        self.every = every
        self.keep = keep
        folder.mkdir(parents=True, exist_ok=True)

    def save_state(self, epoch: int, state: dict[str, Any]) -> None:
        """Writes the numbered checkpoint where one is due, then `last.pt`.

        `last.pt` comes after everything else of its epoch: whatever a killed process left behind
        of a later epoch is written again, the same, when that epoch is done again.
        """
        if epoch % self.every == 0:
            _save(self.folder / f"checkpoint_epoch_{epoch}.pt", state)
            for number in self._numbered()[: -self.keep]:
                (self.folder / f"checkpoint_epoch_{number}.pt").unlink()
        _save(self.folder / LAST, state)

    def save_best(self, model: dict[str, Any]) -> None:
        """Writes `best_model.pt`."""
        _save(self.folder / BEST, model)

    def save_final(self, model: dict[str, Any]) -> None:
        """Writes `final_model.pt`."""
        _save(self.folder / FINAL, model)

    def _numbered(self) -> list[int]:
        return sorted(int(path.stem.rpartition("_")[2]) for path in self.folder.glob("checkpoint_epoch_*.pt"))


def _save(path: Path, content: dict[str, Any]) -> None:
    with atomic_write(path) as part, part.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # what torch makes of a full disk: "unexpected pos 704 vs 598"
            raise error.__context__ if isinstance(error.__context__, OSError) else error from error
