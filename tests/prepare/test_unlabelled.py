"""Patches of tiles without masks, for self-training."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from fireseg.errors import FiresegError, SettingError
from fireseg.prepare.cli import main
from fireseg.prepare.options import PrepareOptions, TilingOptions
from fireseg.prepare.pipeline import prepare
from fireseg.prepare.report import write_report
from fireseg.tiles.options import LabelOptions
from tests.prepare.builders import read_tree, write_set, write_tile
from tests.tiles.builders import make_reflectance, write_raster

BANDS = ("B08", "B12")


def make_options(tiles: Path, patches: Path, **labels: Any) -> PrepareOptions:
    labels = {"unlabelled": True, **labels}
    return PrepareOptions(
        tiles=tiles, patches=patches, tiling=TilingOptions(size=16, bands=BANDS, labels=LabelOptions(**labels))
    )


def write_unlabelled_set(folder: Path) -> Path:
    """Writes two tiles without masks, the first five rows under cloud, one of them in a folder `val`."""
    cloud = np.zeros((40, 56), np.uint8)
    cloud[:5] = 1
    return write_set(folder, train=1, val=1, test=0, kinds=("CM", "json"), cloud=cloud, height=40, width=56)


def test_all_masks_are_unknown_and_clear_pixels_are_neither_cloud_nor_unknown(tmp_path: Path) -> None:
    tiles = write_unlabelled_set(tmp_path / "tiles")
    (image,) = tiles.rglob("EMSR100_AOI01_01_S2L2A.tif")
    with rasterio.open(image, "r+") as raster:
        values = raster.read()
        values[:, :, 8] = 0  # never measured
        raster.write(values)
    prepare(make_options(tiles, tmp_path / "patches"), write_report=write_report)
    folder = tmp_path / "patches"
    assert [path.name for path in folder.iterdir() if path.is_dir()] == ["train"]
    for mask in ("del", "gra"):
        assert (np.load(folder / f"train/masks_{mask}.npy") == 255).all()
    names = [row.partition(",")[0] for row in (folder / "train/metadata.csv").read_text().splitlines()[1:]]
    clear = dict(zip(names, np.load(folder / "train/masks_clear.npy"), strict=True))
    expected = np.ones((16, 16), np.uint8)
    expected[:5] = 0
    np.testing.assert_array_equal(clear["EMSR101_AOI01_01_r0_c0"], expected)
    expected[:, 8] = 0
    np.testing.assert_array_equal(clear["EMSR100_AOI01_01_r0_c0"], expected)
    assert clear["EMSR101_AOI01_01_r24_c40"].all()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["options"]["unlabelled"], manifest["patches"]) == (True, {"train": len(names)})
    assert manifest["class_counts"] == {"del": [0, 0], "gra": [0] * 5}
    assert "Tiles without masks (--unlabelled)" in (folder / "report.html").read_text()


def test_windows_under_cloud_are_left_out_as_of_labelled_tiles(tmp_path: Path) -> None:
    cloud = np.zeros((16, 32), np.uint8)
    cloud[:, :16] = 1
    write_tile(tmp_path / "tiles", kinds=("CM",), cloud=cloud, height=16, width=32)
    prepare(make_options(tmp_path / "tiles", tmp_path / "patches"))
    manifest = json.loads((tmp_path / "patches/manifest.json").read_text())
    assert manifest["left_out"] == {"cloud": {"windows": 1, "labelled_pixels": 0}}  # of columns 0, 14, 16
    assert manifest["patches"] == {"train": 2}


def test_labelled_tiles_are_left_out_and_noted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("fireseg"), "propagate", True)
    tiles = write_unlabelled_set(tmp_path / "tiles")
    write_tile(tiles, "EMSR200_AOI01_01", west=20.0)
    prepare(make_options(tiles, tmp_path / "patches"))
    assert "1 of 3 tiles left out, which have masks" in caplog.text
    assert "EMSR200" not in (tmp_path / "patches/train/metadata.csv").read_text()
    before = read_tree(tmp_path / "patches")
    assert prepare(make_options(tiles, tmp_path / "patches")).was_finished
    assert read_tree(tmp_path / "patches") == before


def test_only_labelled_tiles_and_the_default_without_masks_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tile(tmp_path / "labelled")
    with pytest.raises(FiresegError, match=r"1 tile, all with masks, but --unlabelled"):
        prepare(make_options(tmp_path / "labelled", tmp_path / "patches"))
    write_tile(tmp_path / "unlabelled", kinds=("CM",))
    assert main([str(tmp_path / "unlabelled"), str(tmp_path / "other"), "--size", "16"]) == 1
    assert "no label mask EMSR100_AOI01_01_DEL.tif" in (message := capsys.readouterr().err)
    assert "--unlabelled" in message


def test_scenes_of_any_name_are_prepared_without_a_pattern_for_masks(tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()
    write_raster(tmp_path / "scenes/august.tif", make_reflectance(32, 32))
    prepare(make_options(tmp_path / "scenes", tmp_path / "patches", images="*.tif"))
    assert json.loads((tmp_path / "patches/manifest.json").read_text())["patches"] == {"train": 9}


def test_options_that_have_no_effect_are_refused_together() -> None:
    with pytest.raises(SettingError) as caught:
        LabelOptions(unlabelled=True, masks="*_mask.tif", classes=("255=1",))
    assert [fault.partition(":")[0] for fault in caught.value.faults] == ["--masks", "--classes"]
    with pytest.raises(SettingError, match="--unlabelled: only packed patches hold which pixels are clear"):
        TilingOptions(layout="files", task="del", labels=LabelOptions(unlabelled=True))
    with pytest.raises(SettingError, match="--unlabelled: all such patches are for training"):
        PrepareOptions(tiling=TilingOptions(labels=LabelOptions(unlabelled=True)), folds=5)
