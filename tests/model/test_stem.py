"""Three colours to bands, by hand numbers and in every encoder."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fireseg.errors import FiresegError
from fireseg.model.encoders import ENCODERS, adapt_stem, find_stem, spread_filters

BANDS7 = ("B02", "B03", "B04", "B08", "B8A", "B11", "B12")


def test_each_band_takes_the_filter_of_its_colour_or_the_mean() -> None:
    red_green_blue = torch.tensor([7.0, 14.0, 42.0]).view(1, 3, 1, 1)
    # Blue, green, red and four times the mean 21, each by 3/7.
    assert spread_filters(red_green_blue, BANDS7).flatten().tolist() == pytest.approx([18, 6, 3, 9, 9, 9, 9])


def test_filters_add_up_to_what_they_added_up_to() -> None:
    weight = torch.randn(16, 3, 3, 3)
    torch.testing.assert_close(spread_filters(weight, BANDS7).sum(1), weight.sum(1))


def test_red_green_blue_in_this_order_stay_as_they_are() -> None:
    weight = torch.randn(4, 3, 3, 3)
    assert torch.equal(spread_filters(weight, ("B04", "B03", "B02")), weight)


def test_one_infrared_band_takes_the_sum_of_the_three() -> None:
    assert spread_filters(torch.tensor([1.0, 2.0, 6.0]).view(1, 3, 1, 1), ("B08",)).item() == pytest.approx(9)


def test_a_grey_image_answers_as_in_three_colours() -> None:
    conv, grey = nn.Conv2d(3, 8, 3), torch.rand(1, 1, 9, 9)
    before = conv(grey.expand(1, 3, 9, 9))
    adapt_stem(nn.Sequential(conv), BANDS7)
    torch.testing.assert_close(conv(grey.expand(1, 7, 9, 9)), before)


@pytest.mark.parametrize("encoder", [*ENCODERS, "mobileone_s0", "densenet121", "timm-tf_efficientnet_lite0"])
def test_the_stem_is_what_smp_itself_would_change(encoder: str) -> None:
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


def test_an_encoder_without_such_a_convolution_is_refused() -> None:
    with pytest.raises(FiresegError, match="no convolution of this encoder reads red, green and blue"):
        find_stem(nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(48, 8, 3)))
