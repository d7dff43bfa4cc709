"""Statistics of patches and their cache."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from fireseg.data import patches
from fireseg.data.patches import FolderReader
from fireseg.data.statistics import PatchStatistics, SplitStatistics, compute_patch_statistics, scan_split

IMAGE = np.array([[[0.1, 1.0], [0.2, 2.0]], [[0.4, 4.0], [0.8, 8.0]]], np.float32)
MASK = np.array([[0, 1], [3, 255]], np.uint8)


def test_sums_leave_out_unlabelled_pixels() -> None:
    statistics = compute_patch_statistics("a", IMAGE, MASK, 255)
    assert statistics.pixels == {0: 1, 1: 1, 3: 1, 255: 1}
    assert statistics.band_sums == pytest.approx((0.7, 7.0))
    assert statistics.band_squares == pytest.approx((0.21, 21.0))


def test_every_grade_above_0_is_burned_and_255_is_unlabelled() -> None:
    statistics = compute_patch_statistics("a", IMAGE, MASK, 255)
    assert (statistics.num_burned(255), statistics.num_labelled(255)) == (2, 3)
    assert statistics.burned_share(255) == pytest.approx(2 / 3)


def test_an_unlabelled_patch_has_no_fire() -> None:
    assert compute_patch_statistics("a", IMAGE, np.full((2, 2), 255, np.uint8), 255).burned_share(255) == 0.0


def test_nan_and_infinity_are_counted_and_left_out_of_the_range() -> None:
    image = IMAGE.copy()
    image[0, 0] = np.nan, -np.inf
    statistics = compute_patch_statistics("a", image, MASK, 255)
    assert statistics.num_not_finite == 2
    assert (statistics.low, statistics.high) == (pytest.approx(0.2), 8.0)


def test_an_image_of_only_nan_has_statistics() -> None:
    assert compute_patch_statistics("a", np.full((2, 2, 1), np.nan, np.float32), MASK, 255).num_not_finite == 4


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        (IMAGE.astype(np.float64), MASK),
        (IMAGE, MASK.astype(np.int64)),
        (np.zeros((3, 2, 2), np.float32), MASK),
        (IMAGE[..., 0], MASK),
        (IMAGE, MASK[:1]),
        (np.zeros((0, 0, 2), np.float32), np.zeros((0, 0), np.uint8)),
        (np.array("text"), MASK),
    ],
)
def test_mismatched_image_and_mask_are_described_but_not_counted(image: np.ndarray, mask: np.ndarray) -> None:
    statistics = compute_patch_statistics("a", image, mask, 255)

    assert not statistics.is_valid
    assert statistics.image_shape == image.shape


def test_the_digest_depends_on_values_but_not_on_memory_layout() -> None:
    digest = compute_patch_statistics("a", IMAGE, MASK, 255).digest
    assert compute_patch_statistics("b", np.asfortranarray(IMAGE), MASK, 255).digest == digest
    assert compute_patch_statistics("a", IMAGE, np.where(MASK == 3, 2, MASK).astype(np.uint8), 255).digest != digest
    assert compute_patch_statistics("a", IMAGE + np.float32(0.1), MASK, 255).digest != digest


def test_statistics_survive_a_json_round_trip() -> None:
    statistics = compute_patch_statistics("a", IMAGE, MASK, 255)
    assert PatchStatistics.from_json(statistics.to_json()) == statistics


CACHE_NAME = FolderReader.cache_name


def scan(folder: Path, **options: int) -> SplitStatistics:
    return scan_split(FolderReader(folder), **options)


@pytest.fixture
def folder(make_patches) -> Path:
    return make_patches(train=6, size=16) / "train"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read."""
    seen: list[str] = []
    read = patches.read_array

    def spy(path: Path) -> np.ndarray:
        seen.append(path.name)
        return read(path)

    monkeypatch.setattr(patches, "read_array", spy)
    return seen


def test_the_result_is_the_same_for_any_number_of_threads(folder: Path) -> None:
    results = []
    for num_threads in (1, 2, 7):
        results.append(scan(folder, num_threads=num_threads).patches)
        (folder / CACHE_NAME).unlink()
    assert results[0] == results[1] == results[2]
    assert [patch.name for patch in results[0]] == sorted(patch.name for patch in results[0])


def test_a_second_scan_reads_only_the_cache(folder: Path, reads: list[str]) -> None:
    first = scan(folder)
    assert len(reads) == 12
    reads.clear()
    assert scan(folder) == first
    assert reads == []


def test_only_a_changed_patch_is_read_again(folder: Path, reads: list[str]) -> None:
    first = scan(folder)
    reads.clear()
    name = first.patches[2].name
    np.save(folder / f"{name}_mask.npy", np.full((16, 16), 1, np.uint8))
    second = scan(folder)
    assert reads == [f"{name}_image.npy", f"{name}_mask.npy"]
    assert second.patches[2].pixels == {1: 256}
    assert second.patches[:2] == first.patches[:2]


def test_another_modification_time_is_a_change(folder: Path, reads: list[str]) -> None:
    name = scan(folder).patches[0].name
    reads.clear()
    os.utime(folder / f"{name}_image.npy", ns=(1, 1))
    scan(folder)
    assert len(reads) == 2


def test_a_deleted_patch_leaves_the_cache(folder: Path) -> None:
    name = scan(folder).patches[0].name
    for path in folder.glob(f"{name}_*"):
        path.unlink()
    assert name not in [patch.name for patch in scan(folder).patches]


def test_another_ignored_value_invalidates_the_cache(folder: Path, reads: list[str]) -> None:
    scan(folder)
    reads.clear()
    scan(folder, ignore_index=254)
    assert len(reads) == 12


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"version": 0}', b'{"version": 2, "ignore_index": 255, "patches": [[1, {}]]}', b"\xff"],
)
def test_an_invalid_cache_is_replaced(folder: Path, reads: list[str], content: bytes) -> None:
    (folder / CACHE_NAME).write_bytes(content)
    scan(folder)
    assert len(reads) == 12
    assert json.loads((folder / CACHE_NAME).read_text())["version"] == 2


def test_a_cache_with_a_changed_digit_is_not_used(folder: Path) -> None:
    first = scan(folder)
    content = json.loads((folder / CACHE_NAME).read_text())
    content["patches"][0][1]["band_sums"][0] += 1.0
    (folder / CACHE_NAME).write_text(json.dumps(content))
    assert scan(folder) == first


def test_a_read_only_folder_is_scanned_with_a_note(folder: Path) -> None:
    (folder / CACHE_NAME).mkdir()
    results = scan(folder)
    assert len(results.patches) == 6
    assert len(results.notes) == 1
    assert "read again at each start" in results.notes[0]


def test_unreadable_files_are_faults_and_the_others_are_scanned(folder: Path) -> None:
    paths = sorted(folder.glob("*_image.npy"))
    paths[0].write_bytes(b"")
    paths[1].write_bytes(paths[1].read_bytes()[:200])
    results = scan(folder)
    assert [(fault.path, fault.message.split(";")[0]) for fault in results.faults] == [
        (paths[0], "empty"),
        (paths[1], "truncated or not a .npy array"),
    ]
    assert len(results.patches) == 4
    assert scan(folder) == results


def test_an_interrupted_scan_continues_at_the_next_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = FolderReader.read

    def interrupt(reader: FolderReader, index: int) -> tuple[np.ndarray, np.ndarray]:
        if index == 4:
            raise KeyboardInterrupt
        return read(reader, index)

    monkeypatch.setattr(FolderReader, "read", interrupt)
    with pytest.raises(KeyboardInterrupt):
        scan(folder, num_threads=1)
    monkeypatch.undo()
    content = json.loads((folder / CACHE_NAME).read_text())
    assert len(content["patches"]) == 4
    assert len(scan(folder).patches) == 6


def test_a_scan_without_a_terminal_prints_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan(folder)
    assert capsys.readouterr() == ("", "")
