"""Checkpoint files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fireseg.engine import Checkpoints
from fireseg.errors import FiresegError


def test_only_the_newest_numbered_checkpoints_are_kept(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path / "c", every=5, keep=2)
    for epoch in range(1, 23):
        checkpoints.save_state(epoch, {"epoch": epoch})

    names = sorted(path.name for path in (tmp_path / "c").iterdir())

    assert names == ["checkpoint_epoch_15.pt", "checkpoint_epoch_20.pt", "last.pt"]
    assert torch.load(tmp_path / "c" / "last.pt", weights_only=True) == {"epoch": 22}


def test_a_file_with_another_name_is_no_numbered_checkpoint(tmp_path: Path):
    for name in ("checkpoint_epoch_x.pt", "checkpoint_epoch_.pt", "checkpoint_epoch_1.pt.pt"):
        (tmp_path / name).touch()
    checkpoints = Checkpoints(tmp_path, every=1, keep=1)
    for epoch in (1, 2):
        checkpoints.save_state(epoch, {"epoch": epoch})

    names = {path.name for path in tmp_path.iterdir()}

    others = {"checkpoint_epoch_x.pt", "checkpoint_epoch_.pt", "checkpoint_epoch_1.pt.pt"}
    assert names == {"checkpoint_epoch_2.pt", "last.pt"} | others


def test_a_file_in_place_of_the_folder_is_reported(tmp_path: Path):
    (tmp_path / "checkpoints").touch()
    with pytest.raises(FiresegError, match="checkpoints: cannot be written"):
        Checkpoints(tmp_path / "checkpoints")
