"""Validation of data sets: every fault at once, statistics and notes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from fireseg.data import WildfireDataModule
from fireseg.data.bands import BAND_NAMES, CEMS_BANDS
from fireseg.data.checks import DatasetSummary, validate_dataset
from fireseg.data.patches import FolderReader
from fireseg.data.reader import PackedReader
from fireseg.errors import FiresegError
from fireseg.task import DELINEATION_CLASSES, GRADING_CLASSES, Task

DEL = Task(name="del", num_classes=2, class_names=DELINEATION_CLASSES)
GRA = Task(name="gra", num_classes=5, class_names=GRADING_CLASSES)


def validate(root: Path, task: Task = DEL, bands: tuple[str, ...] = BAND_NAMES, **options) -> DatasetSummary:
    return validate_dataset(root, task=task, bands=bands, **options)


def first(root: Path, end: str, split: str = "train") -> Path:
    return sorted((root / split).glob(f"*_{end}.npy"))[0]


def get_faults(root: Path, task: Task = DEL, bands: tuple[str, ...] = BAND_NAMES) -> tuple[str, ...]:
    with pytest.raises(FiresegError) as caught:
        validate(root, task, bands)
    return caught.value.faults


def write(root: Path, split: str, name: str, image: np.ndarray, mask: np.ndarray) -> None:
    (root / split).mkdir(parents=True, exist_ok=True)
    np.save(root / split / f"{name}_image.npy", image.astype(np.float32))
    np.save(root / split / f"{name}_mask.npy", mask.astype(np.uint8))


def test_mean_and_std_are_over_all_labelled_training_pixels(make_patches) -> None:
    root = make_patches(train=3, size=16)
    path = first(root, "mask")
    mask = np.load(path)
    mask[:5] = 255
    np.save(path, mask)
    pixels = []
    for image in sorted((root / "train").glob("*_image.npy")):
        labelled = np.load(str(image).replace("_image", "_mask")) != 255
        pixels.append(np.load(image)[labelled])
    summary = validate(root)
    together = np.concatenate(pixels).astype(np.float64)
    assert summary.mean == pytest.approx(together.mean(axis=0))
    assert summary.std == pytest.approx(together.std(axis=0))


def test_classes_are_counted_over_the_training_split_without_255(tmp_path: Path) -> None:
    image = np.random.default_rng(0).uniform(0, 1, (2, 2, 7))
    write(tmp_path, "train", "a", image, np.array([[0, 1], [255, 1]]))
    write(tmp_path, "train", "b", image, np.array([[0, 0], [0, 0]]))
    write(tmp_path, "val", "c", image, np.array([[1, 1], [1, 1]]))
    assert validate(tmp_path).class_counts == (5, 2)


def test_statistics_follow_the_requested_bands(make_patches) -> None:
    root = make_patches(channels=12)
    summary, swapped = validate(root, bands=("B02", "B12")), validate(root, bands=("B12", "B02"))
    assert summary.mean == swapped.mean[::-1]
    assert len(validate(root, bands=CEMS_BANDS).mean) == 12
    assert summary.mean == (validate(root, bands=CEMS_BANDS).mean[1], validate(root, bands=CEMS_BANDS).mean[11])


def test_a_second_validation_reads_no_pixel_of_files(make_patches, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_patches(num_classes=5, train=12)
    validate(root, GRA)
    monkeypatch.setattr(FolderReader, "read", None)
    assert validate(root, GRA).class_counts[0] > 0


def test_the_fingerprint_depends_on_names_and_contents_but_not_on_the_folder(make_patches, tmp_path: Path) -> None:
    root = make_patches(tmp_path / "one")
    fingerprint = validate(root).fingerprint
    assert validate(make_patches(tmp_path / "two")).fingerprint == fingerprint
    assert validate(make_patches(tmp_path / "three", seed=1)).fingerprint != fingerprint
    path = first(root, "image")
    path.rename(path.with_name("ZZZ_image.npy"))
    mask = first(root, "mask")
    mask.rename(mask.with_name("ZZZ_mask.npy"))
    assert validate(root).fingerprint != fingerprint


def test_a_mask_value_outside_the_classes_is_a_fault(make_patches) -> None:
    root = make_patches()
    path = first(root, "mask")
    np.save(path, np.full((32, 32), 7, np.uint8))
    fault = get_faults(root)[0]
    assert fault.startswith(f"{path}: value 7, ")
    assert "another task" in fault


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda image: image.astype(np.float64), r"float64, but an image must be float32"),
        (lambda image: (image * 10000).astype(np.uint16), r"divide digital numbers by 10000"),
        (lambda image: image.transpose(2, 0, 1), r"has its bands first"),
        (lambda image: image[:16], r"16 x 32 pixels, but its mask has 32 x 32"),
        (lambda image: image[..., 0], r"shape \(32, 32\), but an image must be"),
        (lambda image: image[..., :6], r"7 of the 8 patches here have \(32, 32, 7\)"),
        (lambda image: image * np.float32(10000), r"look like digital numbers.*divide by 10000"),
        (lambda image: (image - np.float32(0.2)) * np.float32(20), r"look normalised"),
        (lambda image: image * np.float32(100), r"mostly 0 to 1; divide by"),
        (lambda image: np.where(image > 0.14, np.float32(np.nan), image), r"values are NaN or infinite"),
    ],
)
def test_an_image_that_is_not_reflectance_is_a_fault_with_a_cure(make_patches, change, message: str) -> None:
    root = make_patches()
    path = first(root, "image")
    np.save(path, change(np.load(path)))
    messages = get_faults(root)
    assert messages[0].startswith(f"{path}: ")
    assert re.search(message, messages[0])
    assert len(messages) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda mask: mask.astype(np.int64), "int64, but a mask must be uint8"),
        (lambda mask: mask[None], "(1, 32, 32), but a mask must be"),
    ],
)
def test_a_mask_of_another_type_or_shape_is_a_fault_with_a_cure(make_patches, change, message: str) -> None:
    root = make_patches()
    path = first(root, "mask")
    np.save(path, change(np.load(path)))
    assert message in get_faults(root)[0]


def test_all_faults_of_all_splits_are_reported_at_once(make_patches) -> None:
    root = make_patches()
    first(root, "image").write_bytes(b"")
    first(root, "mask", "val").unlink()
    np.save(sorted((root / "train").glob("*_mask.npy"))[3], np.full((32, 32), 9, np.uint8))
    messages = get_faults(root)
    assert len(messages) == 4
    assert "data.on_bad=skip" in messages[-1]


def test_at_most_twenty_faults_are_listed_and_the_others_counted(make_patches) -> None:
    root = make_patches(train=30)
    for path in (root / "train").glob("*_mask.npy"):
        np.save(path, np.full((32, 32), 9, np.uint8))
    messages = [fault for fault in get_faults(root) if "value 9" in fault]
    assert len(messages) == 20
    assert get_faults(root)[-1].startswith("and 10 more; ")


def test_on_bad_skip_leaves_faulty_patches_out_and_notes_their_number(make_patches) -> None:
    root = make_patches()
    first(root, "image").write_bytes(b"")
    first(root, "mask").unlink()
    first(root, "image", "val").unlink()
    summary = validate(root, on_bad="skip")
    assert (len(summary.splits["train"]), len(summary.splits["val"])) == (7, 3)
    assert [note.split(" left out")[0] for note in summary.notes] == [
        f"{root}/train: 1 patch was",
        f"{root}/val: 1 patch was",
    ]


def test_a_patch_in_two_splits_by_name_or_content_is_refused_until_leaks_are_allowed(make_patches) -> None:
    root = make_patches()
    copy_patch(root / "train", "EMSR100_AOI01_01_r0_c0", root / "val", "copy")
    with pytest.raises(FiresegError, match=r"data\.root: 1 patch is in two splits.*data\.allow_leaks=true") as caught:
        validate(root)
    assert "same content: train EMSR100_AOI01_01_r0_c0 and val copy" in str(caught.value)

    (root / "val/copy_image.npy").rename(root / "val/EMSR101_AOI01_01_r0_c32_image.npy")
    (root / "val/copy_mask.npy").rename(root / "val/EMSR101_AOI01_01_r0_c32_mask.npy")
    image = np.load(root / "val/EMSR101_AOI01_01_r0_c32_image.npy")
    np.save(root / "val/EMSR101_AOI01_01_r0_c32_image.npy", image + np.float32(0.01))
    with pytest.raises(FiresegError, match="same name: train and val EMSR101_AOI01_01_r0_c32"):
        validate(root)

    for summary in (validate(root, allow_leaks=True), validate(root, required=("val",))):
        assert summary.leaks == ("same name: train and val EMSR101_AOI01_01_r0_c32",)
        assert any("scores on val and test are better" in note for note in summary.notes)


def test_equal_patches_of_one_value_are_no_leak(make_patches) -> None:
    root = make_patches()
    for split, name in (("train", "empty1"), ("val", "empty2")):
        np.save(root / split / f"{name}_image.npy", np.zeros((32, 32, 7), np.float32))
        np.save(root / split / f"{name}_mask.npy", np.full((32, 32), 255, np.uint8))
    assert validate(root).leaks == ()


def copy_patch(folder: Path, name: str, other_folder: Path, other_name: str) -> None:
    for part in ("image", "mask"):
        shutil.copy(folder / f"{name}_{part}.npy", other_folder / f"{other_name}_{part}.npy")


def test_on_bad_skip_fails_if_no_patch_is_left(make_patches) -> None:
    root = make_patches()
    for path in (root / "val").glob("*_image.npy"):
        path.write_bytes(b"")
    with pytest.raises(FiresegError, match="val: no patch without a fault"):
        validate(root, on_bad="skip")


def test_an_empty_split_is_a_fault(make_patches) -> None:
    root = make_patches(val=0)
    (root / "val").mkdir()
    assert "no patch in it; data.root" in get_faults(root)[0]


def test_delineations_in_a_grading_task_are_a_fault(make_patches) -> None:
    messages = get_faults(make_patches(), GRA)
    assert len(messages) == 1
    assert "no mask has a value above 1, but task gra" in messages[0]


def test_a_single_grade_above_1_makes_it_a_grading(make_patches) -> None:
    root = make_patches()
    path = first(root, "mask")
    mask = np.load(path)
    mask[0, 0] = 2
    np.save(path, mask)
    assert validate(root, GRA).class_counts[2] == 1


def test_an_unlabelled_training_split_is_a_fault(make_patches) -> None:
    root = make_patches()
    for path in (root / "train").glob("*_mask.npy"):
        np.save(path, np.full((32, 32), 255, np.uint8))
    assert "nothing to learn" in get_faults(root)[0]


def test_a_training_split_without_a_burned_pixel_is_a_fault_with_the_likely_cause(make_patches) -> None:
    root = make_patches()
    for path in (root / "train").glob("*_mask.npy"):
        np.save(path, np.where(np.load(path) == 1, 255, 0).astype(np.uint8))
    (fault,) = get_faults(root)
    assert "no burned pixel" in fault
    assert "--classes 255=1" in fault


def test_missing_bands_are_a_fault_of_the_split_not_of_each_patch(make_patches) -> None:
    messages = get_faults(make_patches(channels=6))
    assert len(messages) == 2
    assert "data.bands: 7 bands" in messages[0]


def test_a_validation_split_without_fire_is_noted(make_patches) -> None:
    root = make_patches()
    assert validate(root).notes == ()
    for path in (root / "val").glob("*_mask.npy"):
        np.save(path, np.where(np.load(path) > 0, 255, 0).astype(np.uint8))
    assert "val/fire_iou is undefined" in validate(root).notes[0]


def test_a_constant_band_is_noted_and_has_std_1(make_patches) -> None:
    root = make_patches()
    for path in (root / "train").glob("*_image.npy"):
        image = np.load(path)
        image[..., 0] = 0.25
        np.save(path, image)
    summary = validate(root)
    assert summary.std[0] == 1.0
    assert summary.mean[0] == pytest.approx(0.25)
    assert "B02" in summary.notes[0]


def test_both_layouts_give_the_same_fingerprint_of_gradings(make_packed, make_files) -> None:
    packed_root = make_packed()
    packed, files = (validate(root, GRA) for root in (packed_root, make_files(packed_root, "gra")))
    assert packed.fingerprint == files.fingerprint
    assert packed.fingerprint != validate(packed_root).fingerprint


def test_ungraded_patches_are_left_out_of_gra_only_and_counted(make_packed) -> None:
    packed_root = make_packed()
    graded, delineated = (validate(packed_root, task) for task in (GRA, DEL))
    assert [len(patches) for patches in graded.splits.values()] == [6, 3]
    assert [len(patches) for patches in delineated.splits.values()] == [9, 5]
    assert graded.notes == (
        f"{packed_root}/train: 3 of 9 patches have no grading and are left out",
        f"{packed_root}/val: 2 of 5 patches have no grading and are left out",
    )
    assert delineated.notes == ()


def test_an_ungraded_test_split_is_left_out_and_an_ungraded_val_split_is_a_fault(make_packed) -> None:
    packed_root = make_packed(patches={"train": 3, "val": 3, "test": 3})
    np.save(packed_root / "test" / "masks_gra.npy", np.full((3, 32, 32), 255, np.uint8))
    data = WildfireDataModule(packed_root, task=GRA)
    data.setup()
    assert data.test is None
    assert data.notes[-1] == f"{packed_root}/test: 3 of 3 patches have no grading and are left out"
    np.save(packed_root / "val" / "masks_gra.npy", np.full((3, 32, 32), 255, np.uint8))
    with pytest.raises(FiresegError, match="val: no patch in it has a grading; train with task=del"):
        validate(packed_root, GRA)


def test_accepted_leaks_are_noted_first(make_packed, make_files) -> None:
    packed_root = make_packed(leaks=["EMSR226_AOI01_01 (train) and EMSR247_AOI01_01 (val)", "another"])
    for root in (packed_root, make_files(packed_root, "del")):
        note = validate(root).notes[0]
        assert note.startswith(f"{root}: prepared with --allow-leaks")
        assert "EMSR226_AOI01_01 (train) and EMSR247" in note
        assert "and 1 more" in note


@pytest.mark.parametrize("task", [DEL, GRA], ids=["del", "gra"])
def test_a_second_validation_reads_no_pixel_of_packed_patches(
    make_packed, monkeypatch: pytest.MonkeyPatch, task
) -> None:
    packed_root = make_packed()
    first = validate(packed_root, task)
    monkeypatch.setattr(PackedReader, "read", None)
    assert validate(packed_root, task) == first


def test_a_rewritten_mask_file_is_read_again(make_packed) -> None:
    packed_root = make_packed()
    before = validate(packed_root).class_counts
    path = packed_root / "train" / "masks_del.npy"
    np.save(path, np.where(np.load(path) == 1, 0, 1).astype(np.uint8))
    assert validate(packed_root).class_counts != before


def test_another_order_of_names_changes_the_fingerprint(make_packed) -> None:
    packed_root = make_packed()
    before = validate(packed_root)
    path = packed_root / "train" / "metadata.csv"
    first, *rows = path.read_text().splitlines()
    path.write_text("\n".join([first, *rows[::-1]]) + "\n")
    after = validate(packed_root)
    assert after.fingerprint != before.fingerprint
    (packed_root / "train" / ".fireseg_scan_del.json").unlink()
    assert validate(packed_root).fingerprint == after.fingerprint


def test_a_faulty_row_is_named_by_row_and_patch_and_may_be_skipped(make_packed) -> None:
    packed_root = make_packed()
    path = packed_root / "train" / "masks_del.npy"
    masks = np.load(path)
    masks[4, 0, 0] = 9
    np.save(path, masks)
    name = (packed_root / "train" / "metadata.csv").read_text().splitlines()[5].partition(",")[0]
    with pytest.raises(FiresegError) as caught:
        validate(packed_root)
    assert caught.value.faults[0].startswith(f"{path}: row 4 ({name}): value 9, ")
    summary = validate(packed_root, on_bad="skip")
    assert name not in [patch.name for patch in summary.splits["train"]]
    assert len(summary.splits["train"]) == 8
    assert "1 patch was left out" in summary.notes[0]


def test_a_band_that_was_not_prepared_is_a_fault_of_each_split(make_packed) -> None:
    with pytest.raises(FiresegError, match="without B08 B8A B11 B12; name bands that they hold") as caught:
        validate(make_packed(bands=("B02", "B03", "B04")))
    assert len(caught.value.faults) == 2


def test_files_with_other_channels_than_the_manifest_are_a_fault(make_packed, make_files) -> None:
    root = make_files(make_packed(), "del")
    for path in (root / "train").glob("*_image.npy"):
        np.save(path, np.load(path)[..., :3])
    with pytest.raises(FiresegError, match="3 channels, but their manifest names 7 bands"):
        validate(root, bands=BAND_NAMES[:3])


def test_fewer_files_than_in_the_manifest_are_a_fault(make_packed, make_files) -> None:
    root = make_files(make_packed(), "del")
    name = next((root / "val").glob("*_image.npy")).name.removesuffix("_image.npy")
    for half in ("image", "mask"):
        (root / "val" / f"{name}_{half}.npy").unlink()
    with pytest.raises(FiresegError, match=r"val: 4 patches, but manifest\.json lists 5"):
        validate(root)
