"""Encoder names, checked without slow imports, and the adaptation of RGB filters to other channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fireseg.errors import FiresegError, did_you_mean
from fireseg.pairs import get_band

ENCODERS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "efficientnet-b0",
    "efficientnet-b1",
    "efficientnet-b2",
    "mobilenet_v2",
)
"""Encoders that are tested with every architecture."""

# fmt: off
SMP_ENCODERS = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x4d",
    "resnext101_32x8d", "resnext101_32x16d", "resnext101_32x32d", "resnext101_32x48d", "dpn68", "dpn68b", "dpn92",
    "dpn98", "dpn107", "dpn131", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn",
    "senet154", "se_resnet50", "se_resnet101", "se_resnet152", "se_resnext50_32x4d", "se_resnext101_32x4d",
    "densenet121", "densenet169", "densenet201", "densenet161", "inceptionresnetv2", "inceptionv4",
    "efficientnet-b0", "efficientnet-b1", "efficientnet-b2", "efficientnet-b3", "efficientnet-b4",
    "efficientnet-b5", "efficientnet-b6", "efficientnet-b7", "mobilenet_v2", "xception", "timm-efficientnet-b0",
    "timm-efficientnet-b1", "timm-efficientnet-b2", "timm-efficientnet-b3", "timm-efficientnet-b4",
    "timm-efficientnet-b5", "timm-efficientnet-b6", "timm-efficientnet-b7", "timm-efficientnet-b8",
    "timm-efficientnet-l2", "timm-tf_efficientnet_lite0", "timm-tf_efficientnet_lite1",
    "timm-tf_efficientnet_lite2", "timm-tf_efficientnet_lite3", "timm-tf_efficientnet_lite4", "timm-skresnet18",
    "timm-skresnet34", "timm-skresnext50_32x4d", "mit_b0", "mit_b1", "mit_b2", "mit_b3", "mit_b4", "mit_b5",
    "mobileone_s0", "mobileone_s1", "mobileone_s2", "mobileone_s3", "mobileone_s4",
)
# fmt: on
"""Native encoders of segmentation_models_pytorch (a test compares the list)."""

TIMM_PREFIX = "tu-"
"""Prefix of the names of timm models, which are checked when the model is built."""


def check_encoder(name: str) -> str:
    """Checks the name of an encoder and returns it.

    Args:
        name: One of `SMP_ENCODERS`, or `tu-` and the name of a timm model.

    Raises:
        ValueError: If it is not; with the nearest name.

    Example:
        >>> check_encoder("resnet34")
        'resnet34'
    """
    if name in SMP_ENCODERS or (name.startswith(TIMM_PREFIX) and len(name) > len(TIMM_PREFIX)):
        return name
    near = did_you_mean(name, SMP_ENCODERS)
    raise ValueError(
        f"no encoder '{name}'{near}; use {', '.join(ENCODERS)}, "
        "another encoder of segmentation_models_pytorch, or a timm model as tu-<name>"
    )


COLOUR_OF_BAND = {"B04": 0, "B03": 1, "B02": 2}
"""Channel in an RGB image by visible band."""


def spread_filters(weight: Tensor, channels: Sequence[str]) -> Tensor:
    """Adapts the filters of a convolution over red, green and blue to other bands and spectral indices.

    A visible band, of either scene of a pair, gets the filter of its colour, any other band and every index the mean of
    the three, all scaled by 3 / C. The sum over the input channels is thus unchanged: a pixel of equal values in all
    channels gives the response of a grey RGB pixel, and the following layers see activations of the scale they were
    trained on. (This is exact if the bands include all three visible bands or none of them.)

    Args:
        weight: RGB filters, `(out, 3, h, w)`.
        channels: The C bands and indices, in order.

    Returns:
        `(out, C, h, w)`.
    """
    mean = weight.mean(1)
    colours = [COLOUR_OF_BAND.get(get_band(channel)) for channel in channels]
    filters = [mean if colour is None else weight[:, colour] for colour in colours]
    return torch.stack(filters, 1) * (3 / len(channels))


def find_stem(encoder: nn.Module) -> list[nn.Conv2d]:
    """Finds the convolutions that read the RGB image.

    These are the first with three input channels and its parallel branches, which some encoders (MobileOne, RepVGG)
    have; they agree in stride and number of filters.

    Args:
        encoder: Encoder with three input channels.

    Returns:
        At least one convolution.

    Raises:
        FiresegError: If none has three input channels, for instance after a pixel-unshuffle.
    """
    convs = [module for module in encoder.modules() if isinstance(module, nn.Conv2d) and module.in_channels == 3]
    if not convs:
        raise FiresegError(
            "model.encoder: no convolution of this encoder reads red, green and blue, so its weights cannot be adapted "
            "to the bands; use model.stem=smp, model.weights=none or another encoder"
        )
    first = convs[0]
    return [conv for conv in convs if (conv.stride, conv.out_channels) == (first.stride, first.out_channels)]


def adapt_stem(encoder: nn.Module, channels: Sequence[str]) -> None:
    """Adapts an RGB encoder to other bands and indices in place, see `spread_filters`.

    Args:
        encoder: Encoder with three input channels.
        channels: The C bands and indices, in order.

    Raises:
        FiresegError: If no convolution reads three channels.
    """
    for conv in find_stem(encoder):
        conv.weight = nn.Parameter(spread_filters(conv.weight.detach(), channels))
        conv.in_channels = len(channels)
