"""Every fault of a data set at once, and its numbers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from fireseg.data import statistics as scan
from fireseg.data.bands import BAND_NAMES, CEMS_BANDS
from fireseg.data.checks import Survey, survey
from fireseg.errors import FiresegError
from fireseg.task import DELINEATION_CLASSES, GRADING_CLASSES, Task

DEL = Task(name="del", num_classes=2, class_names=DELINEATION_CLASSES)
GRA = Task(name="gra", num_classes=5, class_names=GRADING_CLASSES)


def look(root: Path, task: Task = DEL, bands: tuple[str, ...] = BAND_NAMES, **options) -> Survey:
    return survey(root, task=task, bands=bands, **options)


def first(root: Path, end: str, split: str = "train") -> Path:
    return sorted((root / split).glob(f"*_{end}.npy"))[0]


def faults(root: Path, task: Task = DEL, bands: tuple[str, ...] = BAND_NAMES) -> tuple[str, ...]:
    with pytest.raises(FiresegError) as caught:
        look(root, task, bands)
    return caught.value.faults


def write(root: Path, split: str, name: str, image: np.ndarray, mask: np.ndarray) -> None:
    (root / split).mkdir(parents=True, exist_ok=True)
    np.save(root / split / f"{name}_image.npy", image.astype(np.float32))
    np.save(root / split / f"{name}_mask.npy", mask.astype(np.uint8))


def test_mean_and_std_are_those_of_all_labelled_training_pixels(make_patches) -> None:
    root = make_patches(train=3, size=16)
    path = first(root, "mask")
    mask = np.load(path)
    mask[:5] = 255
    np.save(path, mask)
    pixels = []
    for image in sorted((root / "train").glob("*_image.npy")):
        labelled = np.load(str(image).replace("_image", "_mask")) != 255
        pixels.append(np.load(image)[labelled])
    found = look(root)
    together = np.concatenate(pixels).astype(np.float64)
    assert found.mean == pytest.approx(together.mean(axis=0))
    assert found.std == pytest.approx(together.std(axis=0))


def test_classes_are_counted_over_the_training_split_without_255(tmp_path: Path) -> None:
    image = np.random.default_rng(0).uniform(0, 1, (2, 2, 7))
    write(tmp_path, "train", "a", image, np.array([[0, 1], [255, 1]]))
    write(tmp_path, "train", "b", image, np.array([[0, 0], [0, 0]]))
    write(tmp_path, "val", "c", image, np.array([[1, 1], [1, 1]]))
    assert look(tmp_path).class_counts == (5, 2)


def test_statistics_are_of_the_bands_wanted_in_their_order(make_patches) -> None:
    root = make_patches(channels=12)
    found, swapped = look(root, bands=("B02", "B12")), look(root, bands=("B12", "B02"))
    assert found.mean == swapped.mean[::-1]
    assert len(look(root, bands=CEMS_BANDS).mean) == 12
    assert found.mean == (look(root, bands=CEMS_BANDS).mean[1], look(root, bands=CEMS_BANDS).mean[11])


def test_another_task_needs_no_second_scan(make_patches, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_patches(num_classes=5, train=12)
    look(root, GRA)
    monkeypatch.setattr(scan, "_measure_all", None)
    assert look(root, GRA).class_counts[0] > 0


def test_the_fingerprint_knows_names_contents_and_splits_and_nothing_else(make_patches, tmp_path: Path) -> None:
    root = make_patches(tmp_path / "one")
    fingerprint = look(root).fingerprint
    assert look(make_patches(tmp_path / "two")).fingerprint == fingerprint
    assert look(make_patches(tmp_path / "three", seed=1)).fingerprint != fingerprint
    path = first(root, "image")
    path.rename(path.with_name("ZZZ_image.npy"))
    mask = first(root, "mask")
    mask.rename(mask.with_name("ZZZ_mask.npy"))
    assert look(root).fingerprint != fingerprint


def test_a_mask_value_that_is_no_class_is_worded_as_a_user_reads_it(make_patches) -> None:
    root = make_patches()
    path = first(root, "mask")
    np.save(path, np.full((32, 32), 7, np.uint8))
    assert faults(root)[0] == (
        f"{path}: value 7, but task del has classes 0 to 1 and 255; was it made for another task?"
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda image: image.astype(np.float64), r"float64, but an image is float32"),
        (lambda image: (image * 10000).astype(np.uint16), r"divide digital numbers by 10000"),
        (lambda image: image.transpose(2, 0, 1), r"has its bands first"),
        (lambda image: image[:16], r"16 x 32 pixels, but its mask has 32 x 32"),
        (lambda image: image[..., 0], r"shape \(32, 32\), but an image is"),
        (lambda image: image[..., :6], r"but 7 of the 8 patches here have \(32, 32, 7\)"),
        (lambda image: image * np.float32(10000), r"look like digital numbers.*divide by 10000"),
        (lambda image: (image - np.float32(0.2)) * np.float32(20), r"look normalised"),
        (lambda image: image * np.float32(100), r"mostly 0 to 1; divide by"),
        (lambda image: np.where(image > 0.14, np.float32(np.nan), image), r"values are NaN or infinite"),
    ],
)
def test_an_image_that_is_no_reflectance_is_told_with_its_cure(make_patches, change, says: str) -> None:
    root = make_patches()
    path = first(root, "image")
    np.save(path, change(np.load(path)))
    found = faults(root)
    assert found[0].startswith(f"{path}: ")
    assert re.search(says, found[0])
    assert len(found) == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda mask: mask.astype(np.int64), "int64, but a mask is uint8"),
        (lambda mask: mask[None], "(1, 32, 32), but a mask is"),
    ],
)
def test_a_mask_of_another_form_is_told_with_its_cure(make_patches, change, says: str) -> None:
    root = make_patches()
    path = first(root, "mask")
    np.save(path, change(np.load(path)))
    assert says in faults(root)[0]


def test_all_faults_of_all_splits_come_at_once(make_patches) -> None:
    root = make_patches()
    first(root, "image").write_bytes(b"")
    first(root, "mask", "val").unlink()
    np.save(sorted((root / "train").glob("*_mask.npy"))[3], np.full((32, 32), 9, np.uint8))
    found = faults(root)
    assert len(found) == 4
    assert "data.on_bad=skip" in found[-1]


def test_of_hundreds_of_faults_twenty_are_shown_and_the_others_counted(make_patches) -> None:
    root = make_patches(train=30)
    for path in (root / "train").glob("*_mask.npy"):
        np.save(path, np.full((32, 32), 9, np.uint8))
    found = [fault for fault in faults(root) if "value 9" in fault]
    assert len(found) == 20
    assert faults(root)[-1].startswith("and 10 more; ")


def test_bad_patches_are_left_out_with_a_count_when_asked(make_patches) -> None:
    root = make_patches()
    first(root, "image").write_bytes(b"")
    first(root, "mask").unlink()
    first(root, "image", "val").unlink()
    found = look(root, on_bad="skip")
    assert (len(found.splits["train"]), len(found.splits["val"])) == (7, 3)
    assert [note.split(" left out")[0] for note in found.notes] == [
        f"{root}/train: 1 patch was",
        f"{root}/val: 1 patch was",
    ]


def test_where_nothing_sound_is_left_skipping_is_no_way_out(make_patches) -> None:
    root = make_patches()
    for path in (root / "val").glob("*_image.npy"):
        path.write_bytes(b"")
    with pytest.raises(FiresegError, match="val: no patch without a fault"):
        look(root, on_bad="skip")


def test_an_empty_split_says_what_belongs_there(make_patches) -> None:
    root = make_patches(val=0)
    (root / "val").mkdir()
    assert "no patch in it; data.root names the folder" in faults(root)[0]


def test_delineations_given_to_a_grading_task_are_seen(make_patches) -> None:
    found = faults(make_patches(), GRA)
    assert len(found) == 1
    assert "no mask has a value above 1, but task gra" in found[0]


def test_a_single_grade_above_1_makes_it_a_grading(make_patches) -> None:
    root = make_patches()
    path = first(root, "mask")
    mask = np.load(path)
    mask[0, 0] = 2
    np.save(path, mask)
    assert look(root, GRA).class_counts[2] == 1


def test_a_training_split_with_nothing_labelled_is_a_fault(make_patches) -> None:
    root = make_patches()
    for path in (root / "train").glob("*_mask.npy"):
        np.save(path, np.full((32, 32), 255, np.uint8))
    assert "nothing to learn" in faults(root)[0]


def test_channels_that_do_not_hold_the_bands_are_a_fault_of_the_split_not_of_each_patch(make_patches) -> None:
    found = faults(make_patches(channels=6))
    assert len(found) == 2
    assert "data.bands: 7 bands" in found[0]


def test_a_validation_split_without_fire_is_noted(make_patches) -> None:
    root = make_patches()
    assert look(root).notes == ()
    for path in (root / "val").glob("*_mask.npy"):
        np.save(path, np.where(np.load(path) > 0, 255, 0).astype(np.uint8))
    assert "val/fire_iou has nothing to read" in look(root).notes[0]


def test_a_band_that_never_varies_is_noted_and_not_divided_by_zero(make_patches) -> None:
    root = make_patches()
    for path in (root / "train").glob("*_image.npy"):
        image = np.load(path)
        image[..., 0] = 0.25
        np.save(path, image)
    found = look(root)
    assert found.std[0] == 1.0
    assert found.mean[0] == pytest.approx(0.25)
    assert "B02" in found.notes[0]
