"""One pass over a split, and none the second time."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from fireseg.data import patches
from fireseg.data import statistics as scan_module
from fireseg.data.patches import PatchFolder
from fireseg.data.statistics import SplitStatistics

CACHE_NAME = PatchFolder.cache_name


def scan_split(folder: Path, **options: int) -> SplitStatistics:
    return scan_module.scan_split(PatchFolder(folder), **options)


@pytest.fixture
def folder(make_patches) -> Path:
    return make_patches(train=6, size=16) / "train"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read."""
    seen: list[str] = []
    load = np.load

    def spy(path: Path, **options: object) -> np.ndarray:
        seen.append(Path(path).name)
        return load(path, **options)  # pyright: ignore[reportArgumentType, reportCallIssue]

    monkeypatch.setattr(patches.np, "load", spy)
    return seen


def test_any_number_of_threads_finds_the_same_to_the_bit(folder: Path) -> None:
    found = []
    for num_threads in (1, 2, 7):
        found.append(scan_split(folder, num_threads=num_threads).patches)
        (folder / CACHE_NAME).unlink()
    assert found[0] == found[1] == found[2]
    assert [facts.name for facts in found[0]] == sorted(facts.name for facts in found[0])


def test_a_second_scan_reads_no_pixel_and_finds_the_same(folder: Path, reads: list[str]) -> None:
    first = scan_split(folder)
    assert len(reads) == 12
    reads.clear()
    assert scan_split(folder) == first
    assert reads == []


def test_a_changed_file_is_read_again_alone(folder: Path, reads: list[str]) -> None:
    first = scan_split(folder)
    reads.clear()
    name = first.patches[2].name
    np.save(folder / f"{name}_mask.npy", np.full((16, 16), 1, np.uint8))
    second = scan_split(folder)
    assert reads == [f"{name}_image.npy", f"{name}_mask.npy"]
    assert second.patches[2].pixels == {1: 256}
    assert second.patches[:2] == first.patches[:2]


def test_the_same_size_at_another_time_is_a_change(folder: Path, reads: list[str]) -> None:
    name = scan_split(folder).patches[0].name
    reads.clear()
    os.utime(folder / f"{name}_image.npy", ns=(1, 1))
    scan_split(folder)
    assert len(reads) == 2


def test_a_patch_that_is_gone_is_forgotten(folder: Path) -> None:
    name = scan_split(folder).patches[0].name
    for path in folder.glob(f"{name}_*"):
        path.unlink()
    assert name not in [facts.name for facts in scan_split(folder).patches]


def test_another_ignored_value_has_other_sums_and_so_no_use_for_the_cache(folder: Path, reads: list[str]) -> None:
    scan_split(folder)
    reads.clear()
    scan_split(folder, ignore_index=254)
    assert len(reads) == 12


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"version": 0}', b'{"version": 1, "ignore_index": 255, "patches": [[1, {}]]}', b"\xff"],
)
def test_a_cache_that_is_no_cache_is_made_anew(folder: Path, reads: list[str], content: bytes) -> None:
    (folder / CACHE_NAME).write_bytes(content)
    scan_split(folder)
    assert len(reads) == 12
    assert json.loads((folder / CACHE_NAME).read_text())["version"] == 1


def test_a_folder_that_cannot_be_written_is_scanned_all_the_same_and_that_is_said(folder: Path) -> None:
    (folder / CACHE_NAME).mkdir()
    found = scan_split(folder)
    assert len(found.patches) == 6
    assert len(found.notes) == 1
    assert "read again at each start" in found.notes[0]


def test_unreadable_files_are_faults_and_the_others_are_scanned(folder: Path) -> None:
    paths = sorted(folder.glob("*_image.npy"))
    paths[0].write_bytes(b"")
    paths[1].write_bytes(paths[1].read_bytes()[:200])
    found = scan_split(folder)
    assert [(fault.path, fault.what.split(";")[0]) for fault in found.faults] == [
        (paths[0], "empty"),
        (paths[1], "truncated or not a .npy array"),
    ]
    assert len(found.patches) == 4
    assert scan_split(folder) == found


def test_an_interrupted_scan_goes_on_where_it_was(
    folder: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = scan_module._measure_all

    def interrupted(*arguments):
        for number, found in enumerate(whole(*arguments)):
            if number == 4:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(scan_module, "_measure_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scan_split(folder)
    monkeypatch.undo()
    content = json.loads((folder / CACHE_NAME).read_text())
    assert len(content["patches"]) == 4
    assert len(scan_split(folder).patches) == 6


def test_a_scan_without_a_terminal_prints_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan_split(folder)
    assert capsys.readouterr() == ("", "")
