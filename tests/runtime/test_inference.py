"""Sliding-window inference: reading window rows, batches of windows, blending, and the absence of seams."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fireseg.data.bands import BAND_NAMES, to_reflectance
from fireseg.data.scene_normalisation import compute_scaling
from fireseg.errors import FiresegError
from fireseg.geo import plan_sliding_windows
from fireseg.geo.windows import SlidingWindows
from fireseg.predict.api import read_image
from fireseg.runs import TrainedModel
from fireseg.runtime.engines import TorchEngine
from fireseg.runtime.inference import (
    ArrayRaster,
    PredictedRows,
    get_batch_size,
    measure_scene,
    predict_rows,
    predict_windows,
    read_window_rows,
)
from tests.predict.builders import DarkIsBurned, draw_image, get_network, make_trained


def make_source(height: int, width: int) -> ArrayRaster:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 10_000, (height, width, 2)).astype(np.uint16)
    return ArrayRaster(bands=("B08", "B12"), image=image, unknown=rng.random((height, width)) < 0.1)


class RecordingSource:
    """A source that records which rows are read, and can fail at one of them."""

    def __init__(self, source: ArrayRaster, *, block_rows: int = 16, broken_row: int | None = None) -> None:
        self.source, self.block_rows, self.broken_row = source, block_rows, broken_row
        self.height, self.width, self.bands = source.height, source.width, source.bands
        self.rows: list[tuple[int, int]] = []
        self.lock = threading.Lock()

    def read(self, top: int, left: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        with self.lock:
            self.rows.append((top, top + height))
        if self.broken_row is not None and top <= self.broken_row < top + height:
            raise FiresegError("scene.tif: cut short")
        return self.source.read(top, left, height, width)


@pytest.mark.parametrize("readers", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 40), (33, 20), (700, 130), (1000, 33), (1500, 70)])
def test_window_rows_are_the_raster_mirrored_beyond_its_edges(height: int, width: int, readers: int) -> None:
    source = make_source(height, width)
    layout = plan_sliding_windows(height, width)
    bottom, right = layout.rows[-1] + layout.size_rows, layout.cols[-1] + layout.size_cols
    whole = np.pad(source.image, ((0, bottom - height), (0, right - width), (0, 0)), mode="reflect")
    row = -1
    for row, window_row in enumerate(read_window_rows(source, layout, readers=readers)):
        rows = slice(layout.rows[row], layout.rows[row] + layout.size_rows)
        np.testing.assert_array_equal(window_row.image, whole[rows])
        np.testing.assert_array_equal(window_row.unknown, source.unknown[rows])
    assert row == len(layout.rows) - 1


def test_every_row_is_read_once_and_in_whole_blocks() -> None:
    source = RecordingSource(make_source(1500, 40), block_rows=100)
    layout = plan_sliding_windows(1500, 40)
    assert len(list(read_window_rows(source, layout, readers=2))) == len(layout.rows) > 1
    edges = sorted(source.rows)
    assert [first for first, _ in edges] == [0, *(last for _, last in edges[:-1])]
    assert edges[-1][1] == 1500
    starts = {0, *(top + layout.size_rows for top in layout.rows)}
    assert all(first % 100 == 0 or first in starts for first, _ in edges)


def test_only_two_window_rows_are_in_memory() -> None:
    layout = plan_sliding_windows(3000, 40)
    addresses = {
        window_row.image.__array_interface__["data"][0]
        for window_row in read_window_rows(make_source(3000, 40), layout)
    }
    assert len(layout.rows) > 4
    assert len(addresses) == 2


def test_the_next_window_row_is_read_ahead_and_no_further() -> None:
    source = RecordingSource(make_source(3000, 40), block_rows=3000)
    layout = plan_sliding_windows(3000, 40)
    window_rows = read_window_rows(source, layout)
    next(window_rows)
    for _ in range(200):
        if len(source.rows) > 1:
            break
        threading.Event().wait(0.01)
    threading.Event().wait(0.05)
    assert len(source.rows) == 2
    window_rows.close()


def test_an_error_in_a_reader_thread_is_raised() -> None:
    source = RecordingSource(make_source(1500, 40), broken_row=1200)
    with pytest.raises(FiresegError, match=r"scene\.tif"):
        list(read_window_rows(source, plan_sliding_windows(1500, 40), readers=2))


def test_reader_threads_end_when_the_generator_is_closed() -> None:
    before = threading.active_count()
    window_rows = read_window_rows(make_source(3000, 40), plan_sliding_windows(3000, 40), readers=2)
    next(window_rows)
    window_rows.close()
    assert threading.active_count() == before


@pytest.fixture
def trained() -> TrainedModel:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(7, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 5, 3, padding=1))
    return make_trained(network, num_classes=5)


@pytest.fixture
def windows() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 10_000, (2, 64, 96, 7)).astype(np.uint16)


def test_windows_get_the_probabilities_of_the_model(trained: TrainedModel, windows: np.ndarray) -> None:
    image = torch.from_numpy(windows.astype(np.float32) / 10_000).permute(0, 3, 1, 2)
    probabilities = predict_windows(TorchEngine(trained), windows)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, get_network(trained).predict_probabilities(image).numpy(), atol=1e-6)


def test_rotated_and_flipped_windows_get_the_same_map_with_tta_only(trained: TrainedModel, windows: np.ndarray) -> None:
    rotated = np.ascontiguousarray(np.rot90(windows[:, :, ::-1], axes=(1, 2)))

    def max_difference(*, tta: bool) -> float:
        upright, other = (predict_windows(TorchEngine(trained), each, tta=tta) for each in (windows, rotated))
        return float(np.abs(np.rot90(upright[..., ::-1], axes=(2, 3)) - other).max())

    assert max_difference(tta=True) < 1e-5
    assert max_difference(tta=False) > 0.01


def test_averaged_probabilities_sum_to_one(trained: TrainedModel, windows: np.ndarray) -> None:
    np.testing.assert_allclose(predict_windows(TorchEngine(trained), windows, tta=True).sum(axis=1), 1, atol=1e-5)


def test_a_cpu_takes_one_window_per_batch() -> None:
    assert get_batch_size("cpu") == 1
    assert get_batch_size("cuda") > 1


def test_probabilities_that_are_not_finite_are_rejected(trained: TrainedModel, windows: np.ndarray) -> None:
    get_network(trained).std.fill_(float("nan"))
    with pytest.raises(FiresegError, match=r"not finite.*another checkpoint"):
        predict_windows(TorchEngine(trained), windows)


@pytest.fixture(scope="module")
def source() -> ArrayRaster:
    return read_image(draw_image(1100, 900), BAND_NAMES).raster


def predict(source: ArrayRaster, network: nn.Module, **options: Any) -> list[PredictedRows]:
    layout = plan_sliding_windows(source.height, source.width)
    rows = predict_rows(make_trained(network), source, layout, **options)
    # Unknown and image are valid until the next rows only.
    return [each._replace(unknown=each.unknown.copy(), image=each.image.copy()) for each in rows]


def join(rows: list[PredictedRows]) -> np.ndarray:
    return np.concatenate([each.probabilities for each in rows], axis=1)


def test_every_row_is_yielded_once_with_its_input(source: ArrayRaster) -> None:
    rows = predict(source, DarkIsBurned())
    assert [each.top for each in rows] == list(np.cumsum([0, *(len(each.unknown) for each in rows[:-1])]))
    np.testing.assert_array_equal(np.concatenate([each.image for each in rows]), source.image)


def test_a_model_without_context_gives_the_result_of_one_pass_over_the_whole(source: ArrayRaster) -> None:
    model = get_network(make_trained())
    image = torch.from_numpy(source.image.astype(np.float32) / 10_000).permute(2, 0, 1)[None]
    np.testing.assert_allclose(
        join(predict(source, DarkIsBurned())), model.predict_probabilities(image)[0].numpy(), atol=1e-6
    )


@pytest.mark.parametrize("options", [{"batch_size": 2}, {"batch_size": 64}, {"readers": 1}, {"readers": 5}])
def test_batch_size_and_readers_change_only_rounding(source: ArrayRaster, options: dict[str, int]) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(7, 8, 9, padding=4), nn.ReLU(), nn.Conv2d(8, 2, 9, padding=4))
    np.testing.assert_allclose(
        join(predict(source, network, **options)), join(predict(source, network, readers=2)), atol=1e-5
    )


def test_progress_counts_every_window(source: ArrayRaster) -> None:
    counts: list[int] = []
    predict(source, DarkIsBurned(), batch_size=2, on_progress=counts.append)
    assert sum(counts) == plan_sliding_windows(source.height, source.width).num_windows


class CountingNetwork(nn.Module):
    """Counts the windows that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.num_windows = DarkIsBurned(), 0

    def forward(self, image: Tensor) -> Tensor:
        self.num_windows += len(image)
        return self.network(image)


def test_windows_without_a_known_pixel_are_not_predicted() -> None:
    image = draw_image(300, 2000)
    image[:, :, 700:] = np.nan
    source, network = read_image(image, BAND_NAMES).raster, CountingNetwork()
    known = join(predict(source, network))[:, :, :700]
    layout = plan_sliding_windows(300, 2000)
    assert network.num_windows == sum(left < 700 for left in layout.cols) < layout.num_windows
    everywhere = read_image(np.nan_to_num(image), BAND_NAMES).raster
    everywhere.unknown[:] = False
    np.testing.assert_array_equal(known, join(predict(everywhere, DarkIsBurned()))[:, :, :700])


class ContextNetwork(nn.Module):
    """A fixed random network whose output depends on context and suffers from zero padding at window edges.

    Three dilated convolutions see 14 pixels around a pixel. Cells of 32 pixels, as in the deepest level of an encoder,
    see one cell more: there the padding changes the output up to 64 pixels from the edge.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fine = nn.Sequential(
            nn.Conv2d(7, 8, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(8, 8, 5, padding=4, dilation=2),
            nn.ReLU(),
            nn.Conv2d(8, 2, 5, padding=8, dilation=4),
        )
        self.coarse = nn.Sequential(
            nn.AvgPool2d(32), nn.Conv2d(7, 2, 3, padding=1), nn.Upsample(scale_factor=32, mode="bilinear")
        )

    def forward(self, image: Tensor) -> Tensor:
        logits = 80 * self.fine(image) + 15 * self.coarse(image)
        return logits + torch.tensor([0.0, 10.2]).view(1, 2, 1, 1)  # half of the pixels burned


SEAM_SIZE, RIM = (1000, 1100), 64


@pytest.fixture(scope="module")
def smooth_source() -> ArrayRaster:
    """Smooth random reflectance, on which a step at a window border is larger than those of the ground."""
    noise = torch.rand(1, 7, SEAM_SIZE[0] // 10, SEAM_SIZE[1] // 10, generator=torch.Generator().manual_seed(1))
    return read_image(0.5 * F.interpolate(noise, size=SEAM_SIZE, mode="bicubic")[0].clamp(0, 1), BAND_NAMES).raster


@pytest.fixture(scope="module")
def whole(smooth_source: ArrayRaster) -> np.ndarray:
    """Fire probability of one pass over the whole image."""
    image = torch.from_numpy(smooth_source.image.astype(np.float32) / 10_000).permute(2, 0, 1)[None]
    fire = get_network(make_trained(ContextNetwork())).predict_probabilities(image)[0, 1].numpy()
    assert fire.std() > 0.1
    return fire


def predict_fire(source: ArrayRaster, layout: SlidingWindows) -> np.ndarray:
    rows = predict_rows(make_trained(ContextNetwork()), source, layout)
    return np.concatenate([each.probabilities[1] for each in rows])


def compare_border_steps(windowed: np.ndarray, whole: np.ndarray, layout: SlidingWindows) -> float:
    """Mean step between neighbouring pixels at window borders, relative to the same lines of the whole pass."""
    lines = [
        sorted(
            {edge + shift for start in starts[1:] for edge in (start, start + layout.overlap) for shift in (-8, 0, 8)}
        )
        for starts in (layout.rows, layout.cols)
    ]

    def mean_step(fire: np.ndarray) -> float:
        steps = [np.abs(fire[line] - fire[line - 1]) for line in lines[0]]
        steps += [np.abs(fire[:, line] - fire[:, line - 1]) for line in lines[1]]
        return float(np.concatenate(steps).mean())

    return mean_step(windowed) / mean_step(whole)


def test_steps_at_window_borders_are_not_larger_than_in_one_pass_over_the_whole(
    smooth_source: ArrayRaster, whole: np.ndarray
) -> None:
    layout = plan_sliding_windows(*SEAM_SIZE)
    assert layout.num_windows > 1
    windowed = predict_fire(smooth_source, layout)
    assert compare_border_steps(windowed, whole, layout) <= 1.2
    inside = slice(RIM, -RIM), slice(RIM, -RIM)
    assert np.abs(windowed - whole)[inside].mean() < 0.005


def test_blocks_of_columns_give_the_bits_of_the_whole_raster(smooth_source: ArrayRaster) -> None:
    wide = ArrayRaster(
        bands=BAND_NAMES,
        image=np.tile(smooth_source.image, (1, 3, 1))[:600],
        unknown=np.tile(smooth_source.unknown, (1, 3))[:600],
    )
    joined, lefts = np.zeros((2, wide.height, wide.width), np.float32), set()
    for rows in predict(wide, ContextNetwork(), max_cols=1500):
        _, height, width = rows.probabilities.shape
        window = slice(rows.top, rows.top + height), slice(rows.left, rows.left + width)
        joined[:, *window] = rows.probabilities
        np.testing.assert_array_equal(rows.image, wide.image[window])
        lefts.add(rows.left)
    assert len(lefts) > 2
    np.testing.assert_array_equal(joined, join(predict(wide, ContextNetwork())))


def test_without_overlap_seams_would_be_found(smooth_source: ArrayRaster, whole: np.ndarray) -> None:
    layout = SlidingWindows(*SEAM_SIZE, 512, 576, 0, (0, 512), (0, 576))
    assert compare_border_steps(predict_fire(smooth_source, layout), whole, layout) > 1.5


def make_relative(network: nn.Module) -> TrainedModel:
    """Wraps a network as a model that takes reflectance relative to its scene."""
    trained = make_trained(network)
    return replace(trained, settings={**trained.settings, "data": {"normalisation": "scene"}})


def predict_whole(trained: TrainedModel, raster: ArrayRaster) -> np.ndarray:
    layout = plan_sliding_windows(raster.height, raster.width)
    fire = np.empty((raster.height, raster.width), np.float32)
    for top, left, probabilities, _, _ in predict_rows(trained, raster, layout):
        height, width = probabilities.shape[1:]
        fire[top : top + height, left : left + width] = probabilities[1]
    return fire


def test_a_scene_relative_model_sees_every_window_relative_to_the_whole_scene() -> None:
    # Two halves of different brightness: what is dark in the scene is not dark in its own window.
    stored = np.rint(draw_image(64, 1100).transpose(1, 2, 0) * 10_000).astype(np.uint16)
    stored[:, 550:] //= 2
    stored[:8] = 0
    raster = ArrayRaster(bands=BAND_NAMES, image=stored, unknown=(stored == 0).all(-1))
    image = to_reflectance(stored)
    scaling = compute_scaling(image[8:].reshape(-1, 7), BAND_NAMES)
    relative = scaling.apply(image)
    expected = torch.softmax(DarkIsBurned()(torch.from_numpy(relative).permute(2, 0, 1)[None]), 1)[0, 1]
    fire = predict_whole(make_relative(DarkIsBurned()), raster)
    np.testing.assert_allclose(fire[8:], expected[8:], atol=1e-5)
    assert fire[8:, 600:].mean() > fire[8:, :500].mean() + 0.1


def test_another_illumination_of_the_scene_gives_the_same_map() -> None:
    image = draw_image(96, 80).transpose(1, 2, 0)
    maps = []
    for gain, offset in ((1.0, 0.0), (0.7, 0.05)):
        stored = np.rint((image * gain + offset) * 10_000).astype(np.uint16)
        raster = ArrayRaster(bands=BAND_NAMES, image=stored, unknown=np.zeros(stored.shape[:2], bool))
        maps.append(predict_whole(make_relative(DarkIsBurned(steepness=5)), raster))
    np.testing.assert_allclose(maps[1], maps[0], atol=0.01)
    assert maps[0].max() - maps[0].min() > 0.1


def test_the_statistics_of_a_large_scene_are_those_of_squares_on_a_grid() -> None:
    class Large:
        height, width, bands, block_rows = 10_000, 9_000, ("B08",), 256
        num_pixels = 0

        def read(self, top: int, left: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
            assert top % 256 == left % 256 == 0
            self.num_pixels += height * width
            cols = np.arange(left, left + width) / self.width
            image = np.broadcast_to(1000 + 4000 * cols, (height, width)).astype(np.uint16)[..., None]
            return image, np.zeros((height, width), bool)

    source = Large()
    scaling = measure_scene(source)
    assert source.num_pixels <= 64 * 512 * 512
    # A ramp from 0.1 to 0.5: median 0.3, interquartile range 0.2.
    np.testing.assert_allclose(scaling.gains, [0.09 / 0.2], rtol=0.1)
    np.testing.assert_allclose(scaling.apply(np.array([[0.3]], np.float32)), [[0.25]], atol=0.01)
