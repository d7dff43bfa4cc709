"""A packed store and the same patches as files: one data set in two forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fireseg.batch import Batch
from fireseg.data import FireAwareAugmentation, WildfireDataModule, get_strong_augmentation, get_training_augmentation
from fireseg.data import statistics as scan
from fireseg.data.checks import survey
from fireseg.errors import FiresegError
from fireseg.task import DELINEATION_CLASSES, GRADING_CLASSES, Task

DEL = Task(name="del", num_classes=2, class_names=DELINEATION_CLASSES)
GRA = Task(name="gra", num_classes=5, class_names=GRADING_CLASSES)
BANDS = ("B02", "B03", "B04", "B08", "B8A", "B11", "B12")
AUGMENT = FireAwareAugmentation(get_training_augmentation(), get_strong_augmentation(elastic=0.7))


def batches_of(root: Path, **options) -> list[Batch]:
    data = WildfireDataModule(root, 4, augment=AUGMENT, weighted_sampling=True, fire_threshold=0.7, **options)
    found = [*data.train_dataloader(1), *data.train_dataloader(2), *data.val_dataloader()]
    data.close()
    return found


def are_equal(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.image, b.image) and torch.equal(a.mask, b.mask) and a.names == b.names
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("task", [DEL, GRA], ids=["del", "gra"])
def test_both_forms_make_the_same_batches_to_the_bit_with_any_number_of_workers(make_store, make_twin, task) -> None:
    store = make_store()
    twin = make_twin(store, task.name)
    packed = batches_of(store, task=task)
    for root, num_workers in ((twin, 0), (store, 2), (twin, 2)):
        assert are_equal(batches_of(root, task=task, num_workers=num_workers), packed)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**16), st.integers(1, 12), st.integers(2, 40), st.permutations(BANDS), st.data())
def test_both_forms_are_the_same_in_numbers_and_batches(
    make_store, make_twin, tmp_path_factory, seed, num_patches, size, stored, data
) -> None:
    folder = tmp_path_factory.mktemp("both")
    bands = tuple(data.draw(st.lists(st.sampled_from(stored), min_size=1, unique=True), label="bands"))
    store = make_store(folder / "store", patches={"train": num_patches, "val": 2}, size=size, bands=stored, seed=seed)
    twin = make_twin(store, "del", folder / "files")
    found = [survey(root, task=DEL, bands=bands) for root in (store, twin)]
    for name in ("splits", "mean", "std", "class_counts", "fingerprint", "notes"):
        assert getattr(found[0], name) == getattr(found[1], name)
    assert are_equal(batches_of(store, bands=bands), batches_of(twin, bands=bands))


def test_the_fingerprint_of_gradings_is_that_of_the_files_too(make_store, make_twin) -> None:
    store = make_store()
    packed, files = (survey(root, task=GRA, bands=BANDS) for root in (store, make_twin(store, "gra")))
    assert packed.fingerprint == files.fingerprint
    assert packed.fingerprint != survey(store, task=DEL, bands=BANDS).fingerprint


def test_patches_without_a_grading_are_left_out_of_gra_alone_and_counted(make_store) -> None:
    store = make_store()
    graded, delineated = (survey(store, task=task, bands=BANDS) for task in (GRA, DEL))
    assert [len(patches) for patches in graded.splits.values()] == [6, 3]
    assert [len(patches) for patches in delineated.splits.values()] == [9, 5]
    assert graded.notes == (
        f"{store}/train: 3 of 9 patches have no grading and are left out",
        f"{store}/val: 2 of 5 patches have no grading and are left out",
    )
    assert delineated.notes == ()


def test_a_test_split_that_nobody_graded_is_left_out_and_a_training_split_is_a_fault(make_store) -> None:
    store = make_store(patches={"train": 3, "val": 3, "test": 3})
    np.save(store / "test" / "masks_gra.npy", np.full((3, 32, 32), 255, np.uint8))
    data = WildfireDataModule(store, task=GRA)
    data.setup()
    assert data.test is None
    assert data.notes[-1] == f"{store}/test: 3 of 3 patches have no grading and are left out"
    np.save(store / "val" / "masks_gra.npy", np.full((3, 32, 32), 255, np.uint8))
    with pytest.raises(FiresegError, match="val: no patch in it has a grading; train with task=del"):
        survey(store, task=GRA, bands=BANDS)


def test_leaks_that_were_accepted_are_noted_before_all_else(make_store, make_twin) -> None:
    store = make_store(leaks=["EMSR226_AOI01_01 (train) and EMSR247_AOI01_01 (val)", "another"])
    for root in (store, make_twin(store, "del")):
        note = survey(root, task=DEL, bands=BANDS).notes[0]
        assert note.startswith(
            f"{root}: made with splits that know of each other (EMSR226_AOI01_01 (train) and EMSR247"
        )
        assert "and 1 more" in note


@pytest.mark.parametrize("task", [DEL, GRA], ids=["del", "gra"])
def test_a_second_start_reads_no_pixel(make_store, monkeypatch: pytest.MonkeyPatch, task) -> None:
    store = make_store()
    first = survey(store, task=task, bands=BANDS)
    monkeypatch.setattr(scan, "_measure_all", None)
    assert survey(store, task=task, bands=BANDS) == first


def test_a_mask_file_written_anew_is_read_again(make_store) -> None:
    store = make_store()
    before = survey(store, task=DEL, bands=BANDS).class_counts
    path = store / "train" / "masks_del.npy"
    np.save(path, np.where(np.load(path) == 1, 0, 1).astype(np.uint8))
    assert survey(store, task=DEL, bands=BANDS).class_counts != before


def test_names_in_another_order_are_other_patches_though_no_array_changed(make_store) -> None:
    store = make_store()
    before = survey(store, task=DEL, bands=BANDS)
    path = store / "train" / "metadata.csv"
    first, *rows = path.read_text().splitlines()
    path.write_text("\n".join([first, *rows[::-1]]) + "\n")
    after = survey(store, task=DEL, bands=BANDS)
    assert after.fingerprint != before.fingerprint
    (store / "train" / ".fireseg_scan_del.json").unlink()
    assert survey(store, task=DEL, bands=BANDS).fingerprint == after.fingerprint


def test_a_row_with_a_fault_is_named_by_row_and_patch_and_may_be_left_out(make_store) -> None:
    store = make_store()
    path = store / "train" / "masks_del.npy"
    masks = np.load(path)
    masks[4, 0, 0] = 9
    np.save(path, masks)
    name = (store / "train" / "metadata.csv").read_text().splitlines()[5].partition(",")[0]
    with pytest.raises(FiresegError) as caught:
        survey(store, task=DEL, bands=BANDS)
    assert caught.value.faults[0] == (
        f"{path}: row 4 ({name}): value 9, but task del has classes 0 to 1 and 255; was it made for another task?"
    )
    found = survey(store, task=DEL, bands=BANDS, on_bad="skip")
    assert name not in [facts.name for facts in found.splits["train"]]
    assert len(found.splits["train"]) == 8
    assert "1 patch was left out" in found.notes[0]


def test_a_band_that_was_not_prepared_is_a_fault_of_each_split(make_store) -> None:
    with pytest.raises(FiresegError, match="without B08 B8A B11 B12; name bands that they hold") as caught:
        survey(make_store(bands=("B02", "B03", "B04")), task=DEL, bands=BANDS)
    assert len(caught.value.faults) == 2


def test_files_whose_channels_are_not_those_of_the_manifest_are_a_fault(make_store, make_twin) -> None:
    root = make_twin(make_store(), "del")
    for path in (root / "train").glob("*_image.npy"):
        np.save(path, np.load(path)[..., :3])
    with pytest.raises(FiresegError, match="have 3 channels, but their manifest names 7 bands"):
        survey(root, task=DEL, bands=BANDS[:3])


def test_files_that_are_fewer_than_were_made_are_not_taken_for_the_whole(make_store, make_twin) -> None:
    root = make_twin(make_store(), "del")
    name = next((root / "val").glob("*_image.npy")).name.removesuffix("_image.npy")
    for half in ("image", "mask"):
        (root / "val" / f"{name}_{half}.npy").unlink()
    with pytest.raises(FiresegError, match=r"val: 4 patches, but manifest\.json says 5: not all there"):
        survey(root, task=DEL, bands=BANDS)
