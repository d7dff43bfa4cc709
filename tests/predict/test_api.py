"""The Python interface: `fireseg.load`, images in memory and scenes on disk."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

import fireseg
from fireseg.errors import FiresegError, SettingError
from fireseg.predict.api import Run, read_image
from fireseg.tiles import RasterOptions
from tests.predict.builders import draw_image, get_network, make_trained, write_run, write_scene


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fireseg.load(write_run(tmp_path_factory.mktemp("runs") / "a_run"), device="cpu", runtime="torch")


def test_importing_fireseg_stays_light() -> None:
    program = "import sys, fireseg; print(*({'torch', 'numpy', 'rasterio', 'fireseg.predict'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""


def test_an_unknown_attribute_raises_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        fireseg.lode  # noqa: B018
    assert "load" in dir(fireseg)


def test_a_run_is_described_in_two_lines_and_as_a_table(run: Run) -> None:
    first, second = repr(run).splitlines()
    assert first == (
        "Run(task del (unburned, burned), architecture unet, encoder tu-test_efficientnet,"
        " bands B02 B03 B04 B08 B8A B11 B12,"
    )
    path = run.trained.folder and run.trained.folder.path
    assert second == f"    best val fire IoU -, threshold 0.5, path {path})"
    trained = replace(run.trained, val_fire_iou=0.8125, folder=None, checkpoint=Path("a & b.pt"))
    cells = ElementTree.fromstring(Run(trained)._repr_html_()).iterfind(".//td")
    assert [cell.text for cell in cells][4:] == ["0.812", "0.5", "a & b.pt"]


@pytest.fixture
def pyplot() -> Iterator[ModuleType]:
    """The module pyplot, drawing to memory."""
    from matplotlib import pyplot

    pyplot.switch_backend("Agg")
    yield pyplot
    pyplot.close("all")


def test_a_prediction_plots_its_classes_with_a_legend(pyplot: ModuleType) -> None:
    image = np.full((7, 100, 20), 0.3, np.float32)
    image[3, :25], image[:, 75:] = 0.05, np.nan  # a quarter is burned, a quarter unknown
    axes = Run(make_trained()).predict(image).plot()
    assert axes.get_title() == "33 % burned"
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["unburned", "burned", "unknown"]
    picture = np.asarray(axes.images[0].get_array())
    assert picture.shape == (100, 20, 3)
    assert {tuple(pixel) for pixel in picture[:25].reshape(-1, 3)} == {(0xC1, 0x27, 0x2D)}
    _, (first, second) = pyplot.subplots(1, 2)
    assert Run(make_trained()).predict(image).plot(second) is second
    assert not first.images


def test_a_map_of_a_scene_plots_its_quicklook(tmp_path: Path, pyplot: ModuleType) -> None:
    result = Run(make_trained()).predict_scene(write_scene(tmp_path / "scene.tif", draw_image(40, 50)), tmp_path / "m")
    axes = result.plot()
    np.testing.assert_array_equal(axes.images[0].get_array(), pyplot.imread(result.files.picture))


@pytest.mark.parametrize("shape", [(7, 20, 9), (7, 100, 33), (33, 100, 7)])
def test_an_image_of_any_size_is_mapped(run: Run, shape: tuple[int, ...]) -> None:
    height, width = (side for side in shape if side != 7)
    result = run.predict(np.full(shape, 0.2, np.float32))
    assert result.classes.shape == result.fire.shape == (height, width)
    assert result.classes.dtype == np.uint8
    assert result.fire.dtype == np.float32
    assert result.has_fire == bool((result.classes == 1).any())
    assert result.burned_fraction == result.fraction == pytest.approx((result.classes == 1).mean())
    assert result.max_probability == result.confidence == pytest.approx(result.fire.max())


def test_an_image_is_predicted_as_the_model_predicts_it(run: Run) -> None:
    image = torch.from_numpy(draw_image(64, 96))
    expected = get_network(run.trained).predict_probabilities(image[None])[0, 1]
    np.testing.assert_allclose(run.predict(image).fire, expected.numpy(), atol=1e-5)


def test_unknown_pixels_of_an_image_stay_unknown(run: Run) -> None:
    image = draw_image(40, 50)
    image[2, 3, 4] = np.nan
    result = run.predict(image)
    assert np.argwhere(result.classes == 255).tolist() == [[3, 4]]
    assert np.argwhere(np.isnan(result.fire)).tolist() == [[3, 4]]


def test_a_threshold_can_be_given() -> None:
    run, image = Run(make_trained()), draw_image(80, 80)
    assert run.predict(image, threshold=0.01).burned_fraction > run.predict(image, threshold=0.99).burned_fraction
    with pytest.raises(SettingError, match="--threshold"):
        run.predict(image, threshold=2.0)


def test_an_image_without_the_bands_of_the_run_is_rejected(run: Run) -> None:
    with pytest.raises(FiresegError, match="B02 B03 B04 B08 B8A B11 B12"):
        run.predict(np.zeros((3, 40, 40), np.float32))


def test_a_scene_on_disk_is_mapped_into_a_folder(run: Run, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", draw_image(40, 50))
    result = run.predict_scene(str(scene), out=str(tmp_path / "maps"), geojson=True)
    assert result.files.geojson == tmp_path / "maps" / "scene_burned.geojson"
    assert result.files.geojson.exists()
    assert result.summary["model"]["run"] == "a_run"


@pytest.mark.parametrize("name", ["device", "run", "tresh"])
def test_an_unknown_option_of_a_map_is_a_type_error(run: Run, tmp_path: Path, name: str) -> None:
    scene = write_scene(tmp_path / "scene.tif", draw_image(40, 50))
    with pytest.raises(TypeError, match=name):
        run.predict_scene(scene, tmp_path / "maps", **{name: "cpu"})
    assert not (tmp_path / "maps").exists()


BANDS = ("B04", "B08", "B12")


def test_the_channel_axis_may_be_first_or_last() -> None:
    image = np.random.default_rng(0).random((3, 5, 6)).astype(np.float32)
    first, last = read_image(image, BANDS), read_image(image.transpose(1, 2, 0), BANDS)
    assert first.raster.image.shape == (5, 6, 3)
    np.testing.assert_array_equal(first.raster.image, last.raster.image)
    np.testing.assert_array_equal(read_image(torch.from_numpy(image), BANDS).raster.image, first.raster.image)


def test_reflectance_is_rounded_and_clipped_like_that_of_a_raster() -> None:
    image = np.array([0.0, 0.12344, 0.12346, 1.0, 1.7, -0.2], np.float64).reshape(1, 2, 3).transpose(0, 1, 2)
    assert read_image(image.reshape(3, 1, 2), BANDS).raster.image.ravel().tolist() == [0, 1235, 10000, 1234, 10000, 0]


def test_a_pixel_is_unknown_if_any_band_is_not_finite() -> None:
    image = np.full((3, 1, 4), 0.5, np.float32)
    image[0, 0, 1], image[2, 0, 2] = np.nan, np.inf
    source = read_image(image, BANDS)
    assert source.raster.unknown.tolist() == [[False, True, True, False]]


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((3, 9, 3), "at both ends"),
        ((4, 9, 5), "3 bands"),
        ((9, 3, 9), "3 bands"),
        ((3, 9), "3 bands"),
        ((1, 3, 9, 9), "3 bands"),
        ((3, 0, 9), "no pixel"),
    ],
)
def test_an_ambiguous_or_missing_channel_axis_is_rejected(shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(FiresegError, match=words):
        read_image(np.zeros(shape, np.float32), BANDS)


def test_integer_digital_numbers_are_rejected() -> None:
    with pytest.raises(FiresegError, match=r"float reflectance .* scale=0\.0001"):
        read_image(np.zeros((3, 4, 4), np.uint16), BANDS)


@pytest.mark.parametrize(
    ("factor", "addend", "words"),
    [
        (100, 0, "percent"),
        (5, -1, "normalised by mean"),
        (1, 0.1, "left on; use --scale 1 --offset 0.1"),
        (500, 0, "8-bit picture"),
    ],
)
def test_values_that_cannot_be_reflectance_are_rejected_unless_trusted(
    factor: float, addend: float, words: str
) -> None:
    image = np.random.default_rng(0).uniform(0.005, 0.45, (3, 80, 90)).astype(np.float32) * factor + addend
    if factor == 500:
        image = np.rint(image)
    with pytest.raises(FiresegError, match=rf"^image: .*{words}.*trust_values=True"):
        read_image(image, BANDS)
    assert read_image(image, BANDS, RasterOptions(trust_values=True)).raster.image.shape == (80, 90, 3)


def test_channels_select_and_order_the_bands_and_masks_make_gaps() -> None:
    image = np.random.default_rng(0).uniform(0.005, 0.45, (3, 8, 9)).astype(np.float32)
    mask = np.ones((1, 8, 9), np.float32)
    mask[0, 2, 3] = 0
    given = np.concatenate([image[2:], np.full_like(mask, 7.0), image[:2], mask])
    source = read_image(given, BANDS, RasterOptions(channels=("swir22", "-", "red", "nir", "dataMask")))
    expected = read_image(np.where(mask == 0, np.nan, image), BANDS)
    np.testing.assert_array_equal(source.raster.image, expected.raster.image)
    np.testing.assert_array_equal(source.raster.unknown, expected.raster.unknown)


def test_channels_without_a_band_of_the_run_are_rejected() -> None:
    with pytest.raises(FiresegError, match="B12 not found"):
        read_image(np.zeros((2, 8, 9), np.float32), BANDS, RasterOptions(channels=("B04", "B08")))


def test_float_digital_numbers_are_rejected() -> None:
    with pytest.raises(
        FiresegError, match=r"image: values from 3000 to 3000: look like digital numbers.*--scale 0.0001"
    ):
        read_image(np.full((40, 50, len(BANDS)), 3000.0, np.float32), BANDS)


def test_digital_numbers_percent_and_gaps_are_the_same_image_with_their_options() -> None:
    numbers = np.random.default_rng(0).integers(50, 4500, (3, 8, 9)).astype(np.uint16)
    expected = read_image(numbers / np.float32(10_000), BANDS)
    with_offset = read_image(numbers + 1000, BANDS, RasterOptions(scale=1e-4, offset=1000))
    percent = read_image(numbers / 100, BANDS, RasterOptions(scale=0.01))
    for source in (with_offset, percent):
        np.testing.assert_array_equal(source.raster.image, expected.raster.image)
    numbers[1, 2, 3] = 7777
    assert np.argwhere(read_image(numbers, BANDS, RasterOptions(scale=1e-4, nodata=7777)).raster.unknown).tolist() == [
        [2, 3]
    ]


def test_clouds_of_a_scene_classification_are_unknown(run: Run) -> None:
    image = draw_image(40, 50)
    classes = np.full((1, 40, 50), 4, np.float32)
    classes[0, :10], classes[0, 39] = 9, 0
    names = [*run.trained.bands, "SCL"]
    result = run.predict(np.concatenate([image, classes]), channels=names)
    assert (result.classes[:10] == 255).all()
    assert (result.classes[39] == 255).all()
    assert (result.classes[10:39] != 255).all()


@pytest.mark.parametrize("convert", [lambda image: image[:, ::-1], lambda image: image.astype(">f4")])
def test_any_memory_layout_is_accepted(convert: Callable[[np.ndarray], np.ndarray]) -> None:
    image = convert(np.random.default_rng(0).random((3, 5, 6)).astype(np.float32))
    plain = read_image(np.ascontiguousarray(image, np.float32), BANDS)
    np.testing.assert_array_equal(read_image(image, BANDS).raster.image, plain.raster.image)


def test_masked_pixels_of_an_array_are_unknown() -> None:
    image = np.random.default_rng(0).uniform(0.005, 0.45, (3, 8, 9)).astype(np.float32)
    mask = np.zeros(image.shape, bool)
    mask[1, 2, 3] = True
    assert np.argwhere(read_image(np.ma.array(image, mask=mask), BANDS).raster.unknown).tolist() == [[2, 3]]


def test_an_offset_without_scale_is_flagged(run: Run) -> None:
    assert run.predict(draw_image(40, 50), offset=1000).flags == ("image: offset 1000 has no effect without scale",)
