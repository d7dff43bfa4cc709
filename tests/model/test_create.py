"""Creating models: argument checks, and every architecture with its encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from fireseg.data.bands import BAND_NAMES, SENTINEL2_BANDS
from fireseg.errors import FiresegError, SettingError
from fireseg.model import create_segmentation_model
from fireseg.model.create import BANDS7
from fireseg.model.encoders import ENCODERS

ARCHITECTURES = ("unet", "unetplusplus", "deeplabv3plus")


def test_the_default_bands_are_those_of_the_data() -> None:
    assert BANDS7 == BAND_NAMES


def test_a_model_carries_its_bands() -> None:
    model = create_segmentation_model(
        encoder="resnet18",
        weights="none",
        in_channels=13,
        bands=list(SENTINEL2_BANDS),  # type: ignore[arg-type]
    )
    assert model.bands == SENTINEL2_BANDS


def test_a_model_of_a_pair_takes_the_bands_before_the_fire_last() -> None:
    bands = ("B08", "B12", "B08_PRE", "B12_PRE")
    model = create_segmentation_model(
        encoder="tu-test_efficientnet", weights="none", in_channels=4, bands=bands, indices=("dNBR",)
    )
    assert model.bands == bands
    with pytest.raises(SettingError, match=r"model.bands: .* must follow all those of the scene after it"):
        create_segmentation_model(encoder="resnet18", weights="none", in_channels=2, bands=("B08_PRE", "B08"))
    with pytest.raises(SettingError, match="RBR needs B08_PRE or B8A_PRE and B12_PRE"):
        create_segmentation_model(weights="none", in_channels=2, bands=("B08", "B12"), indices=("RBR",))


def test_all_faults_are_reported_at_once() -> None:
    request: dict[str, Any] = {"arch": "unet++", "encoder": "resnet43", "in_channels": 27, "num_classes": 1}
    with pytest.raises(SettingError) as caught:
        create_segmentation_model(**request, bands=("B2", "B03"))
    starts = ("model.arch: 'unet++'", "model.encoder: 'resnet43'", "model.in_channels: 27", "model.num_classes: 1")
    assert [fault for fault in caught.value.faults if fault.startswith(starts)] == list(caught.value.faults[:4])
    assert "did you mean 'resnet34'?" in str(caught.value)
    assert "model.bands" in caught.value.faults[4]
    assert "(B2)" in caught.value.faults[4]


def test_in_channels_must_equal_the_number_of_bands() -> None:
    with pytest.raises(SettingError, match=r"model\.in_channels: 5, but there are 7 bands"):
        create_segmentation_model(weights="none", in_channels=5)


def test_a_repeated_band_is_rejected() -> None:
    with pytest.raises(SettingError, match=r"model.bands: .*repeated"):
        create_segmentation_model(weights="none", in_channels=2, bands=("B08", "B08"))


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_pair_maps_seven_bands_to_logits_of_every_pixel(arch: Any, encoder: str, num_classes: int) -> None:
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
def test_any_number_of_bands_is_accepted(num_bands: int) -> None:
    bands = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")[-num_bands:]
    model = create_segmentation_model(encoder="resnet18", weights="none", in_channels=num_bands, bands=bands)
    assert model.predict_segmentation(torch.rand(1, num_bands, 32, 32)).shape == (1, 32, 32)


def test_indices_are_further_channels_of_the_network_but_not_of_the_image() -> None:
    model = create_segmentation_model(encoder="resnet18", weights="none", indices=("NBR", "MIRBI"))
    assert (model.bands, model.indices) == (BANDS7, ("NBR", "MIRBI"))
    assert model.network.encoder.conv1.in_channels == 9  # pyright: ignore
    assert model.predict_segmentation(torch.rand(1, 7, 32, 32)).shape == (1, 32, 32)


def test_an_index_whose_bands_are_missing_is_rejected() -> None:
    with pytest.raises(SettingError, match=r"model.indices: BAIS2 needs B06 and B07, .*add the bands"):
        create_segmentation_model(encoder="resnet18", weights="none", indices=("NBR", "BAIS2"))


@pytest.mark.parametrize("stem", ["by_band", "smp"])
def test_rgb_weights_are_adapted_to_bands_and_indices(stem: Any, tmp_path: Path) -> None:
    rgb = create_segmentation_model(encoder="resnet18", weights="none", in_channels=3, bands=("B04", "B03", "B02"))
    encoder: Any = rgb.network.encoder
    torch.save(encoder.state_dict(), tmp_path / "encoder.pt")
    model = create_segmentation_model(
        encoder="resnet18", weights=tmp_path / "encoder.pt", indices=("NBR", "NDVI"), stem=stem
    )
    adapted: Any = model.network.encoder
    red, green, blue = encoder.conv1.weight.unbind(1)
    first, last = (blue, (red + green + blue) / 3) if stem == "by_band" else (red, blue)
    torch.testing.assert_close(adapted.conv1.weight[:, 0], first / 3)
    torch.testing.assert_close(adapted.conv1.weight[:, 8], last / 3)


@pytest.mark.parametrize(
    ("arch", "encoder"),
    [("unetplusplus", "mit_b0"), ("deeplabv3plus", "densenet121"), ("unet", "tu-vit_tiny_patch16_224")],
)
def test_an_encoder_that_an_architecture_does_not_support_is_rejected(arch: Any, encoder: str) -> None:
    with pytest.raises(SettingError, match=f"model.encoder: {arch} .* {encoder} "):
        create_segmentation_model(arch, encoder, weights="none")


def test_an_encoder_that_fails_on_an_image_is_rejected() -> None:
    with pytest.raises(SettingError, match=r"model.encoder: .*tu-swin_tiny_patch4_window7_224"):
        create_segmentation_model(encoder="tu-swin_tiny_patch4_window7_224", weights="none")


@pytest.mark.parametrize("weights", ["none", "imagenet"])
def test_an_unknown_timm_model_is_rejected_with_the_nearest_name(weights: str) -> None:
    with pytest.raises(SettingError, match=r"'convnext_ato' \(did you mean 'tu-convnext_atto'\?\)"):
        create_segmentation_model(encoder="tu-convnext_ato", weights=weights)


def test_unknown_timm_weights_are_rejected_with_the_nearest_name() -> None:
    with pytest.raises(SettingError, match=r"'a1_in2k' for resnet18 \(did you mean 'tu-resnet18.a1_in1k'"):
        create_segmentation_model(encoder="tu-resnet18.a1_in2k", weights="none")


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_timm_encoder_works_in_every_architecture(arch: Any) -> None:
    model = create_segmentation_model(arch, "tu-lcnet_035", weights="none", num_classes=5)
    assert model.predict_probabilities(torch.rand(1, 7, 33, 40)).shape == (1, 5, 33, 40)


def test_imagenet_weights_of_a_timm_encoder_need_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FiresegError, match=r"model.safetensors of timm/resnet18.a1_in1k \(revision main\)"):
        create_segmentation_model(encoder="tu-resnet18", weights="imagenet")


def test_a_timm_model_without_published_weights_is_reported() -> None:
    with pytest.raises(SettingError, match=r"model.weights: .*tu-lcnet_035.*model.weights=none"):
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


def test_an_encoder_saved_from_a_timm_network_of_fireseg_loads(tmp_path: Path) -> None:
    bands = ("B04", "B03", "B02")
    old = create_segmentation_model(encoder="tu-lcnet_035", weights="none", in_channels=3, bands=bands)
    encoder: Any = old.network.encoder
    path = tmp_path / "encoder.pt"
    torch.save(encoder.state_dict(), path)
    new = create_segmentation_model(encoder="tu-lcnet_035", weights=path, in_channels=3, bands=bands)
    state = new.state_dict()
    assert all(torch.equal(value, state["network.encoder." + key]) for key, value in encoder.state_dict().items())


def test_a_file_of_another_timm_model_is_rejected(tmp_path: Path) -> None:
    import timm

    path = tmp_path / "model.pth"
    torch.save(timm.create_model("lcnet_035").state_dict(), path)
    with pytest.raises(FiresegError, match=r"tu-resnet18 .*model.encoder"):
        create_segmentation_model(encoder="tu-resnet18", weights=str(path))
