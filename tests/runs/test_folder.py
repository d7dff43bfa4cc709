"""The folder of a run."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fireseg.errors import FiresegError
from fireseg.runs.folder import ResumePoint, RunFolder, create_folder, find_resume_point, link_latest


def test_two_runs_of_one_name_get_two_folders(tmp_path: Path):
    made: list[Path] = []
    threads = [threading.Thread(target=lambda: made.append(create_folder(tmp_path / "out", "run"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(made)) == 8


def test_a_name_is_made_a_valid_folder_name(tmp_path: Path):
    assert create_folder(tmp_path, "gra_unet_tu-a/b c=" + "x" * 200).name.startswith("gra_unet_tu-a-b-c-xxx")
    assert all(len(path.name) <= 90 for path in tmp_path.iterdir())


def test_a_folder_that_cannot_be_created_is_reported(tmp_path: Path):
    (tmp_path / "file").write_text("")

    with pytest.raises(FiresegError, match="file"):
        create_folder(tmp_path / "file" / "sub", "run")


def test_nan_becomes_null_and_a_truncated_row_is_ignored(tmp_path: Path):
    folder = RunFolder(tmp_path)
    folder.append_metrics({"epoch": 1, "val/fire_iou": math.nan})
    with folder.metrics.open("a") as file:
        file.write('{"epoch": 2, "val/fi')

    assert folder.read_metrics() == [{"epoch": 1, "val/fire_iou": None}]


def test_a_row_is_on_disk_when_it_has_been_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_size))
    RunFolder(tmp_path).append_metrics({"epoch": 1})

    assert flushed == [len('{"epoch": 1}\n')]


def test_rows_after_an_epoch_can_be_cut(tmp_path: Path):
    folder = RunFolder(tmp_path)
    for epoch in (1, 2, 3):
        folder.append_metrics({"epoch": epoch})

    folder.cut_metrics(2)

    assert folder.read_metrics() == [{"epoch": 1}, {"epoch": 2}]


def test_provenance_entries_are_added_and_replaced(tmp_path: Path):
    folder = RunFolder(tmp_path)
    folder.write_provenance({"host": "a", "weights": {"source": "none"}})
    folder.write_provenance({"host": "b"})

    assert folder.read_provenance() == {"host": "b", "weights": {"source": "none"}}


def test_a_folder_is_locked_by_one_process_and_cleared_of_unfinished_files(tmp_path: Path):
    folder = RunFolder(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".last.pt.123.part").write_bytes(b"x")

    with folder.locked():
        assert list((tmp_path / "checkpoints").iterdir()) == []
        with pytest.raises(FiresegError, match="another process"), RunFolder(tmp_path).locked():
            pass


def test_a_run_folder_and_its_last_checkpoint_continue_in_place(tmp_path: Path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text("{}")
    assert find_resume_point(tmp_path).checkpoint is None
    last = tmp_path / "checkpoints" / "last.pt"
    last.write_bytes(b"")

    for path in (tmp_path, last):
        point = find_resume_point(path)
        assert point.folder is not None
        assert (point.folder.path, point.checkpoint, point.parent) == (tmp_path, last, None)


def test_another_checkpoint_starts_a_new_run_with_that_parent(tmp_path: Path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text("{}")
    older = tmp_path / "checkpoints" / "checkpoint_epoch_5.pt"
    older.write_bytes(b"")

    point = find_resume_point(older)

    assert (point.folder, point.checkpoint) == (None, older)
    assert point.parent is not None
    assert point.parent.path == tmp_path


def test_a_checkpoint_outside_of_a_run_starts_a_new_run(tmp_path: Path):
    (tmp_path / "copied.pt").write_bytes(b"")

    assert find_resume_point(tmp_path / "copied.pt") == ResumePoint(None, tmp_path / "copied.pt", None)


def test_a_missing_path_to_resume_is_reported(tmp_path: Path):
    with pytest.raises(FiresegError, match="no such run folder or checkpoint"):
        find_resume_point(tmp_path / "none")


def test_an_evaluation_is_named_by_split_and_kind(tmp_path: Path):
    folder = RunFolder(tmp_path)

    assert folder.evaluation("test", "json") == tmp_path / "evaluation_test.json"
    assert folder.evaluation("val", "html") == tmp_path / "evaluation_val.html"


def test_a_calibration_replaces_the_previous_one(tmp_path: Path):
    folder = RunFolder(tmp_path)
    folder.write_calibration({"threshold": 0.4})
    folder.write_calibration({"threshold": 0.5})

    assert [path.name for path in tmp_path.iterdir()] == ["calibration.json"]
    assert json.loads(folder.calibration.read_text()) == {"threshold": 0.5}


def test_the_link_latest_points_at_the_last_run_and_is_relative(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        link_latest(tmp_path / name)
    assert (tmp_path / "latest").readlink() == Path("second")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "latest", "second"]


def test_a_file_named_latest_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "latest").write_text("notes")
    link_latest(tmp_path / "run")
    assert (tmp_path / "latest").read_text() == "notes"


def test_where_links_cannot_be_made_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("not supported")

    (tmp_path / "run").mkdir()
    monkeypatch.setattr(Path, "symlink_to", refuse)
    link_latest(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_resuming_the_latest_run_continues_in_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/checkpoints/last.pt").touch()
    link_latest(tmp_path / "run")
    point = find_resume_point(tmp_path / "latest")
    assert point.folder is not None
    assert point.folder.path == tmp_path / "run"
    assert point.checkpoint == tmp_path / "run/checkpoints/last.pt"
    assert find_resume_point(tmp_path / "latest/checkpoints/last.pt").checkpoint == point.checkpoint


def test_nuls_in_place_of_the_last_row_are_ignored(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics.write_bytes(b'{"epoch": 1}\n' + bytes(100))
    assert folder.read_metrics() == [{"epoch": 1}]


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b'{"loss": 1}', b"\xff", b"\0\0", b'{"epoch": -5}', b'{"epoch": 2, "lr": "x"}']
)
def test_a_damaged_row_is_named_with_its_line(tmp_path: Path, line: bytes) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics.write_bytes(b'{"epoch": 1}\n' + line + b'\n{"epoch": 3}\n')
    with pytest.raises(FiresegError, match=r"metrics\.jsonl: line 2 damaged.*delete these lines"):
        folder.read_metrics()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", bytes(50), b"[" * 100_000])
def test_a_damaged_run_json_is_named(tmp_path: Path, content: bytes) -> None:
    folder = RunFolder(tmp_path)
    folder.provenance.write_bytes(content)
    with pytest.raises(FiresegError, match=r"run\.json: damaged.*delete it"):
        folder.read_provenance()


@pytest.mark.parametrize(
    ("content", "location"),
    [
        ({"tracked": {"name": [[1]]}}, "tracked.name"),
        ({"tracked": {"first_epoch": -(10**9)}}, "tracked.first_epoch"),
        ({"data": {"root": {}, "fingerprint": "f", "class_counts": []}}, "data.root"),
        ({"data": {"root": "patches"}}, "data.fingerprint"),
        ({"parent": 3.5}, "parent"),
    ],
)
def test_values_of_another_kind_in_run_json_are_named(
    tmp_path: Path, content: dict[str, object], location: str
) -> None:
    folder = RunFolder(tmp_path)
    folder.provenance.write_text(json.dumps(content))
    with pytest.raises(FiresegError, match=rf"run\.json: damaged, {location}.*restore it, or delete it"):
        folder.read_provenance()


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.provenance.mkdir()
    folder.metrics.mkdir()
    for read in (folder.read_provenance, folder.read_metrics):
        with pytest.raises(FiresegError, match="a folder, but a file is needed"):
            read()


def test_a_run_that_has_lost_its_last_state_is_not_started_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for epoch in (1, 2):
        folder.append_metrics({"epoch": epoch})
    with pytest.raises(FiresegError, match=r"last\.pt: no such file, but metrics\.jsonl has 2 epochs; restore it"):
        find_resume_point(tmp_path)


@pytest.mark.parametrize("name", ["checkpoints", "checkpoints/last.pt"])
@pytest.mark.parametrize("make", [lambda path: path.symlink_to("elsewhere"), os.mkfifo], ids=["dangling", "pipe"])
def test_what_is_in_place_of_checkpoints_is_named(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    make(path)
    with pytest.raises(FiresegError, match=rf"{name}: (a link to elsewhere, which|not a f)"):
        find_resume_point(tmp_path)


def test_a_branch_without_its_first_state_continues_from_its_parent(tmp_path: Path) -> None:
    checkpoint = tmp_path / "parent/checkpoints/checkpoint_epoch_5.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    (tmp_path / "parent/config.json").write_text("{}")
    branch = RunFolder(tmp_path / "branch")
    branch.path.mkdir()
    branch.write_provenance({"parent": str(checkpoint)})
    point = find_resume_point(branch.path)
    assert (point.folder and point.folder.path, point.checkpoint, point.is_branch) == (branch.path, checkpoint, True)
    assert point.parent is not None
    assert point.parent.path == tmp_path / "parent"
    checkpoint.unlink()
    with pytest.raises(FiresegError, match=r"branch: .*branched off .*checkpoint_epoch_5\.pt, which does not exist"):
        find_resume_point(branch.path)


def test_a_folder_that_may_not_be_written_is_reported(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    is_root = os.geteuid() == 0
    tmp_path.chmod(0o500)
    try:
        if is_root:
            os.seteuid(65534)
        with pytest.raises(FiresegError, match=r"cannot be written \(Permission denied\)"), folder.locked():
            pass
        with pytest.raises(FiresegError, match="cannot be written"), folder.logging_to_file():
            pass
    finally:
        if is_root:
            os.seteuid(0)
        tmp_path.chmod(0o700)
