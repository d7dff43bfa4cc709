"""Encoder names, checked without slow imports, and the adaptation of RGB filters to bands."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from fireseg.errors import FiresegError
from fireseg.model.encoders import ENCODERS, SMP_ENCODERS, adapt_stem, check_encoder, find_stem, spread_filters

BANDS7 = ("B02", "B03", "B04", "B08", "B8A", "B11", "B12")


def test_the_list_contains_all_encoders_of_smp() -> None:
    import segmentation_models_pytorch as smp

    assert set(SMP_ENCODERS) == set(smp.encoders.encoders)


@pytest.mark.parametrize("name", [*ENCODERS, "mit_b0", "tu-convnext_atto"])
def test_known_names_pass(name: str) -> None:
    assert check_encoder(name) == name


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet43", "'resnet34'"),
        ("efficientnet_b1", "'efficientnet-b1'"),
        ("mobilenetv2", "'mobilenet_v2'"),
        ("densnet169", "'densenet169'"),
    ],
)
def test_a_misspelt_name_is_rejected_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"no encoder '{name}' \\(did you mean {near}\\?\\)"):
        check_encoder(name)


@pytest.mark.parametrize("name", ["", "tu-", "zzzz"])
def test_an_unknown_name_is_rejected_with_the_tested_encoders(name: str) -> None:
    with pytest.raises(ValueError, match="resnet18, resnet34"):
        check_encoder(name)


def test_importing_the_model_imports_nothing_slow() -> None:
    program = (
        "import sys, fireseg.model\n"
        "print({'segmentation_models_pytorch', 'timm', 'huggingface_hub', 'safetensors'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout == "set()\n"


def test_each_band_gets_the_filter_of_its_colour_or_the_mean() -> None:
    red_green_blue = torch.tensor([7.0, 14.0, 42.0]).view(1, 3, 1, 1)
    # Blue, green, red and four times the mean 21, each by 3/7.
    assert spread_filters(red_green_blue, BANDS7).flatten().tolist() == pytest.approx([18, 6, 3, 9, 9, 9, 9])


def test_an_index_gets_the_mean_of_the_filters() -> None:
    red_green_blue = torch.tensor([4.0, 8.0, 24.0]).view(1, 3, 1, 1)
    assert spread_filters(red_green_blue, ("B02", "B08", "NBR", "NDVI")).flatten().tolist() == [18, 9, 9, 9]


def test_a_visible_band_before_the_fire_gets_the_filter_of_its_colour() -> None:
    red_green_blue = torch.tensor([4.0, 8.0, 24.0]).view(1, 3, 1, 1)
    assert spread_filters(red_green_blue, ("B02", "B08", "B02_PRE")).flatten().tolist() == [24, 12, 24]


def test_the_sum_of_the_filters_is_unchanged() -> None:
    weight = torch.randn(16, 3, 3, 3)
    torch.testing.assert_close(spread_filters(weight, BANDS7).sum(1), weight.sum(1))


def test_red_green_blue_in_this_order_are_unchanged() -> None:
    weight = torch.randn(4, 3, 3, 3)
    assert torch.equal(spread_filters(weight, ("B04", "B03", "B02")), weight)


def test_a_single_infrared_band_gets_the_sum_of_the_three() -> None:
    assert spread_filters(torch.tensor([1.0, 2.0, 6.0]).view(1, 3, 1, 1), ("B08",)).item() == pytest.approx(9)


def test_a_grey_image_gives_the_response_of_three_colours() -> None:
    conv, grey = nn.Conv2d(3, 8, 3), torch.rand(1, 1, 9, 9)
    before = conv(grey.expand(1, 3, 9, 9))
    adapt_stem(nn.Sequential(conv), BANDS7)
    torch.testing.assert_close(conv(grey.expand(1, 7, 9, 9)), before)


@pytest.mark.parametrize("encoder", [*ENCODERS, "mobileone_s0", "densenet121", "timm-tf_efficientnet_lite0"])
def test_the_stem_is_what_smp_would_change(encoder: str) -> None:
    import segmentation_models_pytorch as smp

    settings = smp.encoders.encoders[encoder]
    built = settings["encoder"](**settings["params"], depth=5, output_stride=32)
    stem = find_stem(built)
    built.set_in_channels(7, pretrained=True)
    changed = [module for module in built.modules() if isinstance(module, nn.Conv2d) and module.in_channels == 7]
    assert stem == changed


def test_a_later_convolution_with_three_channels_is_left_alone() -> None:
    stem, squeeze = nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(3, 12, 1)
    assert find_stem(nn.Sequential(stem, squeeze)) == [stem]


def test_an_encoder_without_such_a_convolution_is_rejected() -> None:
    with pytest.raises(FiresegError, match=r"model.encoder: .*model.stem=smp"):
        find_stem(nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(48, 8, 3)))
