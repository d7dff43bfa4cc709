"""Pipeline: patches and files written, invalid input, and the summary."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from fireseg.data.bands import CEMS_BANDS, to_reflectance
from fireseg.errors import FiresegError, SettingError
from fireseg.prepare.options import PrepareOptions, TilingOptions
from fireseg.prepare.pipeline import prepare
from fireseg.tiles import Tile, TileFiles, read_tile
from fireseg.tiles.options import LabelOptions
from tests.prepare.builders import read_tree, write_set, write_tile


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """Captures the log lines of fireseg."""
    monkeypatch.setattr(logging.getLogger("fireseg"), "propagate", True)
    caplog.set_level(logging.INFO, "fireseg")
    return caplog


def make_options(tiles: Path, patches: Path, *, size: int = 16, **options: Any) -> PrepareOptions:
    names = ("stride", "bands", "layout", "task", "max_cloud", "clouds", "disagreement")
    tiling = TilingOptions(size=size, **{name: options.pop(name) for name in names if name in options})
    return PrepareOptions(tiles=tiles, patches=patches, tiling=tiling, **options)


def read_manifest(patches: Path) -> dict[str, Any]:
    return json.loads((patches / "manifest.json").read_text())


def read_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metadata.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_row_n_is_the_same_patch_in_every_file(tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles", train=2, val=1, test=0)
    prepare(make_options(tiles, tmp_path / "patches"))
    folder = tmp_path / "patches/train"
    images, delineations, gradings = (
        np.load(folder / name) for name in ("images.npy", "masks_del.npy", "masks_gra.npy")
    )
    rows = read_rows(folder)
    assert images.dtype == np.uint16
    assert len(rows) == len(images) == len(delineations) == len(gradings)
    for number in (0, len(rows) - 1):
        row, col, name = int(rows[number]["row"]), int(rows[number]["col"]), rows[number]["source_image"]
        with rasterio.open(next(tiles.rglob(name))) as raster:
            values = raster.read([2, 3, 4, 8, 9, 11, 12])[:, row : row + 16, col : col + 16]
        np.testing.assert_array_equal(images[number], np.rint(values * 10_000).transpose(1, 2, 0))
        for kind, masks in (("DEL", delineations), ("GRA", gradings)):
            with rasterio.open(next(tiles.rglob(name.replace("S2L2A", kind)))) as raster:
                np.testing.assert_array_equal(masks[number], raster.read(1)[row : row + 16, col : col + 16])
        assert rows[number]["patch_id"] == f"{name.removesuffix('_S2L2A.tif')}_r{row}_c{col}"


def test_every_pixel_of_val_counts_exactly_once(tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles", train=1, val=1, test=0, height=40, width=47)
    prepare(make_options(tiles, tmp_path / "patches"))
    masks = np.load(tmp_path / "patches/val/masks_del.npy")
    assert (masks != 255).sum() == 40 * 47


def test_the_manifest_has_the_counts_and_statistics_of_the_arrays(tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles", cloud=np.eye(40, 47, dtype=np.uint8), height=40, width=47)
    prepare(make_options(tiles, tmp_path / "patches"))
    manifest = read_manifest(tmp_path / "patches")
    images, masks, grades = (
        np.load(tmp_path / "patches/train" / name) for name in ("images.npy", "masks_del.npy", "masks_gra.npy")
    )
    values = to_reflectance(images[masks != 255]).astype(np.float64)
    np.testing.assert_allclose(manifest["statistics"]["mean"], values.mean(axis=0), rtol=1e-7)
    np.testing.assert_allclose(manifest["statistics"]["std"], values.std(axis=0), rtol=1e-6)
    assert manifest["class_counts"]["del"] == [(masks == value).sum() for value in range(2)]
    assert manifest["class_counts"]["gra"] == [(grades == value).sum() for value in range(5)]
    assert manifest["patches"]["train"] == len(images)
    assert manifest["stride"] == {"train": 14, "val": 16, "test": 16}


def test_both_layouts_contain_the_same_values(tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles", train=2, val=1, test=0)
    prepare(make_options(tiles, tmp_path / "packed"))
    prepare(make_options(tiles, tmp_path / "files", layout="files", task="gra"))
    rows = read_rows(tmp_path / "packed/train")
    assert read_rows(tmp_path / "files/train") == [
        row for row in rows if (tmp_path / f"files/train/{row['patch_id']}_mask.npy").exists()
    ]
    images, masks = (np.load(tmp_path / "packed/train" / name) for name in ("images.npy", "masks_gra.npy"))
    for number, row in enumerate(rows):
        image = np.load(tmp_path / f"files/train/{row['patch_id']}_image.npy")
        assert image.dtype == np.float32
        np.testing.assert_array_equal(image, to_reflectance(images[number]))
        np.testing.assert_array_equal(np.load(tmp_path / f"files/train/{row['patch_id']}_mask.npy"), masks[number])


@pytest.mark.parametrize("options", [{}, {"layout": "files", "task": "del"}])
def test_the_number_of_workers_does_not_change_a_byte(tmp_path: Path, options: dict[str, Any]) -> None:
    tiles = write_set(tmp_path / "tiles")
    for workers in (1, 3):
        prepare(make_options(tiles, tmp_path / f"by_{workers}", workers=workers, **options))
    assert read_tree(tmp_path / "by_1") == read_tree(tmp_path / "by_3")


def test_a_finished_folder_is_not_changed(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    tiles = write_set(tmp_path / "tiles")
    prepare(make_options(tiles, tmp_path / "patches"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "patches").rglob("*.*") if path.name != ".lock"}
    outcome = prepare(make_options(tiles, tmp_path / "patches"))
    assert outcome.was_finished
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert log.messages[-2:] == [
        f"{tmp_path / 'patches'}: already finished with the same tiles and options; nothing to do",
        f"next: python -m fireseg.train data.root={tmp_path / 'patches'}",
    ]


def test_windows_as_large_as_the_tiles_are_told_with_what_to_do(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    tiles = write_set(tmp_path / "tiles", train=2, height=192, width=200)
    for size in (96, 160):
        prepare(make_options(tiles, tmp_path / f"patches{size}", size=size))
        assert any("windows of" in line for line in log.messages) == (size == 160)
        assert any("class weights count them once" in line for line in log.messages)

    advice = next(line for line in log.messages if "windows of" in line)
    assert "windows of 160 px" in advice
    assert "median 192 px" in advice
    assert advice.endswith("use --size 96, or train with data.crop=96")


def test_other_options_for_the_same_folder_raise_with_all_differences(tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles")
    prepare(make_options(tiles, tmp_path / "patches"))
    write_tile(tiles, "EMSR900_AOI01_01", west=40.0)
    with pytest.raises(FiresegError) as raised:
        prepare(make_options(tiles, tmp_path / "patches", max_cloud=0.3, bands=("B04", "B08")))
    text = str(raised.value)
    assert "made with --max-cloud 0.5, but the command has --max-cloud 0.3" in text
    assert "but the command has --bands B04 B08" in text
    assert "1 added since (train/EMSR900/EMSR900_AOI01_01/EMSR900_AOI01_01_S2L2A.tif)" in text


def test_a_changed_tile_raises(tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles")
    prepare(make_options(tiles, tmp_path / "patches"))
    changed = next(tiles.rglob("EMSR101*_DEL.tif"))
    shutil.copy(next(tiles.rglob("EMSR103*_DEL.tif")), changed)
    with pytest.raises(FiresegError, match=r"EMSR101_AOI01_01_DEL\.tif.*changed.*delete"):
        prepare(make_options(tiles, tmp_path / "patches"))


def test_tiles_that_were_copied_are_unchanged(tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles", train=1, val=1, test=0)
    prepare(make_options(tiles, tmp_path / "patches"))
    for path in tiles.rglob("*.*"):
        path.write_bytes(path.read_bytes())
    assert prepare(make_options(tiles, tmp_path / "patches")).was_finished


def test_a_folder_with_other_files_raises(tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles", train=1, val=0, test=0)
    (tmp_path / "patches").mkdir()
    (tmp_path / "patches/thesis.tex").touch()
    with pytest.raises(FiresegError, match=r"thesis\.tex.*choose an empty folder"):
        prepare(make_options(tiles, tmp_path / "patches"))


def test_tiles_with_faults_are_named_and_the_others_cut(tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles", train=4)
    truncated, values, record = (
        next(tiles.rglob(name)) for name in ("EMSR100*_S2L2A.tif", "EMSR101*_GRA.tif", "EMSR102*.json")
    )
    truncated.write_bytes(truncated.read_bytes()[:2000])
    with rasterio.open(values, "r+") as raster:
        raster.write(np.full(raster.shape, 7, np.uint8), 1)
    record.write_text("{")
    outcome = prepare(make_options(tiles, tmp_path / "patches"))
    assert len(outcome.faults) == 3
    for path, fault in zip((truncated, values, record), outcome.faults, strict=True):
        assert path.relative_to(tiles).as_posix() in fault
    assert {row["activation"] for row in read_rows(tmp_path / "patches/train")} == {"EMSR103"}
    assert read_manifest(tmp_path / "patches")["faults"] == list(outcome.faults)
    assert prepare(make_options(tiles, tmp_path / "patches")).faults == outcome.faults


def test_a_run_without_a_usable_tile_is_not_finished(tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles", train=1, val=0, test=0)
    next(tiles.rglob("*_S2L2A.tif")).write_bytes(b"")
    with pytest.raises(FiresegError, match="no tile gave a patch"):
        prepare(make_options(tiles, tmp_path / "patches"))
    assert not (tmp_path / "patches/manifest.json").exists()


def write_unburned(root: Path, split: str) -> None:
    for path in (root / split).rglob("*_DEL.tif"):
        with rasterio.open(path, "r+") as raster:
            mask = np.zeros(raster.shape, np.uint8)
            mask[0, :4] = 255
            raster.nodata = 255
            raster.write(mask, 1)


@pytest.mark.parametrize(
    ("splits", "cause"),
    [
        (("train",), "burned only in val: move such tiles to train"),
        (("train", "val"), "--classes 255=1"),
    ],
)
def test_training_patches_without_a_burned_pixel_are_a_fault_with_the_likely_cause(
    tmp_path: Path, splits: tuple[str, ...], cause: str
) -> None:
    tiles = write_set(tmp_path / "tiles", train=1, val=1, test=0, kinds=("DEL",))
    for split in splits:
        write_unburned(tiles, split)
    with pytest.raises(FiresegError, match=rf"labelled pixels of train is burned.*{cause}.*delete .*patches"):
        prepare(make_options(tiles, tmp_path / "patches"))
    assert not (tmp_path / "patches/manifest.json").exists()


def test_leaking_splits_raise_before_any_pixel_is_read_and_name_both_cures(tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles", train=2, val=0, test=0)
    write_tile(tiles, "EMSR900_AOI01_01", split="val", west=8.0 + 0.0010, seed=9)
    with pytest.raises(FiresegError, match=r"--split-by activation .* --allow-leaks"):
        prepare(make_options(tiles, tmp_path / "patches"))
    assert not list((tmp_path / "patches").rglob("*.npy"))
    prepare(make_options(tiles, tmp_path / "patches", allow_leaks=True))
    [leak] = read_manifest(tmp_path / "patches")["leaks"]
    assert leak.startswith("overlap: train EMSR100_AOI01_01 and val EMSR900_AOI01_01 (82.1 %")


def test_a_split_by_activation_leaks_nothing(tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles", train=6, val=0, test=0)
    write_tile(tiles, "EMSR900_AOI01_01", split="val", west=8.0 + 0.0010, seed=9)
    options = make_options(tiles, tmp_path / "patches", split_by="activation", fractions=(0.5, 0.25, 0.25))
    prepare(options)
    assert read_manifest(tmp_path / "patches")["leaks"] == []
    splits = {}
    for split in ("train", "val", "test"):
        for row in read_rows(tmp_path / "patches" / split):
            splits[row["activation"]] = split
    assert len(set(splits.values())) == 3
    assert splits["EMSR900"] == splits["EMSR100"]


def read_splits(patches: Path) -> dict[str, str]:
    """The split of each tile that has patches."""
    folders = [path for path in patches.iterdir() if path.is_dir()]
    return {row["source_image"][:-10]: folder.name for folder in folders for row in read_rows(folder)}


def write_unnamed_fires(root: Path, *fires: str) -> Path:
    """Writes two adjacent tiles for each fire, the fires 85 km apart, with names that tell no activation."""
    for number, fire in enumerate(fires):
        for part in range(2):
            write_tile(root, f"{fire}{part}", split="all", west=8.0 + number + 0.0056 * part, seed=2 * number + part)
    return root


def test_one_fire_is_in_one_split_if_names_tell_no_activation(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    tiles = write_unnamed_fires(tmp_path / "tiles", "alpha", "beta", "gamma", "delta")
    options = make_options(tiles, tmp_path / "patches", split_by="activation", fractions=(0.5, 0.25, 0.25))
    prepare(options)
    splits = read_splits(tmp_path / "patches")
    assert [splits[f"{fire}0"] for fire in ("alpha", "beta", "gamma", "delta")] == [
        splits[f"{fire}1"] for fire in ("alpha", "beta", "gamma", "delta")
    ]
    assert sorted(splits.values()) == ["test"] * 2 + ["train"] * 4 + ["val"] * 2
    [warning] = [record.message for record in log.records if record.levelname == "WARNING"]
    assert "8 of 8 tile names tell no activation" in warning
    assert f"check {warning}" in log.messages
    assert read_manifest(tmp_path / "patches")["unknown_activations"] == 8


def test_near_tiles_of_unknown_activations_in_given_splits_are_noted(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    tiles = write_unnamed_fires(tmp_path / "tiles", "alpha", "beta")
    table = tmp_path / "split.csv"
    table.write_text("tile,split\nalpha0,train\nalpha1,val\nbeta0,train\nbeta1,train\n")
    prepare(make_options(tiles, tmp_path / "patches", split_csv=table))
    note = "1 pair of tiles of unknown activations in different splits within 10 km and 30 days"
    assert any(line.startswith(f"{note}, for example train alpha0 and val alpha1") for line in log.messages)
    assert json.loads((tmp_path / "patches/audit.json").read_text())["notes"][0].startswith(note)


def test_tiles_of_known_activations_give_no_warning(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    prepare(make_options(write_set(tmp_path / "tiles"), tmp_path / "patches"))
    assert not any("tell no activation" in line for line in log.messages)
    assert read_manifest(tmp_path / "patches")["unknown_activations"] == 0


def test_a_drawn_split_gives_burned_pixels_to_every_split(tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles", train=9, val=0, test=0)
    for number in range(6):
        erase_burned(tiles, f"EMSR{100 + number}_AOI01_01")
    options = make_options(tiles, tmp_path / "patches", split_by="activation", fractions=(0.6, 0.2, 0.2))
    prepare(options)
    for split in ("train", "val", "test"):
        assert (np.load(tmp_path / "patches" / split / "masks_del.npy") == 1).any()
    erase_burned(tiles, "EMSR106_AOI01_01")
    with pytest.raises(FiresegError, match=r"3 splits, but only 2 of 9 groups of tiles have burned pixels"):
        prepare(replace(options, patches=tmp_path / "again"))
    assert not (tmp_path / "again/unfinished/tiles.jsonl").exists()


def erase_burned(tiles: Path, name: str) -> None:
    """Sets the masks of a tile to 0."""
    for kind in ("DEL", "GRA"):
        with rasterio.open(next(tiles.rglob(f"{name}_{kind}.tif")), "r+") as raster:
            raster.write(np.zeros((1, *raster.shape), np.uint8))


def test_splits_are_read_from_a_table(tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles", train=3, val=0, test=0)
    table = tmp_path / "split.csv"
    given = {"EMSR100_AOI01_01": "test", "EMSR101_AOI01_01": "train", "EMSR102_AOI01_01": "val"}
    table.write_text("tile,split\n" + "".join(f"{tile},{split}\n" for tile, split in given.items()))
    options = make_options(tiles, tmp_path / "patches", split_csv=table)
    prepare(options)
    assert read_splits(tmp_path / "patches") == given
    assert prepare(options).was_finished
    table.write_text(table.read_text().replace("EMSR100_AOI01_01,test", "EMSR100_AOI01_01,train"))
    with pytest.raises(FiresegError, match="--split-csv"):
        prepare(options)
    table.write_text("tile,split\nEMSR100_AOI01_01,all\n")
    with pytest.raises(FiresegError) as raised:
        prepare(replace(options, patches=tmp_path / "other"))
    assert len(raised.value.faults) == 2


def test_a_given_split_that_divides_an_activation_is_a_leak(tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles", train=1, val=0, test=0)
    write_tile(tiles, "EMSR100_AOI02_01", west=20.0, seed=7)
    table = tmp_path / "split.csv"
    table.write_text("tile,split\nEMSR100_AOI01_01,train\nEMSR100_AOI02_01,val\n")
    with pytest.raises(FiresegError, match="1 leak between the splits"):
        prepare(make_options(tiles, tmp_path / "patches", split_csv=table))


@pytest.mark.parametrize("by", ["folder", "table"])
def test_named_groups_stay_together_in_drawn_splits(tmp_path: Path, by: str) -> None:
    tiles, groups = tmp_path / "tiles", "folder"
    for number in range(8):
        folder = write_tile(tmp_path / "raw", f"t{number}", split="x", west=8.0 + number, seed=number)
        shutil.copytree(folder, tiles / f"region{number % 4}", dirs_exist_ok=True)
    if by == "table":
        groups = str(tmp_path / "groups.csv")
        Path(groups).write_text("tile,group\n" + "".join(f"t{number},g{number % 4}\n" for number in range(8)))
    options = {"split_by": "activation", "fractions": (0.5, 0.25, 0.25), "groups": groups}
    prepare(make_options(tiles, tmp_path / "patches", **options))
    splits = read_splits(tmp_path / "patches")
    assert [splits[f"t{number}"] for number in range(4)] == [splits[f"t{number + 4}"] for number in range(4)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": "folder"}, "--groups: no effect on given splits"),
        ({"folds": 2}, "--folds: 2, but must be 3 to 100"),
        ({"folds": 6}, "6 folds, but only 5 group"),
        ({"folds": 5, "split_csv": Path("x.csv")}, "omit --folds"),
        ({"folds": 5, "stride": 8}, "--stride: no effect with --folds"),
        ({"folds": 5, "fractions": (0.8, 0.1, 0.1)}, "--fractions: no effect with --folds"),
        ({"group_km": 5.0, "group_days": 3}, "--group-km and --group-days: no effect on given splits"),
        ({"split_by": "activation", "split_csv": Path("x.csv")}, "--split-csv"),
        ({"split_by": "activation", "groups": "folder", "group_km": 5.0}, "--group-km: no effect with --groups"),
        ({"split_by": "activation", "group_km": -1.0}, "--group-km: -1"),
        ({"split_csv": Path("missing.csv")}, "missing.csv: no such file"),
    ],
)
def test_options_of_splits_that_contradict_each_other_raise(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(FiresegError, match=message):
        prepare(make_options(write_set(tmp_path / "tiles"), tmp_path / "patches", **options))


def test_folders_of_earlier_versions_have_the_options_of_commands_without_later_ones(tmp_path: Path) -> None:
    names = {"split_by", "fractions", "seed", "metadata"}
    options = make_options(tmp_path, tmp_path, split_by="activation")
    assert options.as_dict().keys() - options.tiling.as_dict().keys() == names
    assert make_options(tmp_path, tmp_path).as_dict().keys() - options.tiling.as_dict().keys() == names - {
        "fractions",
        "seed",
    }


def read_folds(patches: Path) -> list[dict[str, str]]:
    """The split of each tile, by fold."""
    folds = []
    for fold in range(len(read_manifest(patches)["folds"])):
        with (patches / f"fold_{fold}.csv").open(newline="") as file:
            folds.append({row["tile"]: row["split"] for row in csv.DictReader(file)})
    return folds


@pytest.mark.parametrize("options", [{}, {"layout": "files", "task": "del"}])
def test_in_folds_each_tile_is_test_once_val_once_and_train_otherwise(tmp_path: Path, options: dict[str, Any]) -> None:
    tiles = write_set(tmp_path / "tiles", train=7, val=0, test=0)
    write_tile(tiles, "EMSR900_AOI01_01", west=8.0 + 0.0010, seed=9)  # overlaps EMSR100
    prepare(make_options(tiles, tmp_path / "patches", folds=4, **options))
    folds = read_folds(tmp_path / "patches")
    assert len(folds[0]) == 8
    for tile in folds[0]:
        assert sorted(fold[tile] for fold in folds) == ["test", "train", "train", "val"]
        first = [fold[tile] for fold in folds].index("test")
        assert folds[first - 1][tile] == "val"
    assert [fold["EMSR900_AOI01_01"] for fold in folds] == [fold["EMSR100_AOI01_01"] for fold in folds]
    assert read_manifest(tmp_path / "patches")["leaks"] == []
    assert not (tmp_path / "patches/train").exists()


def test_patches_with_folds_count_every_pixel_once_and_have_the_statistics_of_each_fold(tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles", train=6, val=0, test=0, height=40, width=47)
    prepare(make_options(tiles, tmp_path / "patches", folds=3))
    masks, images = (np.load(tmp_path / "patches/all" / name) for name in ("masks_del.npy", "images.npy"))
    assert (masks != 255).sum() == 6 * 40 * 47
    manifest, rows = read_manifest(tmp_path / "patches"), read_rows(tmp_path / "patches/all")
    assert manifest["patches"] == {"all": len(rows)}
    assert manifest["stride"] == {"all": 16}
    for fold, splits in zip(manifest["folds"], read_folds(tmp_path / "patches"), strict=True):
        of_row = [splits[row["source_image"][:-10]] for row in rows]
        assert fold["patches"] == {split: of_row.count(split) for split in ("train", "val", "test")}
        training = np.array([split == "train" for split in of_row])
        values = to_reflectance(images[training][masks[training] != 255]).astype(np.float64)
        np.testing.assert_allclose(fold["statistics"]["mean"], values.mean(axis=0), rtol=1e-7)
        assert fold["class_counts"]["del"] == [(masks[training] == value).sum() for value in range(2)]


def test_an_interrupted_run_with_folds_continues_to_the_same_bytes(tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles", train=5, val=0, test=0)
    options = make_options(tiles, tmp_path / "patches", folds=3)
    prepare(replace(options, patches=tmp_path / "whole", workers=2))
    shutil.copytree(tmp_path / "whole", tmp_path / "patches/unfinished")
    for name in ("manifest.json", "audit.json", "fold_0.csv", "fold_1.csv", "fold_2.csv"):
        (tmp_path / "patches/unfinished" / name).unlink()
    journal = tmp_path / "patches/unfinished/tiles.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:3]))
    assert not prepare(options).was_finished
    assert read_tree(tmp_path / "patches") == read_tree(tmp_path / "whole")
    with pytest.raises(FiresegError, match="--folds 3, but the command has --folds 4"):
        prepare(replace(options, folds=4))


def test_a_fold_can_be_prepared_as_a_given_split(tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles", train=5, val=0, test=0)
    prepare(make_options(tiles, tmp_path / "patches", folds=3))
    prepare(make_options(tiles, tmp_path / "one", split_csv=tmp_path / "patches/fold_1.csv"))
    assert read_splits(tmp_path / "one") == read_folds(tmp_path / "patches")[1]


def test_copies_between_folds_are_leaks(tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles", train=3, val=0, test=0)
    write_tile(tiles, "EMSR900_AOI01_01", west=60.0, seed=0)
    with pytest.raises(FiresegError, match="1 leak between the splits"):
        prepare(make_options(tiles, tmp_path / "patches", folds=4))
    prepare(make_options(tiles, tmp_path / "patches", folds=4, allow_leaks=True))
    [leak] = read_manifest(tmp_path / "patches")["leaks"]
    assert leak.startswith("same acquisition: fold ")


def test_copies_at_another_location_are_found_by_their_pixels_and_finished_tiles_are_kept(tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles", train=1, val=0, test=0)
    write_tile(tiles, "EMSR900_AOI01_01", split="val", west=60.0, seed=0)
    with pytest.raises(FiresegError, match=r"1 leak between the splits"):
        prepare(make_options(tiles, tmp_path / "patches"))
    assert not (tmp_path / "patches/manifest.json").exists()
    prepare(make_options(tiles, tmp_path / "patches", allow_leaks=True))
    assert "same pixels" in read_manifest(tmp_path / "patches")["leaks"][0]


def test_without_split_folders_splits_must_be_drawn(tmp_path: Path) -> None:
    write_tile(tmp_path / "tiles", split="somewhere")
    with pytest.raises(SettingError, match="--split-by activation"):
        prepare(make_options(tmp_path / "tiles", tmp_path / "patches"))


def test_windows_left_out_and_their_labelled_pixels_are_counted(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    cloud = np.zeros((32, 32), np.uint8)
    cloud[:16, :12] = 1
    tiles = write_set(tmp_path / "tiles", train=1, val=0, test=0, height=32, width=32, cloud=cloud)
    prepare(make_options(tiles, tmp_path / "patches", stride=16))
    assert len(read_rows(tmp_path / "patches/train")) == 3
    # 12 of 16 columns of the window are cloudy; the other four are labelled.
    assert "left out: 1 window with more than 50 % cloud (--max-cloud), 64 labelled pixels" in log.messages
    assert read_manifest(tmp_path / "patches")["left_out"] == {"cloud": {"windows": 1, "labelled_pixels": 64}}


def test_missing_optional_files_are_counted(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    tiles = write_set(tmp_path / "tiles", train=2, val=1, test=0, kinds=("DEL",))
    outcome = prepare(make_options(tiles, tmp_path / "patches"))
    assert not outcome.faults
    assert [line.split(" without ")[0] for line in log.messages if " without " in line] == ["3 tiles"] * 3
    assert (np.load(tmp_path / "patches/train/masks_gra.npy") == 255).all()


def test_the_metadata_table_adds_country_climate_and_date(tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles", train=1, val=1, test=0)
    table = tmp_path / "satelliteData.csv"
    table.write_text(
        "folderPath,post_fire_acquisition,country,koppen_subgroup\n"
        "dataOptimal/EMSR100/AOI01/EMSR100_AOI01_01,2017/07/04_11:24:31,Portugal,Csa\n"
    )
    prepare(make_options(tiles, tmp_path / "patches", metadata=table))
    known, unknown = (read_rows(tmp_path / "patches" / split)[0] for split in ("train", "val"))
    assert (known["country"], known["climate"], known["date"]) == ("Portugal", "Csa", "2017-07-04T11:24:31")
    assert (unknown["country"], unknown["climate"], unknown["date"]) == ("", "", "2019-08-28T11:52:21Z")


def test_channels_that_are_no_band_are_named_once(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    for name in ("EMSR1_A", "EMSR1_B"):
        write_tile(tmp_path / "tiles", name, descriptions=("elevation", *CEMS_BANDS[1:]))
    write_tile(tmp_path / "tiles", "EMSR2_A", split="val", west=9.0, seed=1)
    prepare(make_options(tmp_path / "tiles", tmp_path / "patches"))
    (line,) = [text for text in log.messages if "elevation" in text]
    assert line == "channels of 2 tiles that are no Sentinel-2 band are not used: elevation"


def test_the_report_is_written_once_and_again_if_it_is_missing(tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles", train=1, val=1, test=0)
    drawn = []

    def draw(folder: Path) -> None:
        drawn.append(folder)
        (folder / "report.html").touch()

    for _ in range(2):
        prepare(make_options(tiles, tmp_path / "patches"), write_report=draw)
    (tmp_path / "patches/report.html").unlink()
    prepare(make_options(tiles, tmp_path / "patches"), write_report=draw)
    assert drawn == [tmp_path / "patches"] * 2


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", ["EMSR9\n9_AOI01_01", os.fsdecode(b"EMSR99\xe9_AOI01_01")])
def test_a_tile_whose_name_is_no_text_is_a_fault_and_the_others_are_cut(
    tmp_path: Path, workers: int, name: str
) -> None:
    tiles = write_set(tmp_path / "tiles")
    folder = tiles / "train/EMSR100/EMSR100_AOI01_01"
    for path in folder.iterdir():
        path.rename(folder / path.name.replace("EMSR100_AOI01_01", name))
    outcome = prepare(make_options(tiles, tmp_path / "patches", workers=workers))
    assert [fault for fault in outcome.faults if "_S2L2A.tif: its name" in fault and "rename it" in fault]
    assert all(read_manifest(tmp_path / "patches")["patches"][split] for split in ("train", "val", "test"))


def test_a_tile_that_fails_unexpectedly_is_a_fault_and_the_others_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = write_set(tmp_path / "tiles")

    def fail_at_first(tile: TileFiles, *options: Any) -> Tile:
        if tile.name.startswith("EMSR100"):
            raise MemoryError
        return read_tile(tile, *options)

    monkeypatch.setattr("fireseg.prepare.cut_job.read_tile", fail_at_first)
    outcome = prepare(make_options(tiles, tmp_path / "patches"))
    (fault,) = outcome.faults
    assert fault.startswith("train/EMSR100/EMSR100_AOI01_01/EMSR100_AOI01_01_S2L2A.tif: memory ran out")
    assert read_manifest(tmp_path / "patches")["patches"]["train"]


def test_the_land_cover_is_cut_like_the_masks_and_unknown_where_a_tile_has_none(tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles", train=2, val=1, test=0)
    image = next(tiles.rglob("EMSR101_AOI01_01_S2L2A.tif"))
    with rasterio.open(image) as raster:
        profile = raster.profile | {"count": 1, "dtype": "uint8", "nodata": None}
    values = np.random.default_rng(0).choice([10, 30, 100], (profile["height"], profile["width"])).astype(np.uint8)
    with rasterio.open(image.with_name("EMSR101_AOI01_01_ESA_LC.tif"), "w", **profile) as raster:
        raster.write(values, 1)
    options = TilingOptions(size=16, labels=LabelOptions(landcover="esa"))

    prepare(PrepareOptions(tiles=tiles, patches=tmp_path / "patches", tiling=options))

    landcover = np.load(tmp_path / "patches/train/masks_landcover.npy")
    position = {10: 0, 30: 2, 100: 10}
    for patch, row in zip(landcover, read_rows(tmp_path / "patches/train"), strict=True):
        top, left = int(row["row"]), int(row["col"])
        if row["source_image"] == image.name:
            cut = values[top : top + 16, left : left + 16]
            np.testing.assert_array_equal(patch, np.vectorize(position.get)(cut))
        else:
            assert (patch == 255).all()
    assert (landcover != 255).any()


def test_patches_in_files_hold_no_land_cover() -> None:
    with pytest.raises(SettingError, match=r"--landcover: only packed patches hold it; omit --layout files"):
        TilingOptions(layout="files", task="del", labels=LabelOptions(landcover="esa"))
