"""Windows of the bands of any raster."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from fireseg.data.bands import BAND_NAMES
from fireseg.errors import FiresegError
from fireseg.tiles import BandReader, Tile, find_tiles, open_bands, read_tile
from tests.data.look_alike_tiles import make_reflectance, write_raster, write_tile

HEIGHT, WIDTH = 600, 70
BANDS = ("B12", "B02", "B8A")
WINDOWS = [(0, 0, HEIGHT, WIDTH), (0, 0, 1, 1), (599, 69, 1, 1), (250, 13, 20, 41), (17, 3, 570, 60), (256, 0, 256, 70)]


def read_whole(root: Path, offset: float | None = None) -> Tile:
    (files,) = find_tiles(root).tiles
    return read_tile(files, BANDS, offset=offset)


def make_numbers() -> NDArray[np.uint16]:
    return np.rint(make_reflectance(HEIGHT, WIDTH) * 10_000).astype(np.uint16)


def punch(image: NDArray[Any], value: float) -> NDArray[Any]:
    image[11, 5:9, 20:30] = value
    image[:, 300, 3] = value
    return image


def write_float32(folder: Path) -> Path:
    return write_tile(folder, image=punch(make_reflectance(HEIGHT, WIDTH), np.nan))


def write_float64(folder: Path) -> Path:
    return write_tile(folder, image=punch(make_reflectance(HEIGHT, WIDTH).astype(np.float64) / 3, np.inf))


def write_numbers_with_offset(folder: Path) -> Path:
    path = write_tile(folder, image=make_numbers() + 1000, compress="deflate")
    path.with_suffix(".json").write_text(json.dumps({"processing_baseline": "05.09"}))
    return path


def write_scaled(folder: Path) -> Path:
    path = write_tile(folder, image=make_numbers())
    with rasterio.open(path, "r+") as raster:
        raster.scales, raster.offsets = [1 / 20_000] * 12, [-0.01] * 12
    return path


def write_with_nodata(folder: Path) -> Path:
    image = punch(make_reflectance(HEIGHT, WIDTH), -9999.1)
    return write_tile(folder, image=image, nodata=-9999.1, blockysize=7)


def write_with_mask(folder: Path) -> Path:
    path = write_tile(folder, image=make_numbers(), tiled=True, blockxsize=32, blockysize=16)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as raster:
        valid = np.ones(raster.shape, np.bool_)
        valid[250:270, 40:] = False
        raster.write_mask(valid)
    return path


KINDS = [
    write_float32,
    write_float64,
    write_numbers_with_offset,
    write_scaled,
    write_with_nodata,
    write_with_mask,
]


@pytest.mark.parametrize("write", KINDS)
def test_a_window_is_to_the_bit_that_part_of_the_tile(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    path = write(tmp_path)
    tile = read_whole(tmp_path)
    with open_bands(path, BANDS) as reader:
        for top, left, height, width in WINDOWS:
            image, unknown = reader.read(top, left, height, width)
            place = slice(top, top + height), slice(left, left + width)
            assert (image.dtype, unknown.dtype) == (np.uint16, np.bool_)
            np.testing.assert_array_equal(image, tile.image[place])
            np.testing.assert_array_equal(unknown, tile.unknown[place])
    assert (reader.grid, reader.read_flags()) == (tile.grid, tile.flags)
    assert tile.unknown.any() == (write not in (write_numbers_with_offset, write_scaled))


def test_threads_read_the_same_at_once(tmp_path: Path) -> None:
    path = write_float32(tmp_path)
    whole, gaps = open_bands(path, BANDS).read(0, 0, HEIGHT, WIDTH)
    tops = [*range(0, HEIGHT, 20)] * 4
    with open_bands(path, BANDS) as reader, ThreadPoolExecutor(8) as pool:
        windows = list(pool.map(lambda top: reader.read(top, 10, 20, 50), tops))
    for top, (image, unknown) in zip(tops, windows, strict=True):
        np.testing.assert_array_equal(image, whole[top : top + 20, 10:60])
        np.testing.assert_array_equal(unknown, gaps[top : top + 20, 10:60])


def test_at_the_end_every_thread_has_let_go_of_the_file(tmp_path: Path) -> None:
    path = write_float32(tmp_path)

    def count_handles() -> int:
        return sum(link.resolve() == path for link in Path("/proc/self/fd").iterdir() if link.exists())

    with ThreadPoolExecutor(4) as pool:
        with open_bands(path, BANDS) as reader:
            list(pool.map(lambda top: reader.read(top, 0, 20, 70), range(0, HEIGHT, 20)))
            assert count_handles() >= 2
        assert count_handles() == 0


def test_what_gdal_keeps_in_memory_is_limited_while_a_reader_is_open(tmp_path: Path) -> None:
    from rasterio._env import get_gdal_config  # pyright: ignore[reportMissingModuleSource]

    path = write_float32(tmp_path)
    before = get_gdal_config("GDAL_CACHEMAX")
    with open_bands(path, BANDS) as reader, ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda top: reader.read(top, 0, 20, 70), range(0, HEIGHT, 20)))
        assert get_gdal_config("GDAL_CACHEMAX") < 40 * 2**20
    assert get_gdal_config("GDAL_CACHEMAX") == before


def test_a_scene_of_any_name_needs_no_masks_and_finds_its_json(tmp_path: Path) -> None:
    path = write_raster(
        tmp_path / "my.scene.tiff",
        make_numbers() + 1000,
        crs="EPSG:32628",
        transform=Affine(10, 0.0, 5e5, 0.0, -10, 3e6),
    )
    (tmp_path / "my.scene.json").write_text(json.dumps({"processing_baseline": "04.00", "datetime": "2022-08-01"}))
    with open_bands(path, ("B02",)) as reader:
        image, _ = reader.read(0, 0, 10, 10)
    np.testing.assert_array_equal(image[..., 0], make_numbers()[1, :10, :10])
    assert (reader.grid.crs, reader.date) == ("EPSG:32628", "2022-08-01")
    assert (reader.path, reader.bands, reader.height, reader.width) == (path, ("B02",), HEIGHT, WIDTH)


def test_capital_letters_in_the_name_of_the_json_do_not_matter(tmp_path: Path) -> None:
    path = write_tile(tmp_path, image=make_numbers() + 1000)
    (tmp_path / path.name.replace("S2L2A.tif", "s2l2a.JSON")).write_text(json.dumps({"processing_baseline": "04.00"}))
    with open_bands(path, BANDS) as reader:
        np.testing.assert_array_equal(reader.read(0, 0, 600, 70)[0], read_whole(tmp_path).image)


def test_the_summary_of_a_map_beside_the_scene_tells_nothing_of_it(tmp_path: Path) -> None:
    name = "S2B_MSIL2A_20220101T105439_N0400_R051_T31TCJ_20220101T131109"
    path = write_raster(tmp_path / f"{name}.tif", make_numbers())
    before = open_bands(path, BANDS).read(0, 0, 5, 5)[0]
    path.with_suffix(".json").write_text(json.dumps({"made_by": "fireseg", "scene": path.name}))
    np.testing.assert_array_equal(open_bands(path, BANDS).read(0, 0, 5, 5)[0], before)


def test_the_offset_given_holds_where_nothing_else_tells(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", make_numbers() + 1000)
    with open_bands(path, ("B01",), offset=1000) as reader:
        np.testing.assert_array_equal(reader.read(0, 0, 9, 9)[0][..., 0], make_numbers()[0, :9, :9])
    (flag,) = open_bands(path, BAND_NAMES).look()
    assert flag.startswith(f"{path}: the darkest pixels are 0.1")


def test_a_look_at_a_large_raster_takes_a_few_of_its_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 4096
    profile: dict[str, Any] = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    image = np.full((1, size, size), 0.3, np.float32)
    image[:, :, ::7] = 30.0
    path = write_raster(tmp_path / "scene.tif", image, descriptions=("B04",), **profile)
    num_read = []
    monkeypatch.setattr("fireseg.tiles.reader.read_window", _count(num_read))
    reader = open_bands(path, ("B04",))
    (flag,) = reader.read_flags()
    assert "values from 0.3 to 30: look like percent" in flag
    assert sum(num_read) == 64 * 64 * 64
    assert (reader.read_flags(), sum(num_read)) == ((flag,), 64 * 64 * 64)


def _count(num_read: list[int]) -> Callable[..., Any]:
    from fireseg.tiles.radiometry import read_window

    def count_and_read(raster: Any, channels: Any, window: Any, sample: Any = None) -> Any:
        num_read.append(window[2] * window[3])
        return read_window(raster, channels, window, sample)

    return count_and_read


def refuse(path: Path, bands: tuple[str, ...] = BANDS) -> tuple[str, ...]:
    with pytest.raises(FiresegError) as caught:
        open_bands(path, bands)
    return caught.value.faults


def test_a_quick_look_is_refused(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "rgb.tif", np.zeros((3, 9, 9), np.uint8), descriptions=("B04", "B03", "B02"))
    (fault,) = refuse(path, ("B04", "B03", "B02"))
    assert fault.startswith(f"{path}: 3 channels of 8 bits, a picture for the eye")


def test_channels_that_nobody_can_tell_are_refused(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", make_reflectance(channels=7))
    (fault,) = refuse(path)
    assert fault.startswith(f"{path}: 7 channels that no description names")


def test_a_band_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", make_reflectance(channels=2), descriptions=("B04", "B08"))
    (fault,) = refuse(path, ("B04", "B12"))
    assert fault == f"{path}: no B12, only B04 B08; take a raster that has what the model needs"


def test_all_faults_come_at_once(tmp_path: Path) -> None:
    with pytest.warns(NotGeoreferencedWarning):
        path = write_raster(tmp_path / "a.tif", make_reflectance(channels=3), crs=None, transform=None)
    path.with_suffix(".json").write_text("{")
    faults = refuse(path)
    assert [fault.partition(": ")[0] for fault in faults] == [str(path.with_suffix(".json")), str(path), str(path)]
    assert [word in fault for word, fault in zip(("json", "georeference", "3 channels"), faults, strict=True)] == [
        True
    ] * 3


def test_a_path_that_is_no_raster_is_said_with_the_nearest_that_is(tmp_path: Path) -> None:
    write_raster(tmp_path / "scene.tif", make_reflectance())
    (tmp_path / "text.tif").write_text("fire")
    assert refuse(tmp_path / "scene.tiff")[0].startswith(
        f"{tmp_path}/scene.tiff: no such file (did you mean 'scene.tif'?)"
    )
    assert refuse(tmp_path / "nowhere" / "scene.tif")[0].startswith(f"{tmp_path}/nowhere/scene.tif: no such file;")
    assert refuse(tmp_path)[0].startswith(f"{tmp_path}: a folder; name a raster")
    assert refuse(tmp_path / "text.tif")[0].startswith(f"{tmp_path}/text.tif: truncated or no raster")


def test_a_raster_damaged_somewhere_is_named_when_that_part_is_read(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "scene.tif", make_reflectance(HEIGHT, WIDTH), interleave="pixel", compress="deflate")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) * 9 // 10] = bytes(len(content) * 9 // 10 - len(content) // 2)
    path.write_bytes(content)
    with open_bands(path, BANDS) as reader:
        reader.read(0, 0, 100, WIDTH)
        with pytest.raises(FiresegError, match=r"scene\.tif: truncated or no raster"):
            reader.read(350, 0, 100, WIDTH)


_MEASURE = """
import sys
from pathlib import Path
from fireseg.data.tiles import open_bands
with open_bands(Path(sys.argv[1]), ("B02", "B04", "B08", "B12")) as reader:
    reader.read_flags()
    for top in range(0, reader.height, 256):
        reader.read(top, 0, min(256, reader.height - top), reader.width)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) // 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is read from /proc")
@pytest.mark.parametrize("layout", [{}, {"tiled": True, "blockxsize": 512, "blockysize": 512}])
def test_memory_does_not_grow_with_the_height(tmp_path: Path, layout: dict[str, Any]) -> None:
    peaks = [measure_peak_mb(tmp_path / f"{height}.tif", height, layout) for height in (1024, 4096)]
    assert peaks[1] < 1.1 * peaks[0]


def measure_peak_mb(path: Path, height: int, layout: dict[str, Any]) -> int:
    width, rows = 2048, 512
    profile: dict[str, Any] = {"driver": "GTiff", "crs": "EPSG:32628", "transform": Affine(10, 0.0, 5e5, 0.0, -10, 3e6)}
    profile |= {"count": 12, "dtype": "uint16", "interleave": "pixel", "compress": "lzw"} | layout
    strip = np.broadcast_to(np.arange(1, width + 1, dtype=np.uint16), (12, rows, width))
    with rasterio.open(path, "w", height=height, width=width, **profile) as raster:
        for top in range(0, height, rows):
            raster.write(strip, window=Window(0, top, width, rows))  # pyright: ignore[reportCallIssue]
    done = subprocess.run([sys.executable, "-c", _MEASURE, str(path)], check=True, capture_output=True, text=True)
    return int(done.stdout)


def test_a_reader_can_be_imported_without_torch() -> None:
    code = "import sys; from fireseg.tiles import open_bands; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert BandReader.__doc__
