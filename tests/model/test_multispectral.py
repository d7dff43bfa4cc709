"""Encoders from weights over Sentinel-2 bands: published ones with their true keys, and files of other tools."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fireseg.data.bands import BAND_NAMES, SENTINEL2_BANDS
from fireseg.errors import FiresegError, SettingError
from fireseg.model import create_segmentation_model
from fireseg.model.multispectral import PUBLISHED, SSL4EO_BANDS, fetch_published

CREATE_PROGRAM = """
import json
from fireseg.model import create_segmentation_model

model = create_segmentation_model(encoder="resnet18", weights="ssl4eo-s12-moco", indices=("NBR",))
stem = model.network.encoder.conv1.weight
print(json.dumps(model.provenance | {"shape": list(stem.shape), "sum": stem.double().sum().item()}))
"""


def make_resnet(name: str = "resnet18", num_bands: int = 13, seed: int = 0) -> Any:
    """A network of torchvision for Sentinel-2 bands, with random weights and running statistics."""
    import torchvision

    torch.manual_seed(seed)
    resnet = getattr(torchvision.models, name)()
    resnet.conv1 = nn.Conv2d(num_bands, 64, 7, stride=2, padding=3, bias=False)
    for module in resnet.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return resnet.eval()


def without_classifier(resnet: Any) -> dict[str, Tensor]:
    """The keys of TorchGeo's files, those of timm without `fc`."""
    return {key: value for key, value in resnet.state_dict().items() if not key.startswith("fc.")}


def compute_features(resnet: Any, image: Tensor) -> Tensor:
    x = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(image))))
    return resnet.layer4(resnet.layer3(resnet.layer2(resnet.layer1(x))))


def save(content: dict[str, Any], tmp_path: Path) -> Path:
    torch.save(content, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def create(path: Path, bands: tuple[str, ...] = BAND_NAMES, **settings: Any) -> Any:
    settings = {"encoder": "resnet18", "weights_bands": SENTINEL2_BANDS, **settings}
    return create_segmentation_model(weights=path, bands=bands, in_channels=len(bands), **settings).eval()


def read_last_features(model: Any, image: Tensor) -> Tensor:
    """Features of the encoder for an image that goes through the model, with its normalisation."""
    found: list[Tensor] = []
    hook = model.network.encoder.register_forward_hook(lambda *args: found.append(args[2][-1]))
    model.predict_segmentation(image)
    hook.remove()
    return found[0]


def test_the_bands_are_those_of_the_instrument_in_its_order() -> None:
    assert SSL4EO_BANDS == SENTINEL2_BANDS


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_all_thirteen_bands_give_the_features_of_torchvision(name: str, tmp_path: Path) -> None:
    resnet = make_resnet(name)
    path = save(without_classifier(resnet), tmp_path)
    image = torch.rand(1, 13, 64, 64)
    with torch.no_grad():
        expected = compute_features(resnet, image)
    model = create(path, SENTINEL2_BANDS, encoder=name)
    torch.testing.assert_close(read_last_features(model, image), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet18"])
def test_bands_go_by_name_and_those_left_out_count_as_0(encoder: str, tmp_path: Path) -> None:
    resnet = make_resnet()
    path = save(without_classifier(resnet), tmp_path)
    bands = ("B12", "B04", "B8A")
    image = torch.rand(1, 3, 64, 64)
    every_band = torch.zeros(1, 13, 64, 64)
    every_band[:, [12, 3, 8]] = image
    with torch.no_grad():
        expected = compute_features(resnet, every_band)
    model = create(path, bands, encoder=encoder)
    torch.testing.assert_close(read_last_features(model, image), expected, rtol=1e-5, atol=1e-5)
    assert "without the filters of B01 B02 B03 B05 B06 B07 B08 B09 B10 B11" in model.provenance["note"]


def test_indices_and_bands_that_the_file_lacks_start_at_0(tmp_path: Path) -> None:
    resnet = make_resnet(num_bands=2)
    path = save(without_classifier(resnet), tmp_path)
    model = create(path, ("B12", "B11", "B08"), weights_bands=("B08", "B12"), indices=("NBR",))
    stem = model.network.encoder.conv1.weight
    assert torch.equal(stem[:, [0, 2]], resnet.conv1.weight[:, [1, 0]])
    assert not stem[:, [1, 3]].any()
    assert "filters of B11 NBR start at 0" in model.provenance["note"]
    model.train()
    model(torch.rand(2, 3, 32, 32)).square().sum().backward()
    assert (model.network.encoder.conv1.weight.grad.abs().amax((0, 2, 3)) > 0).all()  # they are learnt


def test_the_network_reads_plain_reflectance(tmp_path: Path) -> None:
    model = create(save(without_classifier(make_resnet()), tmp_path))
    assert model.is_normalised  # training does not replace it by the statistics of the data
    assert model.mean.tolist() == [0.0] * 7
    assert model.std.tolist() == [1.0] * 7


@pytest.mark.parametrize("prefix", ["", "module.encoder_q.", "backbone.", "encoder."])
def test_prefixes_second_encoders_and_heads_are_left_out(prefix: str, tmp_path: Path) -> None:
    resnet, other = make_resnet(), make_resnet(seed=1)
    content: dict[str, Any] = {prefix + key: value for key, value in resnet.state_dict().items()}
    if prefix.startswith("module"):  # as MoCo saves its training
        content |= {f"module.encoder_k.{key}": value for key, value in other.state_dict().items()}
        content = {"epoch": 100, "state_dict": content | {"module.queue": torch.zeros(128, 9)}}
    model = create(save(content, tmp_path), SENTINEL2_BANDS)
    state = model.network.encoder.state_dict()
    assert all(torch.equal(state[key], value) for key, value in without_classifier(resnet).items())
    assert "of the file left out (" in model.provenance["note"]
    assert "fc.weight" in model.provenance["note"]


def test_missing_and_misshapen_tensors_are_an_error_with_their_names(tmp_path: Path) -> None:
    tensors = without_classifier(make_resnet())
    del tensors["bn1.weight"]
    tensors["layer1.0.conv3.weight"] = torch.zeros(1)
    tensors["layer1.0.bn1.bias"] = torch.zeros(3)
    with pytest.raises(FiresegError) as caught:
        create(save(tensors, tmp_path))
    assert "1 tensor missing (bn1.weight); 1 tensor unexpected (layer1.0.conv3.weight)" in str(caught.value)
    assert "layer1.0.bn1.bias (3,) for (64,)" in str(caught.value)
    assert "set model.encoder to the encoder of the file" in str(caught.value)


@pytest.mark.parametrize("content", [{}, {"a": torch.zeros(2)}, {"state_dict": {"epoch": 3}}])
def test_a_file_without_an_encoder_is_an_error(content: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(FiresegError, match=r"weights.pth: \d+ tensors missing"):
        create(save(content, tmp_path))


def test_another_number_of_bands_is_an_error(tmp_path: Path) -> None:
    path = save(without_classifier(make_resnet()), tmp_path)
    with pytest.raises(SettingError, match=r"model.weights_bands: 2 bands .*\(64, 13, 7, 7\); name one band for each"):
        create(path, weights_bands=("B08", "B12"))
    with pytest.raises(SettingError, match=r"model.weights_bands: .* none of them; add bands"):
        create(path, ("B10",), weights_bands=("B08", "B12"))
    with pytest.raises(FiresegError, match=r"name the bands with model.weights_bands"):
        create_segmentation_model(encoder="resnet18", weights=path)


def test_settings_that_do_not_fit_are_an_error(save_checkpoint: Any) -> None:
    with pytest.raises(SettingError, match=r"model.weights_bands: only for a weights file, .*leave it out"):
        create_segmentation_model(weights="imagenet", weights_bands=("B08",))
    with pytest.raises(SettingError, match=r"model.stem: .*set model.stem=by_band"):
        create_segmentation_model(encoder="resnet18", weights="ssl4eo-s12-moco", stem="smp")
    with pytest.raises(
        SettingError, match=r"ssl4eo-s12-dino is published for resnet50, not for resnet18; set model.enc"
    ):
        create_segmentation_model(encoder="resnet18", weights="ssl4eo-s12-dino")
    with pytest.raises(SettingError, match=r"did you mean 'ssl4eo-s12-moco'"):
        create_segmentation_model(encoder="resnet18", weights="ssl4eo-s12-mocco")
    _, path = save_checkpoint()
    with pytest.raises(SettingError, match=r"model.weights_bands: .* is a run of fireseg, .*leave it out"):
        create_segmentation_model(encoder="resnet18", weights=path, weights_bands=("B08",))


def test_a_warm_start_keeps_plain_reflectance(tmp_path: Path) -> None:
    old = create(save(without_classifier(make_resnet()), tmp_path))
    settings = {"arch": "unet", "encoder": "resnet18", "num_classes": 2, "bands": list(old.bands)}
    path = tmp_path / "best_model.pt"
    torch.save({"model": old.state_dict(), "config": {"model": settings}}, path)
    new = create_segmentation_model(encoder="resnet18", weights=path)
    assert new.is_normalised
    assert new.std.tolist() == [1.0] * 7


@pytest.mark.parametrize(("name", "encoder"), [(name, encoder) for name in PUBLISHED for encoder in PUBLISHED[name]])
def test_published_weights_without_a_network_are_an_error(
    name: str, encoder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    file = PUBLISHED[name][encoder]
    with pytest.raises(
        FiresegError, match=rf"model.weights: {file.name} of {file.repo} .*copy the folder models--torchg"
    ):
        fetch_published(name, encoder)


def test_published_weights_come_from_the_hub(hub: Any, tmp_path: Path) -> None:
    resnet = make_resnet()
    file = PUBLISHED["ssl4eo-s12-moco"]["resnet18"]
    content = save(without_classifier(resnet), tmp_path).read_bytes()
    hub.files[f"{file.repo}/resolve/{file.revision}/{file.name}"] = content
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environ |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
    program = [sys.executable, "-c", CREATE_PROGRAM]
    answer = json.loads(subprocess.run(program, env=environ, capture_output=True, text=True, check=True).stdout)
    assert answer["source"] == str(file)
    assert answer["shape"] == [64, 8, 7, 7]
    assert "filters of NBR start at 0" in answer["note"]
    kept = resnet.conv1.weight[:, [SENTINEL2_BANDS.index(band) for band in BAND_NAMES]]
    assert answer["sum"] == pytest.approx(kept.double().sum().item(), abs=1e-9)
