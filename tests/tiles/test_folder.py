"""Grouping of the files of tiles."""

from __future__ import annotations

from pathlib import Path

import pytest

from fireseg.errors import FiresegError
from fireseg.tiles.folder import group_tile_files
from fireseg.tiles.options import LabelOptions


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


def test_rasters_of_other_formats_are_found_without_their_sidecars(tmp_path: Path) -> None:
    touch(tmp_path, "a_S2L2A.jp2", "a_S2L2A.jp2.aux.xml", "a_DEL.img", "a_DEL.rrd", "a_GRA.png", "a_GRA.pgw")
    touch(tmp_path, "b_S2L2A.vrt", "b_S2L2A.vrt.ovr", "b_DEL.tif", "b_DEL.tfw", "b_DEL.prj", "c_S2L2A.nc")
    tiles, faults = group_tile_files(tmp_path)
    assert [[path.name for path in files.paths] for files in tiles] == [
        ["a_S2L2A.jp2", "a_DEL.img", "a_GRA.png"],
        ["b_S2L2A.vrt", "b_DEL.tif"],
    ]
    assert faults == ()


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


def pair(root: Path, images: str, masks: str) -> tuple[list[tuple[str, str, str, str]], list[str]]:
    """Pairs images and masks and returns split, name, image and mask of each tile, and the faults."""
    tiles, faults = group_tile_files(root, LabelOptions(images=images, masks=masks))
    pairs = [
        (
            files.split,
            files.name,
            files.image.relative_to(root).as_posix(),
            files.delineation.relative_to(root).as_posix() if files.delineation else "",
        )
        for files in tiles
    ]
    return pairs, [f"{fault.path.relative_to(root).as_posix()}: {fault.message}" for fault in faults]


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("{}/images/{}.tif", "{}/masks/{}.tif"),
        ("images/{}/{}.tif", "masks/{}/{}.tif"),
        ("images/{}/{}.jp2", "masks/{}/{}_mask.png"),
        ("{}/img_{}.tif", "{}/mask_{}.tif"),
        ("{}/{}_image.tif", "{}/{}_burned.tif"),
        ("{}/{}.tif", "{}/{}_mask.tif"),
    ],
)
def test_images_and_masks_are_paired_by_name_and_split(tmp_path: Path, images: str, masks: str) -> None:
    keys = [("train", "7"), ("train", "71"), ("val", "7")]
    touch(tmp_path, *(name.format(*key) for key in keys for name in (images, masks)))
    pairs, faults = pair(tmp_path, images.format("*", "*"), masks.format("*", "*"))
    assert faults == []
    expected = [(key[0], Path(images.format(*key)).stem, images.format(*key), masks.format(*key)) for key in keys]
    assert sorted(pairs) == sorted(expected)


def test_a_mask_belongs_to_the_longest_name_that_it_extends(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.tif", "images/a_b.tif", "masks/a_mask.tif", "masks/a_b_mask.tif")
    pairs, faults = pair(tmp_path, "images/*", "masks/*.tif")
    assert [(image, mask) for _, _, image, mask in pairs] == [
        ("images/a.tif", "masks/a_mask.tif"),
        ("images/a_b.tif", "masks/a_b_mask.tif"),
    ]
    assert faults == []


def test_masks_without_image_and_ambiguous_masks_are_faults(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "train/a.tif",
        "val/a.tif",
        "masks/a.tif",
        "masks/b.tif",
        "train/c.tif",
        "masks/c.tif",
        "masks/c_2.tif",
        "masks/c_old.tif",
    )
    pairs, faults = pair(tmp_path, "*/[ac].tif", "masks/*.tif")
    assert [fault.split(":")[0] for fault in faults] == [
        "masks/a.tif",
        "masks/b.tif",
        "masks/c_2.tif",
        "masks/c_old.tif",
    ]
    assert "several images" in faults[0]
    assert "--images" in faults[1]
    assert "--images" in faults[2]
    assert "as well as c.tif" in faults[3]
    assert [mask for *_, mask in pairs] == ["", "masks/c.tif", ""]


def test_a_pattern_without_a_match_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.tif", "masks/a.txt")
    with pytest.raises(FiresegError, match=r"--masks masks/\*: matches no raster .*in quotes"):
        pair(tmp_path, "images/*", "masks/*")


def test_the_json_of_an_image_is_its_metadata(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.tif", "images/a.json", "masks/a.tif")
    (files,) = group_tile_files(tmp_path, LabelOptions(images="images/*", gradings="masks/*")).tiles
    assert [path.name for path in files.paths] == ["a.tif", "a.tif", "a.json"]
    assert files.delineation is None


@pytest.mark.parametrize(
    ("image", "before", "options"),
    [
        ("train/a_S2L2A.tif", "train/a_PRE.tif", {"pre": "**/*_PRE.tif"}),
        ("train/a_S2L2A.tif", "before/a.tif", {"pre": "before/*"}),
        ("post/7.tif", "pre/7.tif", {"images": "post/*", "masks": "masks/*", "pre": "pre/*"}),
        ("fire7_post.tif", "fire7_pre.tif", {"images": "*_post.tif", "masks": "masks/*", "pre": "*_pre.tif"}),
        ("7.tif", "7_pre.tif", {"images": "*.tif", "masks": "masks/*", "pre": "*_pre.tif"}),
    ],
)
def test_the_scene_before_the_fire_is_that_of_the_name_of_the_image(
    tmp_path: Path, image: str, before: str, options: dict[str, str]
) -> None:
    touch(tmp_path, image, before, "masks/7_mask.tif", "masks/fire7.tif")
    (files,) = group_tile_files(tmp_path, LabelOptions(**options)).tiles  # pyright: ignore[reportArgumentType]
    assert (files.image, files.pre) == (tmp_path / image, tmp_path / before)
    assert files.paths[-1] == tmp_path / before


def test_scenes_before_fires_are_left_alone_without_the_option_and_faults_if_they_belong_to_no_image(
    tmp_path: Path,
) -> None:
    touch(tmp_path, "a_S2L2A.tif", "a_PRE.tif", "b_PRE.tif")
    tiles, faults = group_tile_files(tmp_path)
    assert (tiles[0].pre, faults) == (None, ())
    tiles, (fault,) = group_tile_files(tmp_path, LabelOptions(pre="*_PRE.tif"))
    assert "b_PRE.tif: scene before a fire without an image after it" in str(fault)
