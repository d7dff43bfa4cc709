"""Which files make a tile."""

from __future__ import annotations

from pathlib import Path

from fireseg.tiles.folder import group_files


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_cems_folder_gives_name_split_activation_and_all_files(tmp_path: Path) -> None:
    folder = "train/EMSR382/AOI01/EMSR382_AOI01_01"
    ends = ["S2L2A.tif", "DEL.tif", "GRA.tif", "CM.tif", "S2L2A.json", "ESA_LC.tif", "S2L2A.png", "DEL.png"]
    touch(tmp_path, *(f"{folder}/EMSR382_AOI01_01_{end}" for end in ends))
    (files,) = group_files(tmp_path).tiles
    assert (files.name, files.split, files.activation) == ("EMSR382_AOI01_01", "train", "EMSR382")
    assert [path.name.removeprefix("EMSR382_AOI01_01_") for path in files.paths] == ends[:5]


def test_archives_may_unpack_one_level_deeper(tmp_path: Path) -> None:
    touch(tmp_path, "val/val/EMSR1/AOI01/EMSR1_AOI01_01/EMSR1_AOI01_01_S2L2A.tif")
    assert [files.split for files in group_files(tmp_path).tiles] == ["val"]


def test_tiff_and_capitals_are_the_same_files(tmp_path: Path) -> None:
    touch(tmp_path, "a_S2L2A.TIFF", "a_del.tif", "a_GRA.tiff", "a_s2l2a.json")
    (files,) = group_files(tmp_path).tiles
    assert [path.name for path in files.paths] == ["a_S2L2A.TIFF", "a_del.tif", "a_GRA.tiff", "a_s2l2a.json"]


def test_a_plain_folder_has_no_split_and_every_tile_is_its_own_activation(tmp_path: Path) -> None:
    touch(tmp_path, "PARK_S2L2A.tif", "PARK_DEL.tif", "CREEK_S2L2A.tif", "CREEK_DEL.tif")
    tiles = group_files(tmp_path).tiles
    assert [(files.name, files.split, files.activation) for files in tiles] == [
        ("CREEK", "", "CREEK"),
        ("PARK", "", "PARK"),
    ]


def test_a_tile_without_a_code_takes_that_of_its_folder(tmp_path: Path) -> None:
    touch(tmp_path, "EMSR77/north_S2L2A.tif", "NOTEMSR78/south_S2L2A.tif")
    assert [files.activation for files in group_files(tmp_path).tiles] == ["EMSR77", "south"]


def test_the_name_of_the_root_makes_no_split(tmp_path: Path) -> None:
    touch(tmp_path / "train", "a_S2L2A.tif")
    assert group_files(tmp_path / "train").tiles[0].split == ""


def test_hidden_files_that_other_systems_leave_are_no_tiles(tmp_path: Path) -> None:
    touch(tmp_path, "._a_S2L2A.tif", ".cache/b_S2L2A.tif")
    assert group_files(tmp_path) == ((), ())


def test_masks_without_an_image_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "a_DEL.tif", "a_CM.tif", "a_S2L2A.json")
    tiles, faults = group_files(tmp_path)
    assert tiles == ()
    assert [fault.path.name for fault in faults] == ["a_CM.tif", "a_DEL.tif"]
    assert "without a_S2L2A.tif" in faults[0].message


def test_two_files_where_one_is_wanted_are_a_fault(tmp_path: Path) -> None:
    touch(tmp_path, "a_S2L2A.tif", "a_S2L2A.tiff")
    tiles, faults = group_files(tmp_path)
    assert [files.image.name for files in tiles] == ["a_S2L2A.tif"]
    assert [fault.path.name for fault in faults] == ["a_S2L2A.tiff"]


def test_a_name_that_comes_twice_in_a_split_is_a_fault_and_in_two_splits_is_for_the_audit(tmp_path: Path) -> None:
    touch(tmp_path, "train/x/a_S2L2A.tif", "train/y/a_S2L2A.tif", "val/a_S2L2A.tif")
    tiles, faults = group_files(tmp_path)
    assert [files.split for files in tiles] == ["train", "train", "val"]
    assert [str(fault.path.relative_to(tmp_path)) for fault in faults] == ["train/y/a_S2L2A.tif"]


def test_a_tile_under_two_splits_is_a_fault(tmp_path: Path) -> None:
    touch(tmp_path, "train/val/a_S2L2A.tif")
    assert "lies under train and val" in group_files(tmp_path).faults[0].message


def test_tiles_outside_of_the_splits_that_others_lie_in_are_a_fault(tmp_path: Path) -> None:
    touch(tmp_path, "train/a_S2L2A.tif", "b_S2L2A.tif")
    (fault,) = group_files(tmp_path).faults
    assert "1 tiles lie outside of train, val and test (b)" in fault.message


def test_a_link_in_a_circle_is_walked_once(tmp_path: Path) -> None:
    touch(tmp_path, "far/a_S2L2A.tif")
    (tmp_path / "tiles").mkdir()
    (tmp_path / "tiles" / "far").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "back").symlink_to(tmp_path / "tiles")
    assert [files.name for files in group_files(tmp_path / "tiles").tiles] == ["a"]
