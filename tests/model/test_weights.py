"""Weights of an encoder from a file or the hub: loaded whole, or refused with what differs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fireseg.errors import FiresegError, SettingError
from fireseg.model import create_segmentation_model
from fireseg.model.encoders import spread_filters

RGB = ("B04", "B03", "B02")
BANDS7 = ("B02", "B03", "B04", "B08", "B8A", "B11", "B12")


@pytest.fixture(scope="module")
def resnet18() -> dict[str, Tensor]:
    """Weights of an encoder for red, green and blue, no two runs of this fixture alike to ImageNet's."""
    torch.manual_seed(0)
    model = create_segmentation_model(encoder="resnet18", weights="none", in_channels=3, bands=RGB)
    return dict(get_encoder(model).state_dict())


def get_encoder(model: Any) -> Any:
    return model.network.encoder


def save(tensors: dict[str, Tensor], path: Path) -> Path:
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    return path


@pytest.mark.parametrize("name", ["encoder.safetensors", "encoder.pth", "encoder.pt", "a copy without suffix"])
def test_every_tensor_of_a_file_is_in_the_model(name: str, resnet18: dict[str, Tensor], tmp_path: Path) -> None:
    path = save(resnet18, tmp_path / name)
    model = create_segmentation_model(encoder="resnet18", weights=str(path), num_classes=5)
    loaded = get_encoder(model).state_dict()
    assert torch.equal(loaded.pop("conv1.weight"), spread_filters(resnet18["conv1.weight"], BANDS7))
    assert all(torch.equal(tensor, resnet18[key]) for key, tensor in loaded.items())
    assert model.provenance == {
        "source": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "note": "",
    }
    assert model.predict_segmentation(torch.rand(1, 7, 32, 32)).shape == (1, 32, 32)


def test_the_choice_smp_repeats_red_green_blue_in_order(resnet18: dict[str, Tensor], tmp_path: Path) -> None:
    path = save(resnet18, tmp_path / "encoder.pth")
    model = create_segmentation_model(encoder="resnet18", weights=str(path), stem="smp")
    red, green, blue = resnet18["conv1.weight"].unbind(1)
    expected = torch.stack([red, green, blue, red, green, blue, red], 1) * 3 / 7
    torch.testing.assert_close(get_encoder(model).conv1.weight.detach(), expected)


def test_an_imagenet_file_with_its_classifier_loads_too(resnet18: dict[str, Tensor], tmp_path: Path) -> None:
    classifier = {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    path = save(resnet18 | classifier, tmp_path / "resnet18.pth")
    create_segmentation_model(encoder="resnet18", weights=path)


def test_tensors_that_are_missing_unexpected_or_of_another_shape_are_named(
    resnet18: dict[str, Tensor], tmp_path: Path
) -> None:
    tensors = dict(resnet18)
    tensors["bn_one.weight"] = tensors.pop("bn1.weight")
    tensors["conv1.weight"] = torch.zeros(64, 7, 7, 7)
    path = save(tensors, tmp_path / "encoder.pth")
    with pytest.raises(FiresegError) as caught:
        create_segmentation_model(encoder="resnet18", weights=str(path))
    message = str(caught.value)
    assert message.startswith(f"{path}: 1 tensors missing (bn1.weight); 1 tensors unexpected (bn_one.weight); ")
    assert "1 tensors of another shape (conv1.weight (64, 7, 7, 7) for (64, 3, 7, 7))" in message


def test_weights_of_another_encoder_are_refused(resnet18: dict[str, Tensor], tmp_path: Path) -> None:
    path = save(resnet18, tmp_path / "encoder.pth")
    with pytest.raises(FiresegError, match=r"tensors missing \(layer1.2.conv1.weight, .*, …\)"):
        create_segmentation_model(encoder="resnet34", weights=str(path))


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("encoder.pth", b"", "not a readable checkpoint"),
        ("encoder.pth", b"no weights at all", "not a readable checkpoint"),
        ("encoder.safetensors", b"no weights at all", "not a readable safetensors file"),
        ("encoder", b"\x10\0\0\0\0\0\0\0{ no header", "not a readable safetensors file"),
    ],
)
def test_a_broken_file_is_refused(name: str, content: bytes, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FiresegError, match=complaint):
        create_segmentation_model(encoder="resnet18", weights=str(path))


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "encoder.pt"
    torch.save({"epoch": 3, "state_dict": {}}, path)
    with pytest.raises(FiresegError, match="epoch is no tensor; state_dict is no tensor"):
        create_segmentation_model(encoder="resnet18", weights=str(path))


def test_a_path_that_is_not_there_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(FiresegError, match=r"model.weights: .*nowhere.pth: no such file or folder"):
        create_segmentation_model(weights=str(tmp_path / "nowhere.pth"))


def test_no_weights_says_that_they_are_random() -> None:
    model = create_segmentation_model(encoder="resnet18", weights="none")
    assert model.provenance == {"source": "none: random", "sha256": "", "note": ""}


def test_imagenet_without_network_says_what_was_wanted_and_never_starts_at_random(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    start = time.monotonic()
    with pytest.raises(FiresegError) as caught:
        create_segmentation_model(encoder="resnet34", weights="imagenet")
    assert time.monotonic() - start < 5
    message = str(caught.value)
    assert "model.safetensors of smp-hub/resnet34.imagenet (revision 7a57b34f72" in message
    assert str(tmp_path) in message


def test_an_encoder_without_imagenet_weights_says_what_there_is() -> None:
    with pytest.raises(SettingError, match="no ImageNet weights for resnext101_32x16d, only instagram, ssl, swsl"):
        create_segmentation_model(encoder="resnext101_32x16d", weights="imagenet")


# In a process of its own, because huggingface_hub reads its environment when it is imported.
PROGRAM = """
import json, sys, time
from fireseg.model import create_segmentation_model

for line in sys.stdin:
    start = time.monotonic()
    model = create_segmentation_model(encoder="resnet18", weights="imagenet")
    answer = model.provenance | {"sum": model.network.encoder.conv1.weight.double().sum().item()}
    print(json.dumps(answer | {"seconds": time.monotonic() - start}), flush=True)
"""


def test_imagenet_comes_from_the_hub_and_then_from_the_cache_with_the_hub_gone(
    hub: Any, resnet18: dict[str, Tensor], tmp_path: Path
) -> None:
    import segmentation_models_pytorch as smp

    settings = smp.encoders.encoders["resnet18"]["pretrained_settings"]["imagenet"]
    content = save(resnet18, tmp_path / "model.safetensors").read_bytes()
    name = f"{settings['repo_id']}/resolve/{settings['revision']}/model.safetensors"
    hub.files[name] = content
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environ |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
    program = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(program, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write("with the hub\n")
        process.stdin.flush()
        first = json.loads(process.stdout.readline())
        # Nothing but this file was asked for: no config, no telemetry.
        assert {line.split()[1] for line in hub.asked} == {f"/{name}"}
        hub.server.shutdown()
        hub.server.server_close()
        process.stdin.write("without\n")
        process.stdin.close()
        second = json.loads(process.stdout.readline())
    expected = spread_filters(resnet18["conv1.weight"], BANDS7).double().sum().item()
    for answer in (first, second):
        assert answer["source"] == f"smp-hub/resnet18.imagenet@{settings['revision']}/model.safetensors"
        assert answer["sha256"] == hashlib.sha256(content).hexdigest()
        assert answer["sum"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.real
def test_real_imagenet_weights_of_mobilenet_v2_load_and_tell_real_edges_from_flat_ground() -> None:
    root = os.environ.get("FIRESEG_REAL_DATA")
    if not root:
        pytest.skip("FIRESEG_REAL_DATA is not set")
    path = Path(root) / "weights" / "mobilenet_v2.imagenet.safetensors"
    model = create_segmentation_model(encoder="mobilenet_v2", weights=str(path))
    assert model.provenance["sha256"] == "fe741b9dacb419dd76dc5c3c09324091156dedced44263a5fbcfa8d90926260f"
    assert get_encoder(model).features[0][0].weight.shape == (32, 7, 3, 3)
    model.eval()
    with torch.no_grad():
        flat = get_encoder(model)(torch.zeros(1, 7, 64, 64))[-1]
        noisy = get_encoder(model)(torch.randn(1, 7, 64, 64, generator=torch.Generator().manual_seed(0)))[-1]
    assert noisy.abs().mean() > flat.abs().mean() > 0
