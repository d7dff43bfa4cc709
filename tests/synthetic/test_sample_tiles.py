"""Sample tiles are such as the real ones are, read as these are, and leak nothing."""

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
from fireseg.prepare.audit import FingerprintTask, audit
from fireseg.synthetic.scene import make_scene
from fireseg.synthetic.tiles import TileJob, cut_off, draw_habits, make_sample_scene, make_sample_tiles
from fireseg.tiles.folder import TileFiles
from fireseg.tiles.reader import read_tile, search_tiles

SMALL: dict[str, Any] = {
    "train_scenes": 24,
    "val_scenes": 3,
    "test_scenes": 2,
    "smallest_px": 40,
    "largest_px": 60,
}


def read_values(root: Path) -> dict[str, Any]:
    """Everything in a folder; of a raster the values and the grid, since its bytes are GDAL's."""
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.suffix == ".tif":
            with rasterio.open(path) as raster:
                found[name] = raster.read().tobytes(), tuple(raster.transform), raster.shape
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def make_job(number: int, folder: Path = Path("train")) -> TileJob:
    return TileJob(split_folder=folder, seed=0, number=number, smallest_px=40, largest_px=60)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "tiles"
    make_sample_tiles(root, **SMALL)
    return root


@pytest.fixture(scope="module")
def tiles(made: Path) -> tuple[TileFiles, ...]:
    return search_tiles(made).tiles


def test_they_lie_as_the_real_ones_do(made: Path, tiles: list[TileFiles]) -> None:
    assert Counter(files.split for files in tiles) == {"train": 24, "val": 3, "test": 2}
    first = next(files for files in tiles if files.name == "SAMPLE0000_AOI01_01")
    folder = made / "train" / "SAMPLE0000" / "AOI01" / "SAMPLE0000_AOI01_01"
    assert first.image == folder / "SAMPLE0000_AOI01_01_S2L2A.tif"
    assert first.delineation == folder / "SAMPLE0000_AOI01_01_DEL.tif"


def test_no_name_can_be_taken_for_one_of_the_emergency_service(tiles: list[TileFiles]) -> None:
    assert all(files.name.startswith("SAMPLE") and files.activation == files.name for files in tiles)


def test_images_are_twelve_bands_of_reflectance_without_descriptions(tiles: list[TileFiles]) -> None:
    with rasterio.open(tiles[0].image) as raster:
        assert raster.dtypes == ("float32",) * 12
        assert raster.descriptions == (None,) * 12
        assert raster.crs.to_epsg() == 4326
        assert raster.res == pytest.approx((9e-5, 9e-5), rel=1e-3)


def test_a_tile_holds_its_scene_to_the_bit(tiles: list[TileFiles]) -> None:
    files = next(files for files in tiles if files.name == "SAMPLE0000_AOI01_01")
    with rasterio.open(files.image) as raster:
        values = raster.read().transpose(1, 2, 0)
    assert np.array_equal(values, make_scene(0, 0, height=values.shape[0], width=values.shape[1]).reflectance)


def test_sizes_vary_and_none_is_square(tiles: list[TileFiles]) -> None:
    shapes = [read_tile(files, ("B04",)).unknown.shape for files in tiles]
    assert len(set(shapes)) > 20
    assert all(40 <= side <= 60 for shape in shapes for side in shape)
    assert all(height != width for height, width in shapes)


def test_all_are_read_whole_and_without_a_fault(tiles: list[TileFiles]) -> None:
    for files in tiles:
        tile = read_tile(files, CEMS_BANDS)
        assert not tile.unknown.any()
        assert set(np.unique(tile.delineation)) <= {0, 1, 255}


def test_some_have_no_grading_some_no_cloud_mask_and_some_no_json(tiles: list[TileFiles]) -> None:
    for part in ("grading", "cloud", "metadata"):
        missing = [files for files in tiles if getattr(files, part) is None]
        assert 0 < len(missing) < len(tiles) / 2, part
    assert all(files.delineation for files in tiles)


def test_some_delineations_are_unknown_in_a_corner(tiles: list[TileFiles]) -> None:
    masks = [read_tile(files, ("B04",)).delineation for files in tiles]
    shares = [share for mask in masks if (share := float((mask == 255).mean()))]
    assert 0 < len(shares) < len(masks) / 2
    assert max(shares) < 0.25


def test_every_tile_with_a_json_has_the_days_that_were_searched(tiles: list[TileFiles]) -> None:
    for files in tiles:
        date = read_tile(files, ("B04",)).date
        assert (date is None) == (files.metadata is None)
        if date is not None:
            start, end = (datetime.fromisoformat(moment) for moment in date.split("/"))
            assert 2 <= (end - start).days < 50


def test_the_json_says_that_no_satellite_saw_it(tiles: list[TileFiles]) -> None:
    path = next(files.metadata for files in tiles if files.metadata)
    assert "synthetic" in json.loads(path.read_text())["payload"]["evalscript"]


def test_nothing_is_shared_between_splits(tiles: list[TileFiles]) -> None:
    look = FingerprintTask(tiles)
    found = [look.cut(number)[0] for number in range(len(tiles))]
    assert audit([footprint for footprint in found if footprint is not None]).is_clean


def test_worker_processes_change_nothing(made: Path, tmp_path: Path) -> None:
    make_sample_tiles(tmp_path / "tiles", workers=2, **SMALL)
    assert read_values(tmp_path / "tiles") == read_values(made)


def test_another_seed_makes_other_tiles() -> None:
    jobs = [TileJob(split_folder=Path(), seed=seed, number=0, smallest_px=200, largest_px=420) for seed in (0, 1)]
    assert draw_habits(jobs[0]) == draw_habits(jobs[0]) != draw_habits(jobs[1])


def test_sides_reach_both_ends() -> None:
    drawn = [draw_habits(make_job(number)) for number in range(400)]
    sides = [side for one in drawn for side in (one.height, one.width)]
    assert (min(sides), max(sides)) == (40, 60)


def test_the_corner_is_cut_off_along_a_slope() -> None:
    # 4 x 5 pixels, down 1 right 1: sums run from 0 to 7, those below 7 // 4 = 1 lie in the corner.
    mask = cut_off(np.ones((4, 5), np.uint8), (1, 1))
    assert np.argwhere(mask == 255).tolist() == [[0, 0]]
    assert np.argwhere(cut_off(np.ones((4, 5), np.uint8), (-1, 1)) == 255).tolist() == [[3, 0]]


def test_a_delineation_with_its_only_fire_in_the_corner_stays() -> None:
    mask = np.zeros((4, 5), np.uint8)
    mask[0, 0] = 1
    assert np.array_equal(cut_off(mask, (1, 1)), mask)


def test_a_range_of_sides_without_room_is_a_setting_error(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="largest_px: 60, but more than smallest_px=60"):
        make_sample_tiles(tmp_path / "tiles", **SMALL | {"smallest_px": 60})


def test_other_settings_into_the_same_folder_are_refused_with_the_differences(made: Path) -> None:
    with pytest.raises(FiresegError, match="made with seed=0 where seed=5 is wanted; delete the folder"):
        make_sample_tiles(made, seed=5, **SMALL)


def test_killed_on_the_way_there_is_no_folder_and_the_next_call_makes_it(made: Path, tmp_path: Path) -> None:
    root = tmp_path / "tiles"
    script = tmp_path / "make.py"
    script.write_text(
        "from pathlib import Path; from fireseg.synthetic.tiles import make_sample_tiles\n"
        f"if __name__ == '__main__': make_sample_tiles(Path({str(root)!r}), **{SMALL!r})"
    )
    process = subprocess.Popen([sys.executable, str(script)], env=os.environ | {"PYTHONPATH": str(Path.cwd())})
    while process.poll() is None and not list(tmp_path.glob(".tiles.*.part/train/*/*/*/*_DEL.tif")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not root.exists()
    make_sample_tiles(root, **SMALL)
    assert read_values(root) == read_values(made)
    assert list(tmp_path.glob(".tiles.*.part")) == []


def test_a_scene_is_one_tile_in_no_split_and_made_once(tmp_path: Path) -> None:
    image = make_sample_scene(tmp_path / "scene", side_px=64)
    (files,) = search_tiles(tmp_path / "scene").tiles
    assert (files.image, files.split) == (image, "")
    assert max(read_tile(files, BAND_NAMES).image.shape[:2]) == 64
    before = image.stat().st_mtime_ns
    assert make_sample_scene(tmp_path / "scene", side_px=64).stat().st_mtime_ns == before
    with pytest.raises(FiresegError, match="side_px=64 where side_px=80 is wanted"):
        make_sample_scene(tmp_path / "scene", side_px=80)
