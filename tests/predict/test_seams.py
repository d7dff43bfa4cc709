"""A trained model leaves no seam where windows meet."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fireseg.data.bands import BAND_NAMES, CEMS_BANDS
from fireseg.geo import plan_sliding_windows
from fireseg.model import FireSegmentationModel, create_segmentation_model
from fireseg.predict.inference import predict_rows, prepare_model
from fireseg.predict.quicklook import to_source
from fireseg.synthetic.scene import Scene, make_scene

CPU = torch.device("cpu")
SIZE, RIM, CROP, STEPS, BATCH = (1000, 1100), 64, 96, 60, 8


def get_image(scene: Scene) -> np.ndarray:
    return np.ascontiguousarray(scene.reflectance[..., [CEMS_BANDS.index(band) for band in BAND_NAMES]].clip(0, 1))


@pytest.fixture(scope="module")
def model() -> FireSegmentationModel:
    """A small U-Net that has learnt what burned ground looks like, from crops of synthetic scenes."""
    scenes = [make_scene(0, number, height=256, width=256, fire_share=1.0) for number in range(12)]
    images = [torch.from_numpy(get_image(scene)).permute(2, 0, 1) for scene in scenes]
    masks = [torch.from_numpy(scene.delineation.astype(np.int64)) for scene in scenes]
    torch.manual_seed(0)
    model = create_segmentation_model("unet", "mobilenet_v2", weights="none")
    pixels = torch.stack(images).transpose(0, 1).flatten(1)
    model.set_normalisation(pixels.mean(1).tolist(), pixels.std(1).tolist())
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=STEPS)
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        places = [(rng.integers(len(images)), *rng.integers(0, 256 - CROP, 2)) for _ in range(BATCH)]
        cut = [(slice(top, top + CROP), slice(left, left + CROP)) for _, top, left in places]
        image = torch.stack([images[n][:, *window] for (n, _, _), window in zip(places, cut, strict=True)])
        mask = torch.stack([masks[n][window] for (n, _, _), window in zip(places, cut, strict=True)])
        optimizer.zero_grad()
        F.cross_entropy(model(image), mask).backward()
        optimizer.step()
        schedule.step()
    return prepare_model(model, CPU)


@pytest.fixture(scope="module")
def maps(model: FireSegmentationModel) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Fire probability of windows and of one whole pass, and what burned, of two scenes."""
    found = []
    for number in (100, 101):
        scene = make_scene(0, number, height=SIZE[0], width=SIZE[1], fire_share=1.0)
        source = to_source(get_image(scene), BAND_NAMES)
        rows = predict_rows(model, source, plan_sliding_windows(*SIZE), num_classes=2, device=CPU)
        windowed = np.concatenate([each.probabilities[1] for each in rows])
        image = torch.from_numpy(source.steps.astype(np.float32) / 10_000).permute(2, 0, 1)[None]
        found.append((windowed, model.predict_probabilities(image)[0, 1].numpy(), scene.delineation))
    return found


def test_the_model_has_learnt_enough_to_be_asked(maps: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    for _, whole, burned in maps:
        assert whole[burned == 1].mean() > 2 * whole[burned == 0].mean() > 0


def test_a_step_at_a_border_is_not_larger_than_in_one_whole_pass(
    maps: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> None:
    layout = plan_sliding_windows(*SIZE)
    # Where a window begins or ends, and where the weight of one begins to count or ceases to.
    borders = [
        sorted({edge + shift for top in tops[1:] for edge in (top, top + layout.overlap) for shift in (-8, 0, 8)})
        for tops in (layout.rows, layout.cols)
    ]
    assert all(len(lines) >= 6 for lines in borders)

    def mean_step(fire: np.ndarray) -> float:
        steps = [np.abs(fire[line] - fire[line - 1]) for line in borders[0]]
        steps += [np.abs(fire[:, line] - fire[:, line - 1]) for line in borders[1]]
        return float(np.concatenate(steps).mean())

    for windowed, whole, _ in maps:
        assert mean_step(windowed) <= 1.2 * mean_step(whole)


def test_away_from_the_rim_windows_give_what_one_whole_pass_gives(
    maps: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> None:
    inside = slice(RIM, -RIM), slice(RIM, -RIM)
    for windowed, whole, _ in maps:
        assert np.abs(windowed - whole)[inside].mean() < 0.005
