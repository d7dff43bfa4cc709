"""Tiles of pairs read from their rasters."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fireseg.data import WildfireDataModule
from fireseg.evaluate.patches import Patches
from fireseg.prepare.options import PrepareOptions, TilingOptions
from fireseg.prepare.pipeline import prepare
from fireseg.tiles.options import LabelOptions
from tests.prepare.builders import write_set
from tests.tiles.builders import copy_before


def test_the_tile_of_a_pair_has_both_scenes_wherever_the_earlier_one_lies(tmp_path: Path) -> None:
    tiles = write_set(tmp_path / "tiles", train=1, val=1, test=0)
    for number, image in enumerate(sorted(tiles.rglob("*_S2L2A.tif"))):
        copy_before(image, tiles / "before" / image.name.replace("S2L2A", "older"), seed=50 + number)
    tiling = TilingOptions(size=16, bands=("B08", "B12"), labels=LabelOptions(pre="before/*_older.tif"))
    prepare(PrepareOptions(tiles=tiles, patches=tmp_path / "patches", tiling=tiling))
    module = WildfireDataModule(tmp_path / "patches", bands=("B08", "B12"), pre=True)
    module.setup()
    rasters = []
    for folder in (None, tiles):
        with Patches(module, tiles_folder=folder).tiles("val", "val") as found:
            rasters += [tile.raster for tile in found]
    stitched, source = rasters
    assert source.bands == ("B08", "B12", "B08_PRE", "B12_PRE")
    np.testing.assert_array_equal(source.image, stitched.image)
    assert source.image[..., 2:].any()

    single = WildfireDataModule(tmp_path / "patches", bands=("B08", "B12"))
    single.setup()
    with Patches(single, tiles_folder=tiles).tiles("val", "val") as found:
        (tile,) = found
    np.testing.assert_array_equal(tile.raster.image, source.image[..., :2])
