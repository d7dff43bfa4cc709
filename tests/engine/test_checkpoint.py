"""Checkpoint files."""

from __future__ import annotations

from pathlib import Path

import torch

from fireseg.engine import Checkpoints


def test_only_the_newest_numbered_checkpoints_are_kept(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path / "c", every=5, keep=2)
    for epoch in range(1, 23):
        checkpoints.save_state(epoch, {"epoch": epoch})

    names = sorted(path.name for path in (tmp_path / "c").iterdir())

    assert names == ["checkpoint_epoch_15.pt", "checkpoint_epoch_20.pt", "last.pt"]
    assert torch.load(tmp_path / "c" / "last.pt", weights_only=True) == {"epoch": 22}
