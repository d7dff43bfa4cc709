"""Which file a path of a run means."""

from __future__ import annotations

from pathlib import Path

import pytest

from fireseg.errors import FiresegError
from fireseg.runs import find_checkpoint


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def refuse(path: Path) -> str:
    with pytest.raises(FiresegError) as caught:
        find_checkpoint(path)
    (fault,) = caught.value.faults
    assert fault.startswith(f"{path}: ")
    return fault.removeprefix(f"{path}: ")


def test_of_a_run_the_best_checkpoint_is_taken_else_the_final_else_the_last(tmp_path: Path) -> None:
    for name in ("last.pt", "final_model.pt", "best_model.pt"):
        path = touch(tmp_path / "checkpoints" / name)
        assert find_checkpoint(tmp_path) == find_checkpoint(tmp_path / "checkpoints") == find_checkpoint(path) == path


def test_a_path_that_is_not_there_is_said_with_the_nearest_that_is(tmp_path: Path) -> None:
    touch(tmp_path / "del_unet_resnet34" / "config.json")
    assert refuse(tmp_path / "del_unet_resnet").startswith(
        "no such run folder or checkpoint (did you mean 'del_unet_resnet34'?); outputs/ and multirun/ hold the runs"
    )
    assert refuse(tmp_path / "none" / "of" / "it").startswith("no such run folder or checkpoint; outputs/")


def test_a_folder_of_runs_is_refused_with_one_of_them(tmp_path: Path) -> None:
    for run in ("a", "b"):
        touch(tmp_path / run / "checkpoints" / "last.pt")
    assert refuse(tmp_path) == f"a folder of 2 runs, but one is wanted; name it, as {tmp_path}/b"


def test_a_run_that_was_killed_before_its_first_epoch_is_said(tmp_path: Path) -> None:
    touch(tmp_path / "config.json")
    assert refuse(tmp_path) == (
        f"a run without any checkpoint; wait for its first epoch, or go on with resume={tmp_path}"
    )


def test_patches_are_no_run(tmp_path: Path) -> None:
    touch(tmp_path / "train" / "a_image.npy")
    assert refuse(tmp_path).startswith("a folder of patches or tiles, but a run is wanted")


def test_any_other_folder_is_no_run(tmp_path: Path) -> None:
    assert refuse(tmp_path).startswith("no run folder: it holds none of best_model.pt, final_model.pt, last.pt")
