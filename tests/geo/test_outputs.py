"""The two rasters of a map, as other programs read them."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from rasterio import Affine
from rasterio.crs import CRS
from rasterio.shutil import copy
from rio_cogeo.cogeo import cog_validate

from fireseg.errors import FiresegError
from fireseg.geo import MapWriter
from fireseg.geo.raster import FIRE_STEPS
from tests.geo.builders import LONLAT, NORTH_UP, UTM, describe_classes, make_grid, write_map

SIZES = [(40, 50), (600, 700), (3000, 3000)]


def draw(height: int, width: int, num_classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Classes in blocks of 10 px with an unknown corner, and probabilities that go with them."""
    rng = np.random.default_rng(height)
    blocks = rng.integers(0, num_classes, (height // 10 + 1, width // 10 + 1), np.uint8)
    classes = np.kron(blocks, np.ones((10, 10), np.uint8))[:height, :width]
    fire = rng.random((height, width), dtype=np.float32)
    classes[:20, :15], fire[:20, :15] = 255, np.nan
    return classes, fire


@pytest.mark.parametrize("fire_dtype", ["uint8", "float32"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_both_are_valid_cloud_optimized_geotiffs(tmp_path: Path, height: int, width: int, fire_dtype: str):
    paths = write_map(tmp_path, *draw(height, width), fire_dtype=fire_dtype)
    for path in paths[:2]:
        is_valid, errors, doubts = cog_validate(path, strict=True, quiet=True)
        assert (is_valid, errors, doubts) == (True, [], [])


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_what_was_written_is_read_back(tmp_path: Path, height: int, width: int):
    classes, fire = draw(height, width, 5)
    paths = write_map(tmp_path, classes, fire, num_classes=5, chunk_rows=97)
    with rasterio.open(paths.classes) as raster:
        assert (raster.count, raster.dtypes, raster.nodata) == (1, ("uint8",), 255)
        np.testing.assert_array_equal(raster.read(1), classes)
    with rasterio.open(paths.fire) as raster:
        assert (raster.count, raster.dtypes, raster.nodata) == (1, ("uint8",), 255)
        values = raster.read(1)
        np.testing.assert_array_equal(values == 255, np.isnan(fire))
        np.testing.assert_allclose((values * raster.scales[0])[values < 255], fire[values < 255], atol=0.002 + 1e-6)


def test_probabilities_as_float_are_read_back_to_the_bit(tmp_path: Path):
    classes, fire = draw(600, 700)
    paths = write_map(tmp_path, classes, fire, fire_dtype="float32")
    with rasterio.open(paths.fire) as raster:
        assert raster.dtypes == ("float32",)
        assert np.isnan(raster.nodata)
        assert raster.scales == (1.0,)
        np.testing.assert_array_equal(raster.read(1), fire)


def test_steps_of_probability_are_rounded_and_kept_within_0_and_1(tmp_path: Path):
    fire = [[0.0, 0.0019, 0.0021, 0.5, 0.9981, 1.0, 1.0000001, np.nan]]
    paths = write_map(tmp_path, np.zeros((1, 8)), fire)
    with rasterio.open(paths.fire) as raster:
        assert raster.read(1).tolist() == [[0, 0, 1, 125, 250, 250, 250, 255]]


def test_the_band_of_probabilities_has_its_scale_and_name(tmp_path: Path):
    paths = write_map(tmp_path, *draw(600, 700))
    with rasterio.open(paths.fire) as raster:
        assert raster.scales == (1 / FIRE_STEPS,) == (0.004,)
        assert raster.offsets == (0.0,)
        assert raster.descriptions == ("probability of fire",)


def test_classes_have_colours_names_and_a_description(tmp_path: Path):
    paths = write_map(tmp_path, *draw(600, 700, 5), num_classes=5)
    names, colours = describe_classes(5)
    with rasterio.open(paths.classes) as raster:
        table = raster.colormap(1)
        assert ["#" + "".join(f"{part:02x}" for part in table[value][:3]) for value in range(5)] == list(colours)
        assert table[255] == (0, 0, 0, 0)
        assert [raster.tags()[f"CLASS_{value}"] for value in range(5)] == list(names)
        assert raster.descriptions == ("class",)


def test_gdal_reads_the_names_of_the_classes_as_categories(tmp_path: Path):
    paths = write_map(tmp_path, *draw(40, 50, 5), num_classes=5)
    assert paths.names == paths.classes.with_name("classes.tif.aux.xml")
    copy(paths.classes, tmp_path / "seen.vrt", driver="VRT")
    seen = ElementTree.parse(tmp_path / "seen.vrt").iterfind(".//CategoryNames/Category")
    assert [name.text for name in seen] == list(describe_classes(5)[0])


def test_a_name_may_hold_any_letters(tmp_path: Path):
    names = ["nicht <verbrannt> & grün", "brûlé"]
    grid = make_grid(UTM, NORTH_UP, 1, 2)
    with MapWriter(tmp_path, grid, class_names=names, colours=["#000000", "#ffffff"]) as writer:
        writer.write(0, np.zeros((1, 2), np.uint8), np.zeros((1, 2)))
        paths = writer.close()
    with rasterio.open(paths.classes) as raster:
        assert [raster.tags()[f"CLASS_{value}"] for value in range(2)] == names
    assert [name.text for name in ElementTree.parse(paths.names).iterfind(".//Category")] == names


def test_tags_of_the_caller_are_in_both(tmp_path: Path):
    paths = write_map(tmp_path, *draw(40, 50), tags={"RUN": "outputs/a & b"})
    for path in paths[:2]:
        with rasterio.open(path) as raster:
            assert raster.tags()["RUN"] == "outputs/a & b"


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        pytest.param(UTM, NORTH_UP, id="UTM"),
        pytest.param(LONLAT, Affine(9e-5, 0, -121.123456789, 0, -8.9e-5, 39.987654321), id="degrees"),
        pytest.param(UTM, Affine(8, 6, 500_000, 6, -8, 4_600_000), id="rotated"),
        pytest.param(UTM, Affine(10, 0, 500_000, 0, 10, 4_600_000), id="south up"),
        pytest.param(LONLAT, Affine(1e-4, 0, 179.99, 0, -1e-4, -16), id="across the antimeridian"),
        pytest.param(CRS.from_epsg(3035), Affine(20, 0, 4e6, 0, -20, 3e6), id="north before east"),
        pytest.param(CRS.from_epsg(3031), Affine(20, 0, -3e4, 0, -20, 3e4), id="polar"),
        pytest.param(CRS.from_epsg(2263), Affine(30, 0, 980_000, 0, -30, 200_000), id="feet"),
        pytest.param(
            CRS.from_proj4("+proj=laea +lat_0=10 +lon_0=20 +datum=WGS84 +units=m"), NORTH_UP, id="without a code"
        ),
    ],
)
def test_crs_and_transform_are_those_of_the_input(tmp_path: Path, crs: CRS, transform: Affine):
    paths = write_map(tmp_path, *draw(600, 700), crs=crs, transform=transform)
    for path in paths[:2]:
        with rasterio.open(path) as raster:
            assert raster.crs == crs
            assert raster.transform.almost_equals(transform, 1e-12)
            assert cog_validate(path, strict=True, quiet=True)[0]


def test_overviews_of_probabilities_are_means_that_leave_out_the_unknown(tmp_path: Path):
    fire = np.zeros((600, 600), np.float32)
    fire[::2] = 1.0
    fire[:4, :4] = [[1.0], [np.nan], [np.nan], [1.0]]
    paths = write_map(tmp_path, np.zeros(fire.shape), fire)
    with rasterio.open(paths.fire, overview_level=0) as raster:
        values = raster.read(1)
    assert values[10, 10] == 125
    assert values[0, 0] == 250


def test_overviews_of_classes_hold_classes_alone(tmp_path: Path):
    rng = np.random.default_rng(0)
    paths = write_map(tmp_path, rng.choice([0, 4], (1100, 600)), num_classes=5)
    with rasterio.open(paths.classes, overview_level=1) as raster:
        assert set(np.unique(raster.read(1))) == {0, 4}


def test_nothing_but_the_map_is_left_in_the_folder(tmp_path: Path):
    write_map(tmp_path, *draw(600, 700))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classes.tif", "classes.tif.aux.xml", "fire.tif"]


def start(folder: Path, height: int = 10) -> MapWriter:
    names, colours = describe_classes(2)
    return MapWriter(folder, make_grid(UTM, NORTH_UP, height, 10), class_names=names, colours=colours)


def give_up(folder: Path) -> None:
    with start(folder) as writer:
        writer.write(0, np.zeros((5, 10), np.uint8), np.zeros((5, 10)))
        raise KeyboardInterrupt


def test_nothing_is_left_of_a_map_that_was_given_up(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        give_up(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_map_that_lacks_rows_is_not_finished(tmp_path: Path):
    with start(tmp_path) as writer:
        writer.write(0, np.zeros((5, 10), np.uint8), np.zeros((5, 10)))
        with pytest.raises(AssertionError, match="5 rows were written of 10"):
            writer.close()
    assert list(tmp_path.iterdir()) == []


def test_rows_out_of_order_are_noticed(tmp_path: Path):
    with start(tmp_path) as writer, pytest.raises(AssertionError, match="row 5 is to be written, but row 0 is next"):
        writer.write(5, np.zeros((5, 10), np.uint8), np.zeros((5, 10)))


def test_a_folder_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(FiresegError, match="nowhere: cannot be written"), start(tmp_path / "nowhere"):
        pass


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, limit_file_bytes: Callable[[int], None]):
    with start(tmp_path, height=100_000) as writer:
        limit_file_bytes(100_000)
        with pytest.raises(FiresegError, match=re.escape(f"{tmp_path}: cannot be written (File too large)")):
            writer.write(0, np.zeros((100_000, 10), np.uint8), np.zeros((100_000, 10)))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_at_the_last_byte_is_told_and_leaves_nothing(
    tmp_path: Path, limit_file_bytes: Callable[[int], None]
):
    with start(tmp_path) as writer:
        writer.write(0, np.zeros((10, 10), np.uint8), np.zeros((10, 10)))
        limit_file_bytes(90)
        with pytest.raises(FiresegError, match=re.escape(f"{tmp_path}: cannot be written (File too large)")):
            writer.close()
    assert list(tmp_path.iterdir()) == []


def test_a_map_is_read_without_warnings(tmp_path: Path):
    paths = write_map(tmp_path, *draw(40, 50))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in paths[:2]:
            with rasterio.open(path) as raster:
                raster.read(1)
