"""Unlabelled patches: what they must have in common with the labelled ones, leaks, and labels of a teacher."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from fireseg.data import WildfireDataModule
from fireseg.data.reader import open_unlabelled
from fireseg.data.unlabelled import read_pseudo_labels
from fireseg.errors import FiresegError, SettingError

Make = Callable[..., Path]


def write_journal(root: Path, tiles: dict[str, Sequence[float]]) -> None:
    """Writes the places of tiles, west, south, east and north, as the journal of prepare has them."""
    lines = [
        {"name": name, "activation": name.partition("_")[0], "footprint": {"bounds": list(bounds)}}
        for name, bounds in tiles.items()
    ]
    (root / "tiles.jsonl").write_text("\n".join(map(json.dumps, [{}, *lines])))


def open_data(root: Path, *unlabelled: Path, allow_leaks: bool = False) -> WildfireDataModule:
    data = WildfireDataModule(root, 4, unlabelled=list(unlabelled), teacher="run", allow_leaks=allow_leaks)
    data.setup()
    return data


def refuse(root: Path, *unlabelled: Path) -> tuple[str, ...]:
    with pytest.raises(FiresegError) as caught:
        open_data(root, *unlabelled)
    return caught.value.faults


def write_labels(path: Path, data: WildfireDataModule, labels: np.ndarray) -> None:
    np.save(path, labels)
    data.add_pseudo_labels([read_pseudo_labels(data.unlabelled.folders[0], path, data.task.num_classes)])


def test_patches_join_train_with_the_labels_of_the_teacher_and_count_into_no_statistics(
    make_patches: Make, make_unlabelled: Make, tmp_path: Path
) -> None:
    root = make_patches()
    alone = WildfireDataModule(root, 4)
    alone.setup()
    data = open_data(root, make_unlabelled())
    labels = np.full((3, 32, 32), 255, np.uint8)
    labels[0, 4:8], labels[2, 1] = 1, 0  # nothing in the second patch
    write_labels(tmp_path / "labels.npy", data, labels)
    names = [f"EMSR{number}_AOI01_01_r0_c0" for number in (900, 902)]
    assert data.train.names == (*alone.train.names, *names)
    batches = list(data.train_dataloader(1))
    masks = {name: mask for batch in batches for name, mask in zip(batch.names, batch.mask.numpy(), strict=True)}
    np.testing.assert_array_equal(masks[names[0]], labels[0])
    np.testing.assert_array_equal(masks[names[1]], labels[2])
    image = data.train[data.train.names.index(names[1])].image.numpy()
    stored = np.load(tmp_path / "unlabelled/train/images.npy")[2].transpose(2, 0, 1)
    np.testing.assert_array_equal(image, stored.astype(np.float32) / np.float32(10_000))
    same = ("mean", "std", "class_counts", "fingerprint")
    assert [getattr(data, name) for name in same] == [getattr(alone, name) for name in same]
    assert data.val.names == alone.val.names


def test_weighted_sampling_knows_the_labels_of_the_teacher(
    make_patches: Make, make_unlabelled: Make, tmp_path: Path
) -> None:
    root = make_patches(train=2)
    data = WildfireDataModule(root, 4, unlabelled=make_unlabelled(num=2), teacher="run", weighted_sampling=True)
    data.setup()
    labels = np.zeros((2, 32, 32), np.uint8)
    labels[1] = 1
    write_labels(tmp_path / "labels.npy", data, labels)
    assert list(data._compute_weights()[2:]) == [1.0, 5.0]


def test_a_reader_of_pseudo_labels_can_be_sent_to_a_worker(
    make_patches: Make, make_unlabelled: Make, tmp_path: Path
) -> None:
    data = open_data(make_patches(), make_unlabelled())
    labels = np.zeros((3, 32, 32), np.uint8)
    write_labels(tmp_path / "labels.npy", data, labels)
    data.train.patches.read_mask(8)  # opens the map, which must not travel
    assert (pickle.loads(pickle.dumps(data.train.patches)).read_mask(8) == 0).all()


def test_differences_from_the_labelled_patches_are_refused_together(
    make_patches: Make, make_unlabelled: Make, tmp_path: Path
) -> None:
    bands = ["B02", "B03", "B04", "B08", "B8A", "B12", "B11"]
    first = make_unlabelled(tmp_path / "first", size=64, bands=bands)
    labelled = make_unlabelled(tmp_path / "labelled", options={})
    faults = refuse(make_patches(), first, labelled, tmp_path / "nowhere")
    assert [fault.partition(",")[0].removeprefix("data.unlabelled: ") for fault in faults] == [
        f"{first} has the bands B02 B03 B04 B08 B8A B12 B11",
        f"{first} has patches of 64 x 64 px",
        f"{labelled}: patches with labels",
        f"{tmp_path / 'nowhere'}: no such folder; give a folder that python -m fireseg.prepare TILES FOLDER "
        "--unlabelled has made",
    ]


def test_pixel_size_and_level_have_to_be_those_of_the_labelled_patches(
    make_packed: Make, make_unlabelled: Make
) -> None:
    root = make_packed(pixel_m=20.0, level="2A")
    faults = refuse(root, make_unlabelled(pixel_m=10.0, level="1C"))
    assert ["images of level 1C" in faults[0], "pixels of 10 m, but the labelled ones have 20 m" in faults[1]] == [
        True
    ] * 2


def test_a_tile_of_the_name_of_a_training_tile_is_refused(make_patches: Make, make_unlabelled: Make) -> None:
    (fault,) = refuse(make_patches(), make_unlabelled(first=107))
    assert "tiles of the same name as the labelled training patches (EMSR107_AOI01_01)" in fault


def test_a_tile_of_the_name_of_a_val_tile_is_a_leak(make_patches: Make, make_unlabelled: Make) -> None:
    root, unlabelled = make_patches(), make_unlabelled(first=403)
    (fault,) = refuse(root, unlabelled)
    assert "same name: val EMSR403_AOI01_01)" in fault
    assert "data.allow_leaks=true" in fault
    data = open_data(root, unlabelled, allow_leaks=True)
    assert data.unlabelled.leaks == ("same name: val EMSR403_AOI01_01",)
    assert "better than on new fires" in data.notes[-1]


def test_a_patch_of_the_content_of_a_test_patch_is_a_leak(make_patches: Make, make_unlabelled: Make) -> None:
    root, unlabelled = make_patches(test=2), make_unlabelled()
    (path,) = root.glob("test/EMSR701*_image.npy")
    stored = np.load(unlabelled / "train/images.npy")[1]
    np.save(path, stored.astype(np.float32) / np.float32(10_000))
    (fault,) = refuse(root, unlabelled)
    assert "same content: test EMSR701_AOI01_01_r0_c19232 and unlabelled EMSR901_AOI01_01_r0_c0" in fault


@pytest.mark.parametrize(
    ("bounds", "name", "leak"),
    [
        ((9.5, 40, 10.5, 41), "EMSR900", "overlap: val EMSR100_AOI01_01 and unlabelled EMSR900_AOI01_01"),
        ((50, 40, 51, 41), "EMSR100", "activation: val EMSR100_AOI01_01 and unlabelled EMSR100_AOI09_01"),
        ((10.995, 40, 11.995, 41), "EMSR900", None),  # shares 0.5 %
    ],
)
def test_a_tile_that_overlaps_or_is_of_the_fire_of_a_val_tile_is_a_leak(
    bounds: tuple[float, ...], name: str, leak: str | None, make_packed: Make, make_unlabelled: Make
) -> None:
    root, unlabelled = make_packed(), make_unlabelled(num=1)
    tile = "EMSR900_AOI01_01" if name == "EMSR900" else "EMSR100_AOI09_01"
    (unlabelled / "train/metadata.csv").write_text(f"patch_id\n{tile}_r0_c0\n")
    write_journal(root, {"EMSR100_AOI01_01": (10, 40, 11, 41)})
    write_journal(unlabelled, {tile: bounds})
    if leak is None:
        assert open_data(root, unlabelled).unlabelled.leaks == ()
    else:
        (fault,) = refuse(root, unlabelled)
        assert f"({leak})" in fault


def test_folders_without_a_journal_are_noted(make_patches: Make, make_unlabelled: Make) -> None:
    root, unlabelled = make_patches(), make_unlabelled()
    notes = open_data(root, unlabelled).notes
    assert [str(one) in note for one, note in zip((root, unlabelled), notes, strict=True)] == [True, True]


def test_damaged_labels_are_refused_with_the_cure(make_patches: Make, make_unlabelled: Make, tmp_path: Path) -> None:
    data, path = open_data(make_patches(), make_unlabelled()), tmp_path / "labels.npy"
    for labels, message in (
        (np.zeros((2, 32, 32), np.uint8), r"uint8 of shape \(2, 32, 32\), but uint8 \(3, 32, 32\)"),
        (np.full((3, 32, 32), 7, np.uint8), "value 7, but there are 2 classes"),
    ):
        np.save(path, labels)
        with pytest.raises(FiresegError, match=f"{message}.*delete it: the teacher labels the patches again"):
            read_pseudo_labels(data.unlabelled.folders[0], path, 2)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FiresegError, match="damaged or missing; delete it"):
        read_pseudo_labels(data.unlabelled.folders[0], path, 2)


def test_a_folder_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"data.unlabelled: .* more than once"):
        WildfireDataModule(tmp_path, unlabelled=[tmp_path / "a", tmp_path / "a"])


def test_masks_of_an_unlabelled_folder_are_its_clear_pixels(make_unlabelled: Make) -> None:
    reader, _ = open_unlabelled(make_unlabelled())
    mask = reader.read_mask(0)
    assert (mask[0] == 0).all()
    assert (mask[1:] == 1).all()
