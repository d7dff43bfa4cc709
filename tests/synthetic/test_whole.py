"""A folder that is made once is made whole, found again, and never mistaken for another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fireseg.errors import FiresegError
from fireseg.files import build_once

SETTINGS = {"seed": 0, "scenes": 2}


def write(root: Path) -> None:
    for name in ("train/a/one", "train/b/two", "val/c/three"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(name)


def refuse(root: Path) -> None:
    raise AssertionError(f"{root} was to be found, not made")


def list_names(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


@pytest.fixture
def made(tmp_path: Path) -> Path:
    build_once(tmp_path / "deep" / "sample", SETTINGS, write)
    return tmp_path / "deep" / "sample"


def test_everything_that_was_written_is_there(made: Path) -> None:
    assert list_names(made) == ["sample.json", "train/a/one", "train/b/two", "val/c/three"]


def test_a_second_call_finds_it(made: Path) -> None:
    build_once(made, SETTINGS, refuse)


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    build_once(tmp_path, SETTINGS, write)
    assert len(list_names(tmp_path)) == 4


def test_other_settings_are_refused_with_the_differences(made: Path) -> None:
    with pytest.raises(FiresegError, match="made with scenes=2 where scenes=3 is wanted, side=nothing where side=9"):
        build_once(made, {"seed": 0, "scenes": 3, "side": 9}, refuse)


def test_a_folder_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(FiresegError, match="photos: holds something that is no sample"):
        build_once(tmp_path / "photos", SETTINGS, refuse)


def test_a_folder_that_lost_a_file_is_told(made: Path) -> None:
    (made / "train" / "a" / "one").unlink()
    with pytest.raises(FiresegError, match="train: 1 files, but 2 were made; delete the folder"):
        build_once(made, SETTINGS, refuse)


def test_what_a_program_keeps_there_under_a_dot_is_no_concern(made: Path) -> None:
    (made / "train" / ".thumbnails").touch()
    build_once(made, SETTINGS, refuse)


def test_an_error_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    def fail(root: Path) -> None:
        write(root)
        raise FiresegError("no more")

    with pytest.raises(FiresegError, match="no more"):
        build_once(tmp_path / "sample", SETTINGS, fail)
    assert list_names(tmp_path) == [".sample.lock"]


def test_what_a_killed_process_left_is_swept_away(tmp_path: Path) -> None:
    (tmp_path / ".sample.1234.part").mkdir()
    build_once(tmp_path / "sample", SETTINGS, write)
    assert not (tmp_path / ".sample.1234.part").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FiresegError, match="cannot be written"):
        build_once(tmp_path / "sample", SETTINGS, write)
    tmp_path.chmod(0o700)
