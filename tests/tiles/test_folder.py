"""Grouping of the files of tiles."""

from __future__ import annotations

from pathlib import Path

from fireseg.tiles.folder import group_tile_files


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_cems_folder_gives_name_split_activation_and_files(tmp_path: Path) -> None:
    folder = "train/EMSR382/AOI01/EMSR382_AOI01_01"
    ends = ["S2L2A.tif", "DEL.tif", "GRA.tif", "CM.tif", "S2L2A.json", "ESA_LC.tif", "S2L2A.png", "DEL.png"]
    touch(tmp_path, *(f"{folder}/EMSR382_AOI01_01_{end}" for end in ends))
    (files,) = group_tile_files(tmp_path).tiles
    assert (files.name, files.split, files.activation) == ("EMSR382_AOI01_01", "train", "EMSR382")
    assert [path.name.removeprefix("EMSR382_AOI01_01_") for path in files.paths] == ends[:5]


def test_split_is_found_one_level_deeper(tmp_path: Path) -> None:
    touch(tmp_path, "val/val/EMSR1/AOI01/EMSR1_AOI01_01/EMSR1_AOI01_01_S2L2A.tif")
    assert [files.split for files in group_tile_files(tmp_path).tiles] == ["val"]


def test_suffix_and_case_do_not_matter(tmp_path: Path) -> None:
    touch(tmp_path, "a_S2L2A.TIFF", "a_del.tif", "a_GRA.tiff", "a_s2l2a.json")
    (files,) = group_tile_files(tmp_path).tiles
    assert [path.name for path in files.paths] == ["a_S2L2A.TIFF", "a_del.tif", "a_GRA.tiff", "a_s2l2a.json"]


def test_flat_folder_has_no_split_and_one_activation_per_tile(tmp_path: Path) -> None:
    touch(tmp_path, "PARK_S2L2A.tif", "PARK_DEL.tif", "CREEK_S2L2A.tif", "CREEK_DEL.tif")
    tiles = group_tile_files(tmp_path).tiles
    assert [(files.name, files.split, files.activation) for files in tiles] == [
        ("CREEK", "", "CREEK"),
        ("PARK", "", "PARK"),
    ]


def test_activation_code_is_taken_from_the_folder(tmp_path: Path) -> None:
    touch(tmp_path, "EMSR77/north_S2L2A.tif", "NOTEMSR78/south_S2L2A.tif")
    assert [files.activation for files in group_tile_files(tmp_path).tiles] == ["EMSR77", "south"]


def test_root_name_is_no_split(tmp_path: Path) -> None:
    touch(tmp_path / "train", "a_S2L2A.tif")
    assert group_tile_files(tmp_path / "train").tiles[0].split == ""


def test_hidden_files_are_skipped(tmp_path: Path) -> None:
    touch(tmp_path, "._a_S2L2A.tif", ".cache/b_S2L2A.tif")
    assert group_tile_files(tmp_path) == ((), ())


def test_masks_without_image_are_faults(tmp_path: Path) -> None:
    touch(tmp_path, "a_DEL.tif", "a_CM.tif", "a_S2L2A.json")
    tiles, faults = group_tile_files(tmp_path)
    assert tiles == ()
    assert [fault.path.name for fault in faults] == ["a_CM.tif", "a_DEL.tif"]
    assert "a_S2L2A.tif" in faults[0].message


def test_duplicate_files_are_a_fault(tmp_path: Path) -> None:
    touch(tmp_path, "a_S2L2A.tif", "a_S2L2A.tiff")
    tiles, faults = group_tile_files(tmp_path)
    assert [files.image.name for files in tiles] == ["a_S2L2A.tif"]
    assert [fault.path.name for fault in faults] == ["a_S2L2A.tiff"]


def test_duplicate_name_is_a_fault_within_a_split_only(tmp_path: Path) -> None:
    touch(tmp_path, "train/x/a_S2L2A.tif", "train/y/a_S2L2A.tif", "val/a_S2L2A.tif")
    tiles, faults = group_tile_files(tmp_path)
    assert [files.split for files in tiles] == ["train", "train", "val"]
    assert [str(fault.path.relative_to(tmp_path)) for fault in faults] == ["train/y/a_S2L2A.tif"]


def test_tile_in_two_split_folders_is_a_fault(tmp_path: Path) -> None:
    touch(tmp_path, "train/val/a_S2L2A.tif")
    assert "train and val" in group_tile_files(tmp_path).faults[0].message


def test_tiles_outside_the_splits_are_a_fault(tmp_path: Path) -> None:
    touch(tmp_path, "train/a_S2L2A.tif", "b_S2L2A.tif")
    (fault,) = group_tile_files(tmp_path).faults
    assert "outside train, val and test (b)" in fault.message


def test_cyclic_links_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "far/a_S2L2A.tif")
    (tmp_path / "tiles").mkdir()
    (tmp_path / "tiles" / "far").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "back").symlink_to(tmp_path / "tiles")
    assert [files.name for files in group_tile_files(tmp_path / "tiles").tiles] == ["a"]
