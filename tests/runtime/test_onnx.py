"""Tests of the conversion to ONNX."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from fireseg.data.bands import BAND_NAMES
from fireseg.decision import fire_log_odds
from fireseg.errors import FiresegError
from fireseg.indices import INDICES
from fireseg.model import FireSegmentationModel, create_segmentation_model
from fireseg.pairs import add_pre_bands
from fireseg.runtime.onnx import convert_to_onnx


def make_model(arch: Any = "unet", *, num_classes: int = 2, indices: tuple[str, ...] = ()) -> FireSegmentationModel:
    """Makes a model of the default bands; with indices, of those of a pair of scenes, which some of them need."""
    torch.manual_seed(0)
    bands = add_pre_bands(BAND_NAMES, pre=bool(indices))
    options: Any = {"num_classes": num_classes, "indices": indices, "bands": bands, "in_channels": len(bands)}
    model = create_segmentation_model(arch, "tu-test_efficientnet", weights="none", **options)
    scenes = len(bands) // 7
    mean, std = [0.1, 0.12, 0.14, 0.2, 0.22, 0.18, 0.15], [0.05, 0.06, 0.07, 0.1, 0.1, 0.09, 0.08]
    model.set_normalisation(mean * scenes, std * scenes)
    return model.eval()


def compute(path: Path, image: torch.Tensor) -> NDArray[np.float32]:
    return np.asarray(onnxruntime.InferenceSession(path).run(None, {"image": image.numpy()})[0])


@pytest.mark.parametrize("arch", ["unetplusplus", "deeplabv3plus"])
def test_the_file_gives_the_logits_of_torch_for_any_batch_and_any_size_of_multiples_of_32(
    arch: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = make_model(arch)
    convert_to_onnx(model, tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert capfd.readouterr() == ("", "")
    for shape in [(1, 7, 32, 32), (3, 7, 64, 96), (2, 7, 256, 160)]:
        image = torch.rand(shape) * 0.4
        with torch.inference_mode():
            expected = model(image).numpy()
        np.testing.assert_allclose(
            compute(tmp_path / "model.onnx", image), expected, atol=1e-5 * np.abs(expected).max()
        )


def test_indices_are_computed_inside_the_file(tmp_path: Path) -> None:
    model = make_model(indices=tuple(name for name in INDICES if name != "BAIS2"))
    convert_to_onnx(model, tmp_path / "model.onnx")
    image = torch.rand(2, 14, 64, 96) * 0.4
    image[..., :20] = 0
    image[0, 0] = 0
    with torch.inference_mode():
        expected = model(image).numpy()
    np.testing.assert_allclose(compute(tmp_path / "model.onnx", image), expected, atol=1e-5 * np.abs(expected).max())


def test_probabilities_sum_to_one_and_their_fire_is_that_of_the_map_with_its_temperature(tmp_path: Path) -> None:
    model, image = make_model(num_classes=5), torch.rand(1, 7, 64, 64) * 0.4
    convert_to_onnx(model, tmp_path / "model.onnx", temperature=2.5)
    probabilities = compute(tmp_path / "model.onnx", image)
    with torch.inference_mode():
        logits = model(image)
    fire = torch.sigmoid(fire_log_odds(logits) / 2.5).numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(probabilities[:, 1:].sum(axis=1), fire, atol=1e-5)
    assert (probabilities[:, 1:].argmax(axis=1) == logits[:, 1:].argmax(dim=1).numpy()).all()


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(FiresegError, match=r"onnxscript is not installed.*'fireseg\[fast\]'"):
        convert_to_onnx(make_model(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
