"""Sample tiles: like real CEMS tiles, readable, without leakage, complete or absent; and the GeoTIFF writer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from fireseg.data.bands import BAND_NAMES, CEMS_BANDS
from fireseg.errors import FiresegError, SettingError
from fireseg.prepare.audit import FingerprintJob, audit
from fireseg.synthetic.scene import make_scene
from fireseg.synthetic.tiles import (
    TileJob,
    draw_properties,
    make_sample_scene,
    make_sample_tiles,
    mask_corner,
    write_raster,
)
from fireseg.tiles.folder import TileFiles
from fireseg.tiles.reader import find_tiles, read_tile

BOUNDS = (-45.0, 19.995, -44.99, 20.0)

SMALL: dict[str, Any] = {
    "train_scenes": 24,
    "val_scenes": 3,
    "test_scenes": 2,
    "smallest_px": 40,
    "largest_px": 60,
}
FEW = SMALL | {"train_scenes": 3, "val_scenes": 1, "test_scenes": 1}
"""The first tiles of each split of `SMALL`: every scene depends on its number only."""


def read_values(root: Path) -> dict[str, Any]:
    """Reads all files of a folder; of a raster the values and the grid, since its bytes depend on GDAL."""
    contents: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.suffix == ".tif":
            with rasterio.open(path) as raster:
                contents[name] = raster.read().tobytes(), tuple(raster.transform), raster.shape
        elif path.is_file():
            contents[name] = path.read_bytes()
    return contents


def is_part_of(few: Path, root: Path) -> bool:
    """Returns True if a folder made with `FEW` holds five tiles with the files and values of those in `root`."""
    values = {name: value for name, value in read_values(few).items() if name != "sample.json"}
    is_complete = sum(name.endswith("_S2L2A.tif") for name in values) == 5
    return is_complete and values.items() <= read_values(root).items()


def make_job(number: int, folder: Path = Path("train")) -> TileJob:
    return TileJob(split_folder=folder, seed=0, number=number, smallest_px=40, largest_px=60)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "tiles"
    make_sample_tiles(folder, **SMALL)
    return folder


@pytest.fixture(scope="module")
def tiles(root: Path) -> tuple[TileFiles, ...]:
    return find_tiles(root).tiles


def test_tiles_have_the_layout_of_cems(root: Path, tiles: list[TileFiles]) -> None:
    assert Counter(files.split for files in tiles) == {"train": 24, "val": 3, "test": 2}
    first = next(files for files in tiles if files.name == "SAMPLE0000_AOI01_01")
    folder = root / "train" / "SAMPLE0000" / "AOI01" / "SAMPLE0000_AOI01_01"
    assert first.image == folder / "SAMPLE0000_AOI01_01_S2L2A.tif"
    assert first.delineation == folder / "SAMPLE0000_AOI01_01_DEL.tif"


def test_names_differ_from_those_of_real_activations(tiles: list[TileFiles]) -> None:
    assert all(files.name.startswith("SAMPLE") and files.activation == files.name for files in tiles)


def test_images_have_twelve_float_bands_without_descriptions(tiles: list[TileFiles]) -> None:
    with rasterio.open(tiles[0].image) as raster:
        assert raster.dtypes == ("float32",) * 12
        assert raster.descriptions == (None,) * 12
        assert raster.crs.to_epsg() == 4326
        assert raster.res == pytest.approx((9e-5, 9e-5), rel=1e-3)


def test_a_tile_holds_the_exact_values_of_its_scene(tiles: list[TileFiles]) -> None:
    files = next(files for files in tiles if files.name == "SAMPLE0000_AOI01_01")
    with rasterio.open(files.image) as raster:
        values = raster.read().transpose(1, 2, 0)
    assert np.array_equal(values, make_scene(0, 0, height=values.shape[0], width=values.shape[1]).reflectance)


def test_sizes_vary_and_no_tile_is_square(tiles: list[TileFiles]) -> None:
    shapes = [read_tile(files, ("B04",)).unknown.shape for files in tiles]
    assert len(set(shapes)) > 20
    assert all(40 <= side <= 60 for shape in shapes for side in shape)
    assert all(height != width for height, width in shapes)


def test_all_tiles_are_read_without_missing_pixels(tiles: list[TileFiles]) -> None:
    for files in tiles:
        tile = read_tile(files, CEMS_BANDS)
        assert not tile.unknown.any()
        assert set(np.unique(tile.delineation)) <= {0, 1, 255}


def test_some_tiles_lack_grading_cloud_mask_or_metadata(tiles: list[TileFiles]) -> None:
    for part in ("grading", "cloud", "metadata"):
        missing = [files for files in tiles if getattr(files, part) is None]
        assert 0 < len(missing) < len(tiles) / 2, part
    assert all(files.delineation for files in tiles)


def test_some_delineations_have_an_unlabelled_corner(tiles: list[TileFiles]) -> None:
    masks = [read_tile(files, ("B04",)).delineation for files in tiles]
    shares = [share for mask in masks if (share := float((mask == 255).mean()))]
    assert 0 < len(shares) < len(masks) / 2
    assert max(shares) < 0.25


def test_every_tile_with_metadata_has_a_date_interval(tiles: list[TileFiles]) -> None:
    for files in tiles:
        date = read_tile(files, ("B04",)).date
        assert (date is None) == (files.metadata is None)
        if date is not None:
            start, end = (datetime.fromisoformat(moment) for moment in date.split("/"))
            assert 2 <= (end - start).days < 50


def test_the_metadata_call_the_tile_synthetic(tiles: list[TileFiles]) -> None:
    path = next(files.metadata for files in tiles if files.metadata)
    assert "synthetic" in json.loads(path.read_text())["payload"]["evalscript"]


def test_splits_do_not_leak(tiles: list[TileFiles]) -> None:
    job = FingerprintJob(tiles)
    footprints = [job.process(number)[0] for number in range(len(tiles))]
    assert audit([footprint for footprint in footprints if footprint is not None]).is_clean


def test_the_number_of_workers_does_not_change_the_values(root: Path, tmp_path: Path) -> None:
    make_sample_tiles(tmp_path / "tiles", workers=2, **FEW)
    assert is_part_of(tmp_path / "tiles", root)


def test_another_seed_gives_other_tiles() -> None:
    jobs = [TileJob(split_folder=Path(), seed=seed, number=0, smallest_px=200, largest_px=420) for seed in (0, 1)]
    assert draw_properties(jobs[0]) == draw_properties(jobs[0]) != draw_properties(jobs[1])


def test_sides_cover_the_whole_range() -> None:
    drawn = [draw_properties(make_job(number)) for number in range(400)]
    sides = [side for one in drawn for side in (one.height, one.width)]
    assert (min(sides), max(sides)) == (40, 60)


def test_a_corner_is_masked_along_an_edge() -> None:
    # 4 x 5 pixels, down 1 right 1: sums run from 0 to 7, those below 7 // 4 = 1 lie in the corner.
    mask = mask_corner(np.ones((4, 5), np.uint8), (1, 1))
    assert np.argwhere(mask == 255).tolist() == [[0, 0]]
    assert np.argwhere(mask_corner(np.ones((4, 5), np.uint8), (-1, 1)) == 255).tolist() == [[3, 0]]


def test_a_delineation_with_its_only_fire_in_the_corner_is_unchanged() -> None:
    mask = np.zeros((4, 5), np.uint8)
    mask[0, 0] = 1
    assert np.array_equal(mask_corner(mask, (1, 1)), mask)


def test_an_empty_range_of_sides_is_a_setting_error(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"largest_px: 60 .*smallest_px=60"):
        make_sample_tiles(tmp_path / "tiles", **SMALL | {"smallest_px": 60})


def test_a_folder_of_other_settings_is_an_error_that_names_the_difference(root: Path) -> None:
    with pytest.raises(FiresegError, match=r"seed=0 .*seed=5 .*delete the folder"):
        make_sample_tiles(root, seed=5, **SMALL)


def test_a_killed_call_leaves_no_folder_and_the_next_call_makes_it(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    script = tmp_path / "make.py"
    script.write_text(
        "from pathlib import Path; from fireseg.synthetic.tiles import make_sample_tiles\n"
        f"if __name__ == '__main__': make_sample_tiles(Path({str(folder)!r}), **{FEW!r})"
    )
    process = subprocess.Popen([sys.executable, str(script)], env=os.environ | {"PYTHONPATH": str(Path.cwd())})
    while process.poll() is None and not list(tmp_path.glob(".tiles.*.part/train/*/*/*/*_DEL.tif")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not folder.exists()
    make_sample_tiles(folder, **FEW)
    assert is_part_of(folder, root)
    assert list(tmp_path.glob(".tiles.*.part")) == []


def test_a_sample_scene_is_one_tile_outside_splits_and_made_once(tmp_path: Path) -> None:
    image = make_sample_scene(tmp_path / "scene", side_px=64)
    (files,) = find_tiles(tmp_path / "scene").tiles
    assert (files.image, files.split) == (image, "")
    assert max(read_tile(files, BAND_NAMES).image.shape[:2]) == 64
    before = image.stat().st_mtime_ns
    assert make_sample_scene(tmp_path / "scene", side_px=64).stat().st_mtime_ns == before
    with pytest.raises(FiresegError, match=r"side_px=64 .*side_px=80"):
        make_sample_scene(tmp_path / "scene", side_px=80)


def test_raster_values_are_written_losslessly(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((50, 100, 12), np.float32)
    write_raster(tmp_path / "a.tif", values, bounds_lonlat=BOUNDS)
    with rasterio.open(tmp_path / "a.tif") as raster:
        assert raster.dtypes == ("float32",) * 12
        assert np.array_equal(raster.read().transpose(1, 2, 0), values)


def test_a_raster_has_the_given_bounds_and_no_band_descriptions_or_nodata(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", np.eye(50, 100, dtype=np.uint8), bounds_lonlat=BOUNDS)
    with rasterio.open(tmp_path / "a.tif") as raster:
        assert raster.crs.to_epsg() == 4326
        assert tuple(raster.bounds) == pytest.approx(BOUNDS, abs=1e-12)
        assert tuple(raster.transform)[:6] == pytest.approx((1e-4, 0.0, -45.0, 0.0, -1e-4, 20.0), abs=1e-12)
        assert raster.descriptions == (None,)
        assert raster.nodata is None


def test_a_raster_in_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FiresegError, match=r"nowhere/a\.tif: cannot be written"):
        write_raster(tmp_path / "nowhere" / "a.tif", np.zeros((4, 4), np.uint8), bounds_lonlat=BOUNDS)
