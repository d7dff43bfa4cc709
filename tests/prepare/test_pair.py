"""Patches of tiles with a scene before the fire."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio import Affine

from fireseg.errors import FiresegError, SettingError
from fireseg.pairs import add_pre_bands
from fireseg.prepare.options import PrepareOptions, TilingOptions
from fireseg.prepare.pipeline import prepare
from fireseg.prepare.report import write_report
from fireseg.tiles.options import LabelOptions
from tests.prepare.builders import write_set
from tests.tiles.builders import PIXEL, make_reflectance, write_raster

BANDS = ("B08", "B12")


def write_pairs(folder: Path, *, without: str = "") -> Path:
    """Writes tiles with scenes before the fire, in which the first rows of each were not measured."""
    tiles = write_set(folder, train=2, val=1, test=0)
    for number, image in enumerate(sorted(tiles.rglob("*_S2L2A.tif"))):
        with rasterio.open(image) as raster:
            before = make_reflectance(raster.height, raster.width, seed=50 + number)
            before[:, :3] = 0
            path = image.with_name(image.name.replace("S2L2A", "PRE"))
            if not (without and without in image.name):
                write_raster(path, before, transform=raster.transform)
    return tiles


def make_options(tiles: Path, patches: Path, **labels: Any) -> PrepareOptions:
    labels = {"pre": "**/*_PRE.tif", **labels}
    return PrepareOptions(
        tiles=tiles, patches=patches, tiling=TilingOptions(size=16, bands=BANDS, labels=LabelOptions(**labels))
    )


def test_patches_hold_the_bands_of_both_scenes_and_unknown_pixels_of_either_are_unlabelled(tmp_path: Path) -> None:
    tiles = write_pairs(tmp_path / "tiles")
    prepare(make_options(tiles, tmp_path / "patches"))
    manifest = json.loads((tmp_path / "patches/manifest.json").read_text())
    assert manifest["bands"] == list(add_pre_bands(BANDS))
    assert len(manifest["statistics"]["mean"]) == 4
    assert (manifest["options"]["pre"], manifest["options"]["bands"]) == ("**/*_PRE.tif", list(BANDS))
    assert sum("_PRE.tif" in name for name in manifest["sources"]) == 3
    images = np.load(tmp_path / "patches/train/images.npy")
    masks = np.load(tmp_path / "patches/train/masks_del.npy")
    for part, kind in ((slice(0, 2), "S2L2A"), (slice(2, 4), "PRE")):
        with rasterio.open(tiles / f"train/EMSR100/EMSR100_AOI01_01/EMSR100_AOI01_01_{kind}.tif") as raster:
            values = np.rint(raster.read([8, 12])[:, :16, :16] * 10_000).transpose(1, 2, 0)
        np.testing.assert_array_equal(images[0, 3:, :, part], values[3:])
    assert not images[0, :3].any()
    assert (masks[0, :3] == 255).all()
    assert (masks[0, 3:] != 255).all()


def test_the_report_shows_both_scenes_of_its_examples(tmp_path: Path) -> None:
    prepare(make_options(write_pairs(tmp_path / "tiles"), tmp_path / "patches"), write_report=write_report)
    page = (tmp_path / "patches/report.html").read_text()
    assert page.count("Satellite image before the fire of patch") == page.count("Satellite image of patch") > 0


def test_tiles_without_a_scene_before_the_fire_are_refused_together_or_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = write_pairs(tmp_path / "tiles", without="EMSR101")
    with pytest.raises(FiresegError, match=r"for 1 of 3 tiles, .*--missing-pre skip") as caught:
        prepare(make_options(tiles, tmp_path / "patches"))
    assert [Path(fault.partition(":")[0]).name for fault in caught.value.faults[1:]] == ["EMSR101_AOI01_01_S2L2A.tif"]
    assert not (tmp_path / "patches").exists()
    monkeypatch.setattr(logging.getLogger("fireseg"), "propagate", True)
    prepare(make_options(tiles, tmp_path / "patches", missing_pre="skip"))
    assert "1 of 3 tiles left out, without a scene before the fire: EMSR101_AOI01_01" in caplog.text
    rows = (tmp_path / "patches/train/metadata.csv").read_text()
    assert "EMSR100" in rows
    assert "EMSR101" not in rows


def test_a_scene_on_another_grid_is_resampled_and_noted(tmp_path: Path) -> None:
    tiles = write_pairs(tmp_path / "tiles")
    (path,) = tiles.rglob("EMSR100_AOI01_01_PRE.tif")
    grid = Affine(PIXEL, 0, 8 - 4 * PIXEL, 0, -PIXEL, 40 + 5 * PIXEL)
    before = make_reflectance(60, 80, seed=9)
    write_raster(path, before, transform=grid)
    prepare(make_options(tiles, tmp_path / "patches"))
    image = np.load(tmp_path / "patches/train/images.npy")[0]
    np.testing.assert_array_equal(image[..., 2:], np.rint(before[[7, 11], 5:21, 4:20].transpose(1, 2, 0) * 10_000))
    assert "EMSR100_AOI01_01_PRE.tif: has another grid" in (tmp_path / "patches/tiles.jsonl").read_text()


def test_a_changed_scene_before_the_fire_is_noticed_by_the_next_command(tmp_path: Path) -> None:
    tiles = write_pairs(tmp_path / "tiles")
    prepare(make_options(tiles, tmp_path / "patches"))
    next(tiles.rglob("EMSR100_AOI01_01_PRE.tif")).write_bytes(b"other")
    with pytest.raises(FiresegError, match=r"EMSR100_AOI01_01_PRE.tif, which has changed since"):
        prepare(make_options(tiles, tmp_path / "patches"))


def test_options_of_pairs_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(SettingError, match="names bands before the fire, which --pre adds"):
        TilingOptions(bands=("B08", "B08_PRE"))
    with pytest.raises(SettingError, match="--missing-pre skip: has no effect without --pre"):
        LabelOptions(missing_pre="skip")
