"""Folders built once: complete or absent, reused on a second call, never overwritten."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from fireseg.errors import FiresegError
from fireseg.files import build_once

SETTINGS = {"seed": 0, "scenes": 2}


def write(root: Path) -> None:
    for name in ("train/a/one", "train/b/two", "val/c/three"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(name)


def fail_if_called(root: Path) -> None:
    raise AssertionError(f"{root} was built again")


def list_names(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    build_once(tmp_path / "deep" / "sample", SETTINGS, write)
    return tmp_path / "deep" / "sample"


def test_the_folder_holds_all_files_and_a_manifest(sample: Path) -> None:
    assert list_names(sample) == ["sample.json", "train/a/one", "train/b/two", "val/c/three"]


def test_a_second_call_builds_nothing(sample: Path) -> None:
    build_once(sample, SETTINGS, fail_if_called)


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    build_once(tmp_path, SETTINGS, write)
    assert len(list_names(tmp_path)) == 4


def test_other_settings_are_an_error_that_names_the_differences(sample: Path) -> None:
    with pytest.raises(FiresegError, match=r"scenes=2 .*scenes=3 .*side=9.*delete the folder"):
        build_once(sample, {"seed": 0, "scenes": 3, "side": 9}, fail_if_called)


def test_a_folder_with_other_files_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(FiresegError, match=r"photos: .*choose another folder"):
        build_once(tmp_path / "photos", SETTINGS, fail_if_called)


def test_a_folder_with_a_missing_file_is_an_error(sample: Path) -> None:
    (sample / "train" / "a" / "one").unlink()
    with pytest.raises(FiresegError, match=r"train: 1 .*2 .*delete the folder"):
        build_once(sample, SETTINGS, fail_if_called)


def test_hidden_files_of_other_programs_are_ignored(sample: Path) -> None:
    (sample / "train" / ".thumbnails").touch()
    build_once(sample, SETTINGS, fail_if_called)


def test_an_error_while_building_leaves_no_folder(tmp_path: Path) -> None:
    def fail(root: Path) -> None:
        write(root)
        raise FiresegError("no more")

    with pytest.raises(FiresegError, match="no more"):
        build_once(tmp_path / "sample", SETTINGS, fail)
    assert list_names(tmp_path) == [".sample.lock"]


def test_partial_folders_of_killed_processes_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".sample.1234.part").mkdir()
    build_once(tmp_path / "sample", SETTINGS, write)
    assert not (tmp_path / ".sample.1234.part").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FiresegError, match="cannot be written"):
        build_once(tmp_path / "sample", SETTINGS, write)
    tmp_path.chmod(0o700)


def test_a_leftover_into_which_a_worker_still_writes_is_removed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leftover = tmp_path / ".sample.1.part"
    leftover.mkdir()
    remove, num_calls = shutil.rmtree, 0

    def remove_and_write(path: Path, *, ignore_errors: bool) -> None:
        nonlocal num_calls
        num_calls += 1
        remove(path, ignore_errors=ignore_errors)
        if num_calls == 1:  # a worker of the killed process makes the file that it was about to
            path.mkdir()
            (path / "late.npy").touch()

    monkeypatch.setattr(shutil, "rmtree", remove_and_write)
    build_once(tmp_path / "sample", SETTINGS, write)
    assert not leftover.exists()
    assert list_names(tmp_path / "sample")[-1] == "val/c/three"
