"""Maps of scenes as people have them: every form that means the same gives the same map, others are refused."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio import Affine

from fireseg.data.bands import BAND_NAMES, CEMS_BANDS
from fireseg.errors import FiresegError, SettingError
from fireseg.predict.api import Run
from fireseg.predict.pipeline import format_summary
from fireseg.predict.scene import SceneMap
from fireseg.synthetic.scene import make_scene
from tests.conftest import CountingServer
from tests.predict.builders import make_trained, predict, write_scene
from tests.tiles.builders import PRODUCT, interpolate, utm_grid, write_raster, write_safe

HEIGHT, WIDTH = 300, 320
INDEXES = [CEMS_BANDS.index(band) for band in BAND_NAMES]


@pytest.fixture(scope="module")
def numbers() -> NDArray[np.uint16]:
    """Digital numbers without offset of a synthetic scene with a fire, `(7, H, W)`, 1 or more."""
    scene = make_scene(0, 3, height=HEIGHT, width=WIDTH, fire_share=1.0)
    image = np.rint(scene.reflectance[..., INDEXES] * 10_000).clip(1, 10_000)
    return image.astype(np.uint16).transpose(2, 0, 1)


def read_map(result: SceneMap) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    with rasterio.open(result.files.classes) as classes, rasterio.open(result.files.fire) as fire:
        return classes.read(1), fire.read(1)


@pytest.fixture(scope="module")
def expected(numbers: NDArray[np.uint16], tmp_path_factory: pytest.TempPathFactory) -> tuple[NDArray, NDArray]:
    folder = tmp_path_factory.mktemp("base")
    result = predict(make_trained(), write_scene(folder / "scene.tif", numbers), folder / "maps")
    classes, fire = read_map(result)
    assert 0.1 < (classes == 1).mean() < 0.9
    return classes, fire


def write_as_float(folder: Path, numbers: NDArray[np.uint16]) -> Path:
    return write_scene(folder / "scene.tif", (numbers / np.float64(10_000)).astype(np.float32))


def write_with_baseline_tag(folder: Path, numbers: NDArray[np.uint16]) -> Path:
    path = write_scene(folder / "scene.tif", numbers + np.uint16(1000))
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(PROCESSING_BASELINE="05.09")
    return path


def write_with_product_name(folder: Path, numbers: NDArray[np.uint16]) -> Path:
    return write_scene(folder / f"{PRODUCT}.tif", numbers + np.uint16(1000))


def write_beside_product_xml(folder: Path, numbers: NDArray[np.uint16]) -> Path:
    write_safe(folder, {})
    (folder / f"{PRODUCT}.SAFE" / "MTD_MSIL2A.xml").rename(folder / "MTD_MSIL2A.xml")
    return write_scene(folder / "stack_20230828.tif", numbers + np.uint16(1000))


def write_beside_stac_metadata(folder: Path, numbers: NDArray[np.uint16]) -> Path:
    bands = [{"name": band, "scale": 0.0001, "offset": -0.1} for band in BAND_NAMES]
    (folder / "scene.json").write_text(json.dumps({"raster:bands": bands}))
    return write_scene(folder / "scene.tif", numbers + np.uint16(1000))


def write_with_scale_tags(folder: Path, numbers: NDArray[np.uint16]) -> Path:
    path = write_scene(folder / "scene.tif", numbers + np.uint16(1000))
    with rasterio.open(path, "r+") as raster:
        raster.scales, raster.offsets = [0.0001] * 7, [-0.1] * 7
    return path


def write_in_other_order(folder: Path, numbers: NDArray[np.uint16]) -> Path:
    path = write_scene(folder / "scene.tif", numbers[::-1])
    with rasterio.open(path, "r+") as raster:
        raster.descriptions = ["swir22", "swir16", "nir08", "nir", "red", "green", "blue"]
    return path


@pytest.mark.parametrize(
    ("write", "options"),
    [
        (write_as_float, {}),
        (write_with_baseline_tag, {}),
        (write_with_product_name, {}),
        (write_beside_product_xml, {}),
        (write_beside_stac_metadata, {}),
        (write_with_scale_tags, {}),
        (write_in_other_order, {}),
        (lambda folder, numbers: write_scene(folder / "s.tif", numbers + np.uint16(1000)), {"offset": 1000.0}),
        (lambda folder, numbers: write_scene(folder / "s.tif", numbers.astype(np.float32)), {"scale": 0.0001}),
        (
            lambda folder, numbers: write_scene(folder / "s.tif", numbers.astype(np.float64) + 1000),
            {"scale": 0.0001, "offset": 1000.0},
        ),
        (lambda folder, numbers: write_scene(folder / "s.tif", numbers / np.float64(100)), {"scale": 0.01}),
        (
            lambda folder, numbers: write_scene(folder / "s.tif", numbers / np.float64(10_000) + 0.1),
            {"scale": 1.0, "offset": 0.1},
        ),
    ],
)
def test_every_form_of_the_same_scene_gives_the_same_map(
    tmp_path: Path,
    numbers: NDArray[np.uint16],
    expected: tuple[NDArray, NDArray],
    write: Callable[[Path, NDArray[np.uint16]], Path],
    options: dict[str, Any],
) -> None:
    result = predict(make_trained(), write(tmp_path, numbers), tmp_path / "maps", **options)
    for found, wanted in zip(read_map(result), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert result.summary["flags"] == []


def test_a_safe_product_gives_the_map_of_the_same_scene_as_one_raster(
    tmp_path: Path, numbers: NDArray[np.uint16]
) -> None:
    bands: dict[str, NDArray[np.uint16]] = dict(zip(BAND_NAMES, numbers + np.uint16(1000), strict=True))
    for band in ("B8A", "B11", "B12"):
        bands[band] = np.ascontiguousarray(bands[band][::2, ::2])
    planes = [bands[band] if len(bands[band]) == HEIGHT else interpolate(bands[band]) for band in BAND_NAMES]
    grid = {"crs": "EPSG:32631", "transform": utm_grid(10)}
    stack = write_scene(tmp_path / "stack.tif", np.stack(planes), **grid)
    whole = predict(make_trained(), stack, tmp_path / "maps", offset=1000.0)
    product = predict(make_trained(), write_safe(tmp_path, bands), tmp_path / "maps")
    for found, wanted in zip(read_map(product), read_map(whole), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert product.files.classes.name == f"{PRODUCT}_classes.tif"
    assert product.summary["date"] == "2023-08-28T10:54:39Z"


@pytest.mark.parametrize(
    ("change", "cure"),
    [
        (lambda numbers: numbers.astype(np.float32), "--scale 0.0001"),
        (lambda numbers: numbers / np.float64(100), "--scale 0.01"),
        (lambda numbers: numbers + np.uint16(1000), "--offset 1000"),
        (lambda numbers: (numbers / np.float64(10_000) + 0.1).astype(np.float32), "--offset 0.1"),
        (lambda numbers: (numbers / 40).clip(0, 255).astype(np.uint8), "--scale 0.01"),
        (lambda numbers: (numbers - 2000.0) / 900.0, "undo the normalisation"),
    ],
)
def test_values_that_are_no_reflectance_are_refused_with_their_cure(
    tmp_path: Path, numbers: NDArray[np.uint16], change: Callable[[NDArray], NDArray], cure: str
) -> None:
    scene = write_scene(tmp_path / "scene.tif", change(numbers))
    with pytest.raises(FiresegError, match=rf"scene\.tif: .*{cure}.*--trust-values"):
        predict(make_trained(), scene, tmp_path / "maps")
    assert not list((tmp_path / "maps").glob("*"))


@pytest.mark.parametrize(
    ("dtype", "number", "options"),
    [(np.uint16, 0, {}), (np.float32, 0, {}), (np.float32, np.nan, {}), (np.float32, -9999, {"nodata": -9999.0})],
)
def test_pixels_without_a_measurement_are_unknown(
    tmp_path: Path, numbers: NDArray[np.uint16], dtype: Any, number: float, options: dict[str, Any]
) -> None:
    image = numbers.astype(dtype) if dtype == np.uint16 else (numbers / np.float64(10_000)).astype(dtype)
    image[:, :30] = number
    result = predict(make_trained(), write_scene(tmp_path / "scene.tif", image), tmp_path / "maps", **options)
    classes, _ = read_map(result)
    assert (classes[:30] == 255).all()
    assert (classes[30:] != 255).all()
    assert result.summary["unknown"] == pytest.approx(0.1)


def test_an_untagged_nodata_value_is_refused(tmp_path: Path, numbers: NDArray[np.uint16]) -> None:
    image = (numbers / np.float64(10_000)).astype(np.float32)
    image[:, :30] = -9999
    with pytest.raises(FiresegError, match=r"values of -9999: .*use --nodata -9999"):
        predict(make_trained(), write_scene(tmp_path / "scene.tif", image), tmp_path / "maps")


def write_clouds(path: Path, *, cloud: int, clear: int) -> Path:
    """Writes a cloud mask of 20 m with clouds over the upper third of the scene."""
    classes = np.full((HEIGHT // 2, WIDTH // 2), clear, np.uint8)
    classes[: HEIGHT // 6] = cloud
    grid = Affine(20, 0, 500_000, 0, -20, 4_400_000)
    return write_raster(path, classes, crs="EPSG:32629", transform=grid)


@pytest.mark.parametrize(
    ("name", "cloud", "clear"), [("scene_CM.tif", 1, 0), ("scene_CM.tif", 3, 2), ("scene_SCL.tif", 9, 4)]
)
def test_land_under_cloud_is_unknown(
    tmp_path: Path,
    numbers: NDArray[np.uint16],
    expected: tuple[NDArray, NDArray],
    name: str,
    cloud: int,
    clear: int,
) -> None:
    scene, mask = write_scene(tmp_path / "scene.tif", numbers), write_clouds(tmp_path / name, cloud=cloud, clear=clear)
    result = predict(make_trained(), scene, tmp_path / "maps")
    classes, _ = read_map(result)
    assert (classes[:100] == 255).all()
    np.testing.assert_array_equal(classes[100:], expected[0][100:])
    assert result.summary["cloud"] == {"mask": str(mask), "share": pytest.approx(1 / 3)}
    assert result.summary["pixels"]["unknown"] == 100 * WIDTH
    assert "33 %   33 %" in format_summary({scene: result})[1]


def test_clouds_can_be_mapped_all_the_same(
    tmp_path: Path, numbers: NDArray[np.uint16], expected: tuple[NDArray, NDArray]
) -> None:
    scene = write_scene(tmp_path / "scene.tif", numbers)
    write_clouds(tmp_path / "scene_CM.tif", cloud=1, clear=0)
    result = predict(make_trained(), scene, tmp_path / "maps", clouds="keep")
    np.testing.assert_array_equal(read_map(result)[0], expected[0])
    assert result.summary["cloud"] is None


def test_a_cloud_mask_can_be_named(tmp_path: Path, numbers: NDArray[np.uint16]) -> None:
    scene = write_scene(tmp_path / "scene.tif", numbers)
    mask = write_clouds(tmp_path / "other" / "T29_SCL_20m.tif", cloud=8, clear=5)
    result = predict(make_trained(), scene, tmp_path / "maps", cloud_mask=mask)
    assert result.summary["cloud"]["share"] == pytest.approx(1 / 3)


def test_a_cloud_mask_without_effect_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FiresegError, match=r"--cloud-mask .* no effect with --clouds keep"):
        predict(make_trained(), tmp_path / "scene.tif", tmp_path / "maps", clouds="keep", cloud_mask=tmp_path / "c.tif")


@pytest.mark.parametrize(
    ("model", "words"),
    [({"pixel_m": 20.0}, "pixels of 10 m, but the model was trained on 20 m"), ({"level": "1C"}, "level 2A, but")],
)
def test_a_scene_unlike_the_training_data_is_flagged_wherever_its_map_is_shown(
    tmp_path: Path, numbers: NDArray[np.uint16], model: dict[str, Any], words: str
) -> None:
    trained = dataclasses.replace(make_trained(), **model)
    scene = write_scene(tmp_path / "scene_S2L2A.tif", numbers)
    result = predict(trained, scene, tmp_path / "maps")
    (flag,) = result.summary["flags"]
    assert words in flag
    assert format_summary({scene: result})[-1] == f"flag: {flag}"
    with sqlite3.connect(result.files.burned) as database:
        assert {row[0] for row in database.execute("SELECT flags FROM burned")} == {flag}
    fitting = predict(dataclasses.replace(trained, pixel_m=10.0, level="2A"), scene, tmp_path / "fitting")
    assert fitting.summary["flags"] == []
    assert fitting.files.picture.read_bytes() != result.files.picture.read_bytes()


def test_a_map_with_more_areas_than_polygons_is_flagged(
    tmp_path: Path, numbers: NDArray[np.uint16], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fireseg.geo.polygons.MAX_POLYGONS", 1)
    numbers = numbers.copy()
    numbers[3] = 3000  # burned is what is dark in this band
    numbers[3, 5:13, 5:13] = numbers[3, 20:30, 20:30] = 500
    result = predict(make_trained(), write_scene(tmp_path / "scene_S2L2A.tif", numbers), tmp_path / "maps")
    (flag,) = result.summary["flags"]
    assert "2 burned areas, more than any fires leave; the 1 smallest" in flag
    polygons = result.summary["polygons"]
    assert (polygons["count"], polygons["dropped"]) == (1, 1)
    with sqlite3.connect(result.files.burned) as database:
        assert database.execute("SELECT flags FROM burned").fetchall() == [(flag,)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"offset": 500.0}, "--offset 500 has no effect: the metadata give 1000"),
        ({"offset": 1000.0}, None),
    ],
)
def test_an_option_without_effect_says_so(
    tmp_path: Path, numbers: NDArray[np.uint16], options: dict[str, Any], words: str | None
) -> None:
    result = predict(make_trained(), write_with_baseline_tag(tmp_path, numbers), tmp_path / "maps", **options)
    assert [words in flag for flag in result.summary["flags"]] == ([True] if words else [])


def test_the_edge_of_the_swath_of_an_old_product_is_unknown(tmp_path: Path, numbers: NDArray[np.uint16]) -> None:
    bands: dict[str, NDArray[np.uint16]] = dict(zip(BAND_NAMES, numbers.copy(), strict=True))
    for band in ("B8A", "B11", "B12"):
        bands[band] = np.ascontiguousarray(bands[band][::2, ::2])
    for plane in bands.values():
        plane[:, : plane.shape[1] // 4] = 0
    old = PRODUCT.replace("N0509", "N0214")
    safe = write_safe(tmp_path, bands, name=old, offset=None, baseline="02.14")
    classes, _ = read_map(predict(make_trained(), safe, tmp_path / "maps"))
    assert (classes[:, : WIDTH // 4] == 255).all()
    assert (classes[:, WIDTH // 4 :] != 255).all()


def test_interpolation_does_not_mix_measurements_with_the_edge_of_the_swath(
    tmp_path: Path, numbers: NDArray[np.uint16]
) -> None:
    from fireseg.tiles import open_bands

    bands: dict[str, NDArray[np.uint16]] = {"B12": np.full((HEIGHT // 2, WIDTH // 2), 2000, np.uint16)}
    bands["B12"][:, :40] = 0
    bands["B08"] = numbers[3] + np.uint16(1000)
    with open_bands(write_safe(tmp_path, bands), ("B08", "B12")) as reader:
        image, unknown = reader.read(0, 0, HEIGHT, WIDTH)
    assert set(np.unique(image[..., 1][~unknown])) == {1000}


@pytest.mark.parametrize("tagged", [False, True])
def test_a_nodata_value_of_signed_integers_is_never_mapped(
    tmp_path: Path, numbers: NDArray[np.uint16], tagged: bool
) -> None:
    image = numbers.astype(np.int16)
    image[:, :2] = -9999
    scene = write_scene(tmp_path / "scene.tif", image, **({"nodata": -9999} if tagged else {}))
    if tagged:
        assert (read_map(predict(make_trained(), scene, tmp_path / "maps"))[0][:2] == 255).all()
    else:
        with pytest.raises(FiresegError, match=r"values of -9999: .*use --nodata -9999"):
            predict(make_trained(), scene, tmp_path / "maps")


def test_a_fill_value_between_the_sampled_blocks_stops_the_map(tmp_path: Path) -> None:
    image = np.full((7, 2048, 2048), 0.25, np.float32)
    image[:, 600:640, 600:640] = -9999
    profile = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    scene = write_scene(tmp_path / "scene.tif", image, **profile)
    with pytest.raises(FiresegError, match=r"scene\.tif: values of -9999.*--nodata -9999"):
        predict(make_trained(), scene, tmp_path / "maps")


def test_a_band_without_measurements_is_refused(tmp_path: Path, numbers: NDArray[np.uint16]) -> None:
    image = (numbers / np.float64(10_000)).astype(np.float32)
    image[6] = 0
    with pytest.raises(FiresegError, match=r"scene\.tif: B12 0 everywhere"):
        predict(make_trained(), write_scene(tmp_path / "scene.tif", image), tmp_path / "maps")


def test_the_name_of_a_product_counts_also_in_the_current_folder(
    tmp_path: Path, numbers: NDArray[np.uint16], expected: tuple[NDArray, NDArray], monkeypatch: pytest.MonkeyPatch
) -> None:
    outer = tmp_path / PRODUCT.replace("S2B", "S2A").replace("N0509", "N0213")
    write_scene(outer / PRODUCT / "scene.tif", numbers + np.uint16(1000))
    monkeypatch.chdir(outer / PRODUCT)
    result = predict(make_trained(), Path("scene.tif"), tmp_path / "maps")
    np.testing.assert_array_equal(read_map(result)[0], expected[0])
    assert result.summary["date"] == "2023-08-28T10:54:39Z"


def test_an_offset_of_the_metadata_is_subtracted_under_a_scale_tag(
    tmp_path: Path, numbers: NDArray[np.uint16], expected: tuple[NDArray, NDArray]
) -> None:
    path = write_with_baseline_tag(tmp_path, numbers)
    with rasterio.open(path, "r+") as raster:
        raster.scales = [0.0001] * 7
    np.testing.assert_array_equal(read_map(predict(make_trained(), path, tmp_path / "maps"))[0], expected[0])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full((HEIGHT, WIDTH), 0.9, np.float32), "value 0.9, but a cloud mask"),
        (np.full((HEIGHT, WIDTH), -9999, np.int16), "value -9999, but a cloud mask"),
        (np.zeros((3, HEIGHT, WIDTH), np.uint8), "3 channels, but a cloud mask has one"),
    ],
)
def test_a_raster_that_is_no_cloud_mask_is_refused(
    tmp_path: Path, numbers: NDArray[np.uint16], values: NDArray, words: str
) -> None:
    scene = write_scene(tmp_path / "scene.tif", numbers)
    grid = {"crs": "EPSG:32629", "transform": Affine(10, 0, 500_000, 0, -10, 4_400_000)}
    write_raster(tmp_path / "scene_CM.tif", values, **grid)
    with pytest.raises(FiresegError, match=rf"scene_CM\.tif: {words}"):
        predict(make_trained(), scene, tmp_path / "maps")


@pytest.mark.parametrize(("west", "share"), [(501_600, 0.5), (600_000, None)])
def test_a_cloud_mask_of_another_area_is_flagged_or_refused(
    tmp_path: Path, numbers: NDArray[np.uint16], west: float, share: float | None
) -> None:
    scene = write_scene(tmp_path / "scene.tif", numbers)
    grid = {"crs": "EPSG:32629", "transform": Affine(10, 0, west, 0, -10, 4_400_000)}
    write_raster(tmp_path / "scene_CM.tif", np.zeros((HEIGHT, WIDTH), np.uint8), **grid)
    if share is None:
        with pytest.raises(FiresegError, match=r"scene_CM\.tif: lies outside of the scene"):
            predict(make_trained(), scene, tmp_path / "maps")
    else:
        (flag,) = predict(make_trained(), scene, tmp_path / "maps").summary["flags"]
        assert "covers 50 % of the scene" in flag


def test_beyond_a_cloud_mask_whose_nodata_tag_means_clear_nothing_is_known(
    tmp_path: Path, numbers: NDArray[np.uint16]
) -> None:
    scene = write_scene(tmp_path / "scene.tif", numbers)
    grid = {"crs": "EPSG:32629", "transform": Affine(10, 0, 501_600, 0, -10, 4_400_000), "nodata": 0}
    write_raster(tmp_path / "scene_CM.tif", np.zeros((HEIGHT, WIDTH), np.uint8), **grid)
    classes, _ = read_map(predict(make_trained(), scene, tmp_path / "maps"))
    assert (classes[:, :160] == 255).all()
    assert (classes[:, 160:] != 255).all()


def test_a_scene_whose_rows_go_north_finds_its_cloud_mask(tmp_path: Path, numbers: NDArray[np.uint16]) -> None:
    south = Affine(10, 0, 500_000, 0, 10, 4_400_000 - 10 * HEIGHT)
    scene = write_scene(tmp_path / "scene.tif", np.ascontiguousarray(numbers[:, ::-1]), transform=south)
    write_clouds(tmp_path / "scene_SCL.tif", cloud=9, clear=4)
    classes, _ = read_map(predict(make_trained(), scene, tmp_path / "maps"))
    assert (classes[-100:] == 255).all()
    assert (classes[:-100] != 255).all()


@pytest.mark.parametrize(("raw", "words"), [(900, "scaled to 0 or 1"), (17_000, "scaled to 0 or 1")])
def test_a_scene_that_is_all_0_or_saturated_after_scaling_is_refused(tmp_path: Path, raw: int, words: str) -> None:
    values = np.full((7, 80, 90), raw, np.uint16)
    scene = write_scene(tmp_path / "scene.tif", values)
    with pytest.raises(FiresegError, match=rf"scene\.tif: .*{words}.*--offset"):
        predict(make_trained(), scene, tmp_path / "maps", offset=1000)
    with pytest.raises(FiresegError, match=rf"image: .*{words}.*--offset"):
        Run(make_trained()).predict(values, scale=1e-4, offset=1000)


@pytest.mark.parametrize("number", ["nan", "-60000", "1e999"])
def test_an_impossible_offset_in_the_tags_of_a_scene_is_refused(tmp_path: Path, number: str) -> None:
    scene = write_scene(tmp_path / "scene.tif", np.full((7, 80, 90), 3000, np.uint16))
    with rasterio.open(scene, "r+") as raster:
        raster.update_tags(BOA_ADD_OFFSET=number)
    with pytest.raises(FiresegError, match=r"scene\.tif: tags: boaaddoffset .*correct it"):
        predict(make_trained(), scene, tmp_path / "maps")


@pytest.mark.parametrize("temperature", [1e-300, 0.0, -1.0, 1e308, float("nan"), float("inf")])
def test_a_temperature_that_no_calibration_has_is_refused(tmp_path: Path, temperature: float) -> None:
    with pytest.raises(SettingError, match=r"--temperature: .* must be 0\.01 to 100"):
        predict(make_trained(), tmp_path / "scene.tif", tmp_path / "maps", temperature=temperature)


def write_vrt_of_server(path: Path, url: str) -> Path:
    """Writes a virtual raster, under any suffix, whose bands are on a server."""
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{number}"><Description>{band}</Description><SimpleSource>'
        f"<SourceFilename>/vsicurl/{url}/{band}.tif</SourceFilename></SimpleSource></VRTRasterBand>"
        for number, band in enumerate(BAND_NAMES, 1)
    )
    path.write_text(
        '<VRTDataset rasterXSize="90" rasterYSize="80"><SRS>EPSG:32631</SRS>'
        f"<GeoTransform>300000, 10, 0, 4900020, 0, -10</GeoTransform>{bands}</VRTDataset>"
    )
    return path


def test_a_scene_and_a_cloud_mask_that_name_a_server_do_not_reach_it(
    tmp_path: Path, server: CountingServer, numbers: NDArray[np.uint16]
) -> None:
    scene = write_vrt_of_server(tmp_path / "scene.tif", server.url)
    with pytest.raises(FiresegError, match=r"scene\.tif: source '/vsicurl/http.*gdal_translate scene\.tif copy\.tif"):
        predict(make_trained(), scene, tmp_path / "maps")
    scene, mask = write_scene(tmp_path / "a.tif", numbers), write_vrt_of_server(tmp_path / "a_CM.tif", server.url)
    with pytest.raises(FiresegError, match=r"a_CM\.tif: source '/vsicurl/http"):
        predict(make_trained(), scene, tmp_path / "maps", cloud_mask=mask)
    assert server.paths == []


def test_a_stack_of_gdalbuildvrt_gives_the_same_map(
    tmp_path: Path, numbers: NDArray[np.uint16], expected: tuple[NDArray, NDArray]
) -> None:
    height, width = numbers.shape[1:]
    bands = ""
    for number, (band, plane) in enumerate(zip(BAND_NAMES, numbers, strict=True), 1):
        write_raster(
            tmp_path / "bands" / f"T31TCJ_20230828_{band}.tif", plane, crs="EPSG:32631", transform=utm_grid(10)
        )
        bands += (
            f'<VRTRasterBand dataType="UInt16" band="{number}"><ComplexSource><SourceFilename relativeToVRT="1">'
            f"bands/T31TCJ_20230828_{band}.tif</SourceFilename><SourceBand>1</SourceBand></ComplexSource></VRTRasterBand>"
        )
    stack = tmp_path / "stack.vrt"
    stack.write_text(
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><SRS>EPSG:32631</SRS>'
        f"<GeoTransform>300000, 10, 0, 4900020, 0, -10</GeoTransform>{bands}</VRTDataset>"
    )
    for found, wanted in zip(read_map(predict(make_trained(), stack, tmp_path / "maps")), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
