"""Checkpoint files of a run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveInt

from fireseg.files import BEST_CHECKPOINT, FINAL_CHECKPOINT, LAST_CHECKPOINT, atomic_write, convert_disk_errors

_NUMBERED = re.compile(r"checkpoint_epoch_([0-9]+)\.pt", re.ASCII)


class Checkpoints:
    """Writes the checkpoints of a run atomically.

    `best_model.pt` and `final_model.pt` hold the weights and what is needed to use them;
    `last.pt` and `checkpoint_epoch_{n}.pt` also hold the training state.

    Args:
        folder: Folder of the checkpoints; created if missing.
        every: Number of epochs between numbered checkpoints.
        keep: Number of numbered checkpoints to keep, the newest ones.
    """

    def __init__(self, folder: Path, *, every: PositiveInt = 5, keep: PositiveInt = 2) -> None:
        self.folder = folder
        self.every = every
        self.keep = keep
        with convert_disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def save_state(self, epoch: int, state: dict[str, Any]) -> None:
        """Writes the numbered checkpoint if one is due, then `last.pt`.

        `last.pt` is the last file of its epoch: files of a later epoch that a killed process left behind
        are written again, with the same content, when that epoch is repeated.
        """
        if epoch % self.every == 0:
            _save(self.folder / f"checkpoint_epoch_{epoch}.pt", state)
            for number in self._numbered()[: -self.keep]:
                (self.folder / f"checkpoint_epoch_{number}.pt").unlink(missing_ok=True)
        _save(self.folder / LAST_CHECKPOINT, state)

    def save_best(self, model: dict[str, Any]) -> None:
        """Writes `best_model.pt`."""
        _save(self.folder / BEST_CHECKPOINT, model)

    def save_final(self, model: dict[str, Any]) -> None:
        """Writes `final_model.pt`."""
        _save(self.folder / FINAL_CHECKPOINT, model)

    def _numbered(self) -> list[int]:
        matches = (_NUMBERED.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)


def _save(path: Path, content: dict[str, Any]) -> None:
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch reports a full disk as "unexpected pos 704 vs 598"
            raise error.__context__ if isinstance(error.__context__, OSError) else error from error
