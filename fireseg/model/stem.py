"""The first convolution, from three colours to the bands of a satellite."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fireseg.errors import FiresegError

COLOUR_OF_BAND = {"B04": 0, "B03": 1, "B02": 2}
"""Which channel of an RGB image a visible band is."""


def spread_filters(weight: Tensor, bands: Sequence[str]) -> Tensor:
    """Filters for bands, made of filters for red, green and blue.

    A visible band takes the filter of its colour, any other the mean of the three, and all are scaled by
    3 / C. So the filters still add up, over the input channels, to what the three added up to: a pixel that is
    equally bright in all bands answers as it did in all colours, and the layers above see the size of response
    that they were trained on. (Exact where all three visible bands are among the bands, or none; a set with one or
    two of them is scaled alike, and then the sum leans towards the colours that are there.)

    Args:
        weight: `(out, 3, h, w)`.
        bands: Names of the C bands.

    Returns:
        `(out, C, h, w)`.
    """
    mean = weight.mean(1)
    filters = [weight[:, COLOUR_OF_BAND[band]] if band in COLOUR_OF_BAND else mean for band in bands]
    return torch.stack(filters, 1) * (3 / len(bands))


def find_stem(encoder: nn.Module) -> list[nn.Conv2d]:
    """The convolutions that read an RGB image.

    These are the first with three input channels and its twins: some encoders (MobileOne, RepVGG) read the image
    with several branches side by side, which agree in stride and number of filters.

    Args:
        encoder: An encoder for three channels.

    Returns:
        One convolution or more.

    Raises:
        FiresegError: If none has three input channels, as where pixels are folded into channels first.
    """
    convs = [module for module in encoder.modules() if isinstance(module, nn.Conv2d) and module.in_channels == 3]
    if not convs:
        raise FiresegError(
            "model.encoder: no convolution of this encoder reads red, green and blue, so its weights cannot be adapted "
            "to bands; take model.stem=smp, model.weights=none or another encoder"
        )
    first = convs[0]
    return [conv for conv in convs if (conv.stride, conv.out_channels) == (first.stride, first.out_channels)]


def adapt_stem(encoder: nn.Module, bands: Sequence[str]) -> None:
    """Lets an encoder with weights for red, green and blue read bands, see `spread_filters`.

    Args:
        encoder: An encoder for three channels; changed in place.
        bands: Names of the C bands.

    Raises:
        FiresegError: If no convolution reads three channels.
    """
    for conv in find_stem(encoder):
        conv.weight = nn.Parameter(spread_filters(conv.weight.detach(), bands))
        conv.in_channels = len(bands)
