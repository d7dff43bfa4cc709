"""Map rasters as other programs read them, and errors while they are written."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
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
from fireseg.geo.raster import FIRE_STEPS, convert_to_cog
from tests.geo.builders import LONLAT, NORTH_UP, UTM, describe_classes, make_grid, write_map

SIZES = [(40, 50), (600, 700), (1100, 1300)]


def draw(height: int, width: int, num_classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Draws classes in blocks of 10 px with an unknown corner, and probabilities."""
    rng = np.random.default_rng(height)
    blocks = rng.integers(0, num_classes, (height // 10 + 1, width // 10 + 1), np.uint8)
    classes = np.kron(blocks, np.ones((10, 10), np.uint8))[:height, :width]
    fire = rng.random((height, width), dtype=np.float32)
    classes[:20, :15], fire[:20, :15] = 255, np.nan
    return classes, fire


@pytest.mark.parametrize("fire_dtype", ["uint8", "float32"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_both_rasters_are_valid_cogs(tmp_path: Path, height: int, width: int, fire_dtype: str):
    paths = write_map(tmp_path, *draw(height, width), fire_dtype=fire_dtype)
    for path in paths[:2]:
        is_valid, errors, doubts = cog_validate(path, strict=True, quiet=True)
        assert (is_valid, errors, doubts) == (True, [], [])


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_values_round_trip(tmp_path: Path, height: int, width: int):
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


def test_float_probabilities_round_trip_exactly(tmp_path: Path):
    classes, fire = draw(600, 700)
    paths = write_map(tmp_path, classes, fire, fire_dtype="float32")
    with rasterio.open(paths.fire) as raster:
        assert raster.dtypes == ("float32",)
        assert np.isnan(raster.nodata)
        assert raster.scales == (1.0,)
        np.testing.assert_array_equal(raster.read(1), fire)


def test_probabilities_are_rounded_and_clipped_to_steps(tmp_path: Path):
    fire = [[0.0, 0.0019, 0.0021, 0.5, 0.9981, 1.0, 1.0000001, np.nan]]
    paths = write_map(tmp_path, np.zeros((1, 8)), fire)
    with rasterio.open(paths.fire) as raster:
        assert raster.read(1).tolist() == [[0, 0, 1, 125, 250, 250, 250, 255]]


def test_probability_band_has_scale_and_name(tmp_path: Path):
    paths = write_map(tmp_path, *draw(600, 700))
    with rasterio.open(paths.fire) as raster:
        assert raster.scales == (1 / FIRE_STEPS,) == (0.004,)
        assert raster.offsets == (0.0,)
        assert raster.descriptions == ("probability of fire",)


def test_class_band_has_colours_names_and_description(tmp_path: Path):
    paths = write_map(tmp_path, *draw(600, 700, 5), num_classes=5)
    names, colours = describe_classes(5)
    with rasterio.open(paths.classes) as raster:
        table = raster.colormap(1)
        assert ["#" + "".join(f"{part:02x}" for part in table[value][:3]) for value in range(5)] == list(colours)
        assert table[255] == (0, 0, 0, 0)
        assert [raster.tags()[f"CLASS_{value}"] for value in range(5)] == list(names)
        assert raster.descriptions == ("class",)


def test_gdal_reads_labels_as_categories(tmp_path: Path):
    paths = write_map(tmp_path, *draw(40, 50, 5), num_classes=5)
    assert paths.names == paths.classes.with_name("classes.tif.aux.xml")
    copy(paths.classes, tmp_path / "seen.vrt", driver="VRT")
    seen = ElementTree.parse(tmp_path / "seen.vrt").iterfind(".//CategoryNames/Category")
    assert [name.text for name in seen] == list(describe_classes(5)[0])


def test_class_names_and_labels_may_hold_any_characters(tmp_path: Path):
    names, labels = ["nicht <verbrannt>", "verbrannt"], ["vert & sain", "brûlé"]
    grid = make_grid(UTM, NORTH_UP, 1, 2)
    with MapWriter(tmp_path, grid, class_names=names, labels=labels, colours=["#000000", "#ffffff"]) as writer:
        writer.write(0, np.zeros((1, 2), np.uint8), np.zeros((1, 2)))
        paths = writer.close()
    with rasterio.open(paths.classes) as raster:
        assert [raster.tags()[f"CLASS_{value}"] for value in range(2)] == names
    assert [label.text for label in ElementTree.parse(paths.names).iterfind(".//Category")] == labels


def test_tags_are_in_both_files(tmp_path: Path):
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
def test_crs_and_transform_are_kept(tmp_path: Path, crs: CRS, transform: Affine):
    paths = write_map(tmp_path, *draw(600, 700), crs=crs, transform=transform)
    for path in paths[:2]:
        with rasterio.open(path) as raster:
            assert raster.crs == crs
            assert raster.transform.almost_equals(transform, 1e-12)
            assert cog_validate(path, strict=True, quiet=True)[0]


def test_probability_overviews_average_known_pixels(tmp_path: Path):
    fire = np.zeros((600, 600), np.float32)
    fire[::2] = 1.0
    fire[:4, :4] = [[1.0], [np.nan], [np.nan], [1.0]]
    paths = write_map(tmp_path, np.zeros(fire.shape), fire)
    with rasterio.open(paths.fire, overview_level=0) as raster:
        values = raster.read(1)
    assert values[10, 10] == 125
    assert values[0, 0] == 250


def test_class_overviews_hold_classes_only(tmp_path: Path):
    rng = np.random.default_rng(0)
    paths = write_map(tmp_path, rng.choice([0, 4], (1100, 600)), num_classes=5)
    with rasterio.open(paths.classes, overview_level=1) as raster:
        assert set(np.unique(raster.read(1))) == {0, 4}


def test_only_the_map_files_are_left(tmp_path: Path):
    write_map(tmp_path, *draw(600, 700))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classes.tif", "classes.tif.aux.xml", "fire.tif"]


def open_writer(folder: Path, height: int = 10) -> MapWriter:
    names, colours = describe_classes(2)
    return MapWriter(folder, make_grid(UTM, NORTH_UP, height, 10), class_names=names, labels=names, colours=colours)


def abort_map(folder: Path) -> None:
    with open_writer(folder) as writer:
        writer.write(0, np.zeros((5, 10), np.uint8), np.zeros((5, 10)))
        raise KeyboardInterrupt


def test_aborted_map_leaves_no_files(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        abort_map(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_closing_an_incomplete_map_is_an_error(tmp_path: Path):
    with open_writer(tmp_path) as writer:
        writer.write(0, np.zeros((5, 10), np.uint8), np.zeros((5, 10)))
        with pytest.raises(AssertionError, match="50 of 100 pixels"):
            writer.close()
    assert list(tmp_path.iterdir()) == []


def test_blocks_of_columns_give_the_map_of_whole_rows(tmp_path: Path):
    classes, fire = draw(600, 700)
    (tmp_path / "whole").mkdir()
    whole = write_map(tmp_path / "whole", classes, fire)
    names, colours = describe_classes(2)
    grid = make_grid(UTM, NORTH_UP, 600, 700)
    with MapWriter(tmp_path, grid, class_names=names, labels=names, colours=colours) as writer:
        for left, right in ((0, 300), (300, 301), (301, 700)):
            for top in (0, 256, 512):
                part = slice(top, top + 256), slice(left, right)
                writer.write(top, classes[part], fire[part], left=left)
        blocks = writer.close()
    for one, other in zip(whole, blocks, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_a_map_that_does_not_fit_on_the_disk_is_refused_before_it_is_made(tmp_path: Path):
    with pytest.raises(FiresegError, match=r"40,000,000 MB are required; free some space"):
        open_writer(tmp_path, 1_000_000_000_000).__enter__()


def test_missing_folder_is_an_error(tmp_path: Path):
    with pytest.raises(FiresegError, match="nowhere: cannot be written"), open_writer(tmp_path / "nowhere"):
        pass


def test_full_disk_is_an_error_and_leaves_no_files(tmp_path: Path, limit_file_bytes: Callable[[int], None]):
    with open_writer(tmp_path, height=100_000) as writer:
        limit_file_bytes(100_000)
        with pytest.raises(FiresegError, match=re.escape(f"{tmp_path}: cannot be written (File too large)")):
            writer.write(0, np.zeros((100_000, 10), np.uint8), np.zeros((100_000, 10)))
    assert list(tmp_path.iterdir()) == []


def test_disk_full_at_the_last_byte_is_an_error_and_leaves_no_files(
    tmp_path: Path, limit_file_bytes: Callable[[int], None]
):
    with open_writer(tmp_path) as writer:
        writer.write(0, np.zeros((10, 10), np.uint8), np.zeros((10, 10)))
        limit_file_bytes(90)
        with pytest.raises(FiresegError, match=re.escape(f"{tmp_path}: cannot be written (File too large)")):
            writer.close()
    assert list(tmp_path.iterdir()) == []


def test_map_is_read_without_warnings(tmp_path: Path):
    paths = write_map(tmp_path, *draw(40, 50))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in paths[:2]:
            with rasterio.open(path) as raster:
                raster.read(1)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A raster of noise, which does not compress."""
    values = np.random.default_rng(0).integers(0, 255, (1100, 700), np.uint8)
    path = tmp_path / "source.tif"
    options = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": 1100, "width": 700}
    with rasterio.open(path, "w", crs=UTM, transform=NORTH_UP, **options) as raster:
        raster.write(values, 1)
    return path


def test_cog_is_tiled_compressed_and_has_overviews(source: Path, tmp_path: Path):
    convert_to_cog(source, tmp_path / "target.tif", overviews="nearest")
    with rasterio.open(tmp_path / "target.tif") as raster:
        assert raster.block_shapes == [(512, 512)]
        assert raster.compression is not None
        assert raster.compression.value == "DEFLATE"
        assert raster.overviews(1) == [2, 4]
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


@pytest.mark.parametrize("most", [20_000, 300_000, 770_000])
def test_full_disk_during_conversion_is_an_error(
    source: Path, tmp_path: Path, limit_file_bytes: Callable[[int], None], most: int
):
    limit_file_bytes(most)
    with pytest.raises(FiresegError, match=r"target\.tif: .*disk is full"):
        convert_to_cog(source, tmp_path / "target.tif", overviews="average")


def test_missing_disk_space_is_an_error_before_writing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fireseg.geo.raster.disk_usage", lambda folder: SimpleNamespace(free=2_500_000))
    with pytest.raises(FiresegError, match=r"target\.tif: 2 MB .*3 MB are required; free some space"):
        convert_to_cog(source, tmp_path / "target.tif", overviews="nearest")
    assert not (tmp_path / "target.tif").exists()


def test_differing_copy_is_detected(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def copy_badly(source: Path, target: Path, **options) -> None:
        copy(source, target, driver="GTiff")
        with rasterio.open(target, "r+") as raster:
            values = raster.read(1)
            values[1099, 699] += 1
            raster.write(values, 1)

    monkeypatch.setattr("fireseg.geo.raster.copy", copy_badly)
    with pytest.raises(FiresegError, match=r"target\.tif: differs from what was written"):
        convert_to_cog(source, tmp_path / "target.tif", overviews="nearest")


def test_truncated_copy_is_detected(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def copy_badly(source: Path, target: Path, **options) -> None:
        target.write_bytes(source.read_bytes()[:700_000])

    monkeypatch.setattr("fireseg.geo.raster.copy", copy_badly)
    with pytest.raises(FiresegError, match=r"target\.tif: cannot be written"):
        convert_to_cog(source, tmp_path / "target.tif", overviews="nearest")
