"""Builders for tests of prediction: small scenes, and models that need no training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray
from rasterio import Affine
from torch import Tensor, nn

from fireseg.data.bands import BAND_NAMES
from fireseg.files import BEST_CHECKPOINT
from fireseg.indices import compute_index
from fireseg.model import FireSegmentationModel, create_segmentation_model
from fireseg.pairs import add_pre_bands
from fireseg.predict.api import Run
from fireseg.predict.scene import SceneMap
from fireseg.runs import Calibration, TrainedModel
from fireseg.task import Task, get_class_names

UTM = {"crs": "EPSG:32629", "transform": Affine(10, 0, 500_000, 0, -10, 4_400_000)}
"""A grid of 10 m near longitude -9, the central meridian of the zone, where the scale of UTM is 0.9996."""


PAIR_BANDS = add_pre_bands(BAND_NAMES)


class DarkIsBurned(nn.Module):
    """Computes logits from the near infrared of each pixel: darker pixels are likelier burned, and more severely."""

    def __init__(self, num_classes: int = 2, *, steepness: float = 40.0) -> None:
        super().__init__()
        self.num_classes, self.steepness = num_classes, steepness

    def forward(self, image: Tensor) -> Tensor:
        dark = 0.2 - image[:, 3]
        fire = [self.steepness * (dark - 0.05 * (grade - 1)) * grade for grade in range(1, self.num_classes)]
        return torch.stack([torch.zeros_like(dark), *fire], dim=1)


def make_trained(
    network: nn.Module | None = None, *, num_classes: int = 2, calibration: Calibration | None = None
) -> TrainedModel:
    """Wraps a network as the model of a run with the default seven bands."""
    return TrainedModel(
        build_model=lambda: FireSegmentationModel(network or DarkIsBurned(num_classes), bands=BAND_NAMES).eval(),
        task=make_task(num_classes),
        bands=BAND_NAMES,
        settings={"model": {"arch": "unet", "encoder": "none"}},
        device="cpu",
        checkpoint=Path("outputs/a_run/checkpoints/best_model.pt"),
        sha256="0" * 64,
        epoch=3,
        fingerprint="f" * 64,
        folder=None,
        calibration=calibration,
    )


def get_network(trained: TrainedModel) -> FireSegmentationModel:
    """Returns the network of a model that is no ensemble."""
    assert isinstance(trained.model, FireSegmentationModel)
    return trained.model


class ChangeIsBurned(nn.Module):
    """Calls burned where dNBR is above 0.3."""

    def forward(self, image: Tensor) -> Tensor:
        change = 40 * (compute_index("dNBR", image, PAIR_BANDS) - 0.3)
        return torch.stack([torch.zeros_like(change), change], 1)


def make_pair_model() -> TrainedModel:
    """Wraps a network that calls burned what changed between two scenes as the model of a run."""
    model = FireSegmentationModel(ChangeIsBurned(), bands=PAIR_BANDS).eval()
    return replace(make_trained(), bands=PAIR_BANDS, build_model=lambda: model)


def make_task(num_classes: int) -> Task:
    """Creates the DEL or the GRA task."""
    name = {2: "del", 5: "gra"}[num_classes]
    return Task(name=name, num_classes=num_classes, class_names=get_class_names(num_classes))


def write_run(folder: Path, model: FireSegmentationModel | None = None) -> Path:
    """Writes a run folder with a checkpoint; an untrained U-Net if no model is given."""
    node: dict[str, Any] = {"arch": "unet", "encoder": "tu-test_efficientnet", "in_channels": 7, "num_classes": 2}
    node |= {"weights": "none", "bands": list(BAND_NAMES), "stem": "by_band"}
    if model is None:
        torch.manual_seed(0)
        model = create_segmentation_model("unet", "tu-test_efficientnet", weights="none")
    names = list(get_class_names(2))
    task = {"_target_": "fireseg.task.Task", "name": "del", "num_classes": 2, "class_names": names, "ignore_index": 255}
    config = {"task": task, "model": {"_target_": "fireseg.model.create_segmentation_model", **node}}
    content = {"format": 1, "config": config, "class_names": names, "bands": list(BAND_NAMES), "fingerprint": "f" * 64}
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    torch.save({**content, "model": model.state_dict(), "epoch": 3}, folder / "checkpoints" / BEST_CHECKPOINT)
    return folder


def predict(trained: TrainedModel, scene: Path, out: Path, **options: Any) -> SceneMap:
    """Maps a scene."""
    return Run(trained).predict_scene(scene, out, **options)


def draw_image(height: int, width: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Draws reflectance `(7, H, W)` in steps of 0.0001: bright ground with dark discs."""
    rng = np.random.default_rng(seed)
    image = rng.uniform(0.25, 0.4, (7, height, width))
    rows, cols = np.mgrid[:height, :width]
    for _ in range(max(1, height * width // 60_000)):
        row, col, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(8, 60)
        image[3][np.hypot(rows - row, cols - col) < radius] *= 0.3
    return (np.rint(image * 10_000) / 10_000).astype(np.float32)


def write_scene(path: Path, image: NDArray[Any], **profile: Any) -> Path:
    """Writes `(C, H, W)` with named bands on a grid of 10 m."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "dtype": image.dtype, "count": len(image), **UTM, **profile}
    with rasterio.open(path, "w", height=image.shape[1], width=image.shape[2], **profile) as raster:
        raster.write(image)
        for channel, band in enumerate(BAND_NAMES, 1):
            raster.set_band_description(channel, band)
    return path
