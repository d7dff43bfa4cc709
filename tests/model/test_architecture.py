"""Every architecture with every encoder, and the pairs that do not go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fireseg.errors import FiresegError, SettingError
from fireseg.model import create_segmentation_model
from fireseg.model.encoders import ENCODERS

ARCHITECTURES = ("unet", "unetplusplus", "deeplabv3plus")


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_pair_maps_seven_bands_to_classes_pixel_by_pixel(arch: Any, encoder: str, num_classes: int) -> None:
    model = create_segmentation_model(arch, encoder, weights="none", num_classes=num_classes).eval()
    with torch.no_grad():
        logits = model(torch.rand(1, 7, 64, 64))
    assert logits.shape == (1, num_classes, 64, 64)
    assert logits.isfinite().all()


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 50), (65, 97)])
def test_every_architecture_takes_any_size(arch: Any, height: int, width: int) -> None:
    model = create_segmentation_model(arch, "mobilenet_v2", weights="none")
    assert model.predict_probabilities(torch.rand(2, 7, height, width)).shape == (2, 2, height, width)


@pytest.mark.parametrize("num_bands", [1, 3, 13])
def test_any_number_of_bands_goes_in(num_bands: int) -> None:
    bands = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")[-num_bands:]
    model = create_segmentation_model(encoder="resnet18", weights="none", in_channels=num_bands, bands=bands)
    assert model.predict_segmentation(torch.rand(1, num_bands, 32, 32)).shape == (1, 32, 32)


@pytest.mark.parametrize(
    ("arch", "encoder"),
    [("unetplusplus", "mit_b0"), ("deeplabv3plus", "densenet121"), ("unet", "tu-vit_tiny_patch16_224")],
)
def test_an_encoder_that_an_architecture_cannot_take_is_refused(arch: Any, encoder: str) -> None:
    with pytest.raises(SettingError, match=f"model.encoder: {arch} cannot take {encoder} "):
        create_segmentation_model(arch, encoder, weights="none")


def test_an_encoder_that_builds_but_fails_on_an_image_is_refused() -> None:
    with pytest.raises(SettingError, match="cannot take tu-swin_tiny_patch4_window7_224"):
        create_segmentation_model(encoder="tu-swin_tiny_patch4_window7_224", weights="none")


@pytest.mark.parametrize("weights", ["none", "imagenet"])
def test_a_timm_name_that_timm_does_not_know_is_refused_with_the_nearest(weights: str) -> None:
    with pytest.raises(SettingError, match=r"timm has no model 'convnext_ato' \(did you mean 'tu-convnext_atto'\?\)"):
        create_segmentation_model(encoder="tu-convnext_ato", weights=weights)


def test_weights_that_timm_does_not_know_of_a_model_are_refused_with_the_nearest() -> None:
    with pytest.raises(SettingError, match=r"no weights 'a1_in2k' for resnet18 \(did you mean 'tu-resnet18.a1_in1k'"):
        create_segmentation_model(encoder="tu-resnet18.a1_in2k", weights="none")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_timm_encoder_goes_into_every_architecture(arch: Any) -> None:
    model = create_segmentation_model(arch, "tu-lcnet_035", weights="none", num_classes=5)
    assert model.predict_probabilities(torch.rand(1, 7, 33, 40)).shape == (1, 5, 33, 40)


def test_imagenet_for_a_timm_encoder_is_refused_without_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FiresegError, match=r"model.safetensors of timm/resnet18.a1_in1k \(revision main\) is wanted"):
        create_segmentation_model(encoder="tu-resnet18", weights="imagenet")


def test_a_timm_model_that_nobody_trained_says_so() -> None:
    with pytest.raises(SettingError, match="no weights for tu-lcnet_035 on the hub, none at all"):
        create_segmentation_model(encoder="tu-lcnet_035", weights="imagenet")


@pytest.mark.parametrize("stem", ["by_band", "smp"])
def test_a_timm_file_is_loaded_and_adapted(stem: Any, tmp_path: Path) -> None:
    import timm

    torch.manual_seed(1)
    original = timm.create_model("resnet18").state_dict()
    path = tmp_path / "model.pth"
    torch.save(original, path)
    torch.manual_seed(2)
    model = create_segmentation_model(encoder="tu-resnet18", weights=str(path), stem=stem)
    loaded = {key.removeprefix("network.encoder.model."): value for key, value in model.state_dict().items()}
    assert torch.equal(loaded["layer4.1.conv2.weight"], original["layer4.1.conv2.weight"])
    red, green, blue = (original["conv1.weight"] * 3 / 7).unbind(1)
    first = blue if stem == "by_band" else red
    torch.testing.assert_close(loaded["conv1.weight"][:, 0], first)
    torch.testing.assert_close(loaded["conv1.weight"][:, 1], green)
    assert model.predict_segmentation(torch.rand(1, 7, 32, 32)).shape == (1, 32, 32)


def test_an_encoder_saved_from_a_timm_network_of_ours_loads_too(tmp_path: Path) -> None:
    bands = ("B04", "B03", "B02")
    old = create_segmentation_model(encoder="tu-lcnet_035", weights="none", in_channels=3, bands=bands)
    encoder: Any = old.network.encoder
    path = tmp_path / "encoder.pt"
    torch.save(encoder.state_dict(), path)
    new = create_segmentation_model(encoder="tu-lcnet_035", weights=path, in_channels=3, bands=bands)
    state = new.state_dict()
    assert all(torch.equal(value, state["network.encoder." + key]) for key, value in encoder.state_dict().items())


def test_a_file_of_another_timm_model_is_refused_not_left_random(tmp_path: Path) -> None:
    import timm

    path = tmp_path / "model.pth"
    torch.save(timm.create_model("lcnet_035").state_dict(), path)
    with pytest.raises(FiresegError, match="not the weights of tu-resnet18 "):
        create_segmentation_model(encoder="tu-resnet18", weights=str(path))
