"""Tests of the model files: each is run by the library of its format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fireseg.export.formats import open_model, write_model
from fireseg.export.options import Format
from fireseg.model import FireSegmentationModel, create_segmentation_model
from fireseg.model.encoders import ENCODERS

ARCHITECTURES = "unet", "unetplusplus", "deeplabv3plus"
SHAPES = (1, 7, 64, 64), (3, 7, 96, 160), (2, 7, 256, 128)


def make_model(arch: str, encoder: str = "tu-test_efficientnet", *, num_classes: int = 2) -> FireSegmentationModel:
    torch.manual_seed(0)
    model = create_segmentation_model(arch, encoder, weights="none", num_classes=num_classes)  # pyright: ignore[reportArgumentType]
    model.set_normalisation([0.1, 0.12, 0.14, 0.2, 0.22, 0.18, 0.15], [0.05, 0.06, 0.07, 0.1, 0.1, 0.09, 0.08])
    return model.eval().requires_grad_(False)


def measure_difference(model: FireSegmentationModel, folder: Path, to: Format) -> float:
    """Returns the largest difference of a probability over images of several sizes."""
    predict = open_model(folder, to)
    differences = []
    for shape in SHAPES:
        image = torch.rand(shape) * 0.4
        expected = model.predict_probabilities(image).numpy()
        differences.append(float(np.abs(predict(image.numpy()) - expected).max()))
    return max(differences)


@pytest.mark.parametrize(("arch", "to"), [("unetplusplus", "torch"), ("deeplabv3plus", "openvino")])
def test_a_file_gives_the_probabilities_of_the_model_for_any_batch_and_size(
    arch: str, to: Format, tmp_path: Path
) -> None:
    model = make_model(arch)
    write_model(model, tmp_path, to=to, temperature=1.0, size=None, metadata={"bands": ["B02"]})
    assert measure_difference(model, tmp_path, to) < 1e-5


@pytest.mark.all_models
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_and_encoder_gives_the_same_logits_as_onnx(arch: str, encoder: str, tmp_path: Path) -> None:
    model = make_model(arch, encoder)
    write_model(model, tmp_path, to="onnx", temperature=None, size=None, metadata={})
    predict = open_model(tmp_path, "onnx")
    model.double()  # torch's convolutions in float32 are less exact than those of the file
    for shape in SHAPES:
        image = torch.rand(shape) * 0.4
        expected = model(image.double()).numpy()
        # Random weights give logits in the hundreds, to which rounding errors are proportional.
        assert np.abs(predict(image.numpy()) - expected).max() < 7e-6 * np.abs(expected).max()
