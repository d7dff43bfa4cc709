"""The model that every run trains: reflectance in, logits out, fire read off them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fireseg.errors import FiresegError


def get_fire_mask(logits: Tensor) -> Tensor:
    """Which pixels burned: those whose argmax is above 0.

    Compares the channels instead of asking for the argmax, which is many times slower across channels.

    Args:
        logits: `(B, K, H, W)`, class 0 is unburned.

    Returns:
        `(B, H, W)` bool. A tie with class 0 is unburned, as argmax takes the first.
    """
    fire = logits[:, 1] if logits.shape[1] == 2 else logits[:, 1:].amax(1)
    return fire > logits[:, 0]


def get_segmentation(logits: Tensor) -> Tensor:
    """The class of every pixel.

    Args:
        logits: `(B, K, H, W)`.

    Returns:
        `(B, H, W)` int64, 0 to K - 1; of equal logits the lower class.
    """
    if logits.shape[1] == 2:
        return get_fire_mask(logits).long()
    # The same as argmax(1), but 8 times faster on channels that lie far apart in memory.
    return logits.max(1).indices


def get_probabilities(logits: Tensor) -> Tensor:
    """Softmax over the classes, in float32 even under autocast.

    Args:
        logits: `(B, K, H, W)`.

    Returns:
        `(B, K, H, W)` float32 in [0, 1], summing to 1 over K.
    """
    return logits.float().softmax(1)


def get_fire_probability(logits: Tensor) -> Tensor:
    """The probability that a pixel burned: the sum over the classes above 0.

    Summed rather than taken from 1, so that small probabilities keep their digits.

    Args:
        logits: `(B, K, H, W)`.

    Returns:
        `(B, H, W)` float32 in [0, 1].
    """
    return get_probabilities(logits)[:, 1:].sum(1).clamp(max=1.0)


def get_fire_detection(logits: Tensor) -> Tensor:
    """Whether a patch holds any burned pixel.

    Args:
        logits: `(B, K, H, W)`.

    Returns:
        `(B,)` bool.
    """
    return get_fire_mask(logits).flatten(1).any(1)


def get_fire_confidence(logits: Tensor) -> Tensor:
    """The largest fire probability of a patch.

    Args:
        logits: `(B, K, H, W)`.

    Returns:
        `(B,)` float32 in [0, 1].
    """
    return get_fire_probability(logits).flatten(1).amax(1)


def get_fire_fraction(logits: Tensor) -> Tensor:
    """The share of a patch's pixels that burned.

    Args:
        logits: `(B, K, H, W)`.

    Returns:
        `(B,)` float32 in [0, 1].
    """
    burned = get_fire_mask(logits).flatten(1)
    return burned.sum(1) / burned.shape[1]


MIN_SIZE_PX = 32
"""Encoders halve an image five times: height and width are padded to a multiple of this."""


class FireSegmentationModel(nn.Module):
    """A segmentation network together with its bands and its normalisation.

    It takes surface reflectance as it is and normalises inside, `(x - mean) / std` band by band, so that
    whoever loads the model cannot normalise differently from the run that trained it. Before the first
    `set_normalisation` mean is 0 and std is 1.

    Args:
        network: Maps `(B, C, H, W)` to logits `(B, K, H, W)` for heights and widths that 32 divides.
        bands: The Sentinel-2 bands of the C channels, in order.
        provenance: Where the weights come from, as plain text: `source`, `sha256`, `note`.

    Attributes:
        network: As given.
        bands: As given.
        provenance: As given.
        mean: Buffer, `(C,)` float32 reflectance.
        std: Buffer, `(C,)` float32 reflectance, above 0.

    Example:
        >>> model = FireSegmentationModel(nn.Conv2d(2, 5, 1), bands=("B08", "B12"))
        >>> model.predict_segmentation(torch.rand(1, 2, 33, 50)).shape
        torch.Size([1, 33, 50])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, *, bands: Sequence[str], provenance: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.bands = tuple(bands)
        self.provenance = dict(provenance or {})
        self.register_buffer("mean", torch.zeros(len(self.bands)))
        self.register_buffer("std", torch.ones(len(self.bands)))

    @property
    def is_normalised(self) -> bool:
        """Whether mean and std were set: by `set_normalisation`, or by a checkpoint that was loaded."""
        return bool((self.mean != 0).any() or (self.std != 1).any())

    def set_normalisation(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Sets what is taken off and divided by, one number a band.

        Args:
            mean: Mean reflectance of each band on the training split.
            std: Its standard deviation, above 0.

        Raises:
            FiresegError: If there is not one finite number a band, or a std is not above 0.
        """
        faults = []
        for name, values in (("mean", mean), ("std", std)):
            if len(values) != len(self.bands):
                faults.append(
                    f"normalisation: {len(values)} numbers for {name}, but the model has {len(self.bands)} bands "
                    f"({' '.join(self.bands)}); give one a band"
                )
            for band, value in zip(self.bands, torch.as_tensor(values).tolist(), strict=False):
                if value - value != 0 or (name == "std" and value <= 0):
                    wanted = "a finite number" + (" above 0" if name == "std" else "")
                    faults.append(
                        f"normalisation: {name} of {band} is {value:g}, but must be {wanted}; "
                        "is the band empty or constant in the training patches?"
                    )
        if faults:
            raise FiresegError(*faults)
        self.mean.copy_(torch.as_tensor(mean))
        self.std.copy_(torch.as_tensor(std))

    def forward(self, image: Tensor) -> Tensor:
        """Logits of every pixel.

        Height and width are padded to a multiple of 32 by reflection and the logits cropped back: a mirrored
        edge looks like more ground, where zeros would look like a cliff.

        Args:
            image: Reflectance, `(B, C, H, W)` float, H and W at least 32.

        Returns:
            Logits, `(B, K, H, W)`.

        Raises:
            FiresegError: If the channels are not the model's bands, or the image is smaller than 32 px.
        """
        self._check(image)
        height, width = image.shape[-2:]
        image = (image - self.mean.view(1, -1, 1, 1)) / self.std.view(1, -1, 1, 1)
        # At most 31 rows are added to at least 32, so that there is always enough to mirror.
        down, right = -height % MIN_SIZE_PX, -width % MIN_SIZE_PX
        if down or right:
            image = F.pad(image, (0, right, 0, down), mode="reflect")
        return self.network(image)[..., :height, :width]

    def predict_segmentation(self, image: Tensor) -> Tensor:
        """The class of every pixel of a `(B, C, H, W)` image, `(B, H, W)` int64."""
        return get_segmentation(self._decide(image))

    def predict_probabilities(self, image: Tensor) -> Tensor:
        """The probability of every class, `(B, K, H, W)` in [0, 1]."""
        return get_probabilities(self._decide(image))

    def predict_fire_detection(self, image: Tensor) -> Tensor:
        """Whether any pixel of a patch burned, `(B,)` bool."""
        return get_fire_detection(self._decide(image))

    def predict_fire_confidence(self, image: Tensor) -> Tensor:
        """The largest fire probability of a patch, `(B,)` in [0, 1]."""
        return get_fire_confidence(self._decide(image))

    def predict_fire_fraction(self, image: Tensor) -> Tensor:
        """The share of a patch's pixels that burned, `(B,)` in [0, 1]."""
        return get_fire_fraction(self._decide(image))

    def _decide(self, image: Tensor) -> Tensor:
        """Logits without gradients and in eval mode; every module is left in the mode that it was in."""
        training = [module for module in self.modules() if module.training]
        self.eval()
        try:
            with torch.no_grad():
                return self(image)
        finally:
            for module in training:
                module.training = True

    def _check(self, image: Tensor) -> None:
        shape = tuple(image.shape)
        if image.ndim != 4:
            raise FiresegError(f"image: shape {shape}, but the model takes (B, C, H, W); add the missing dimension")
        if shape[1] != len(self.bands):
            raise FiresegError(
                f"image: {shape[1]} channels, but the model takes {len(self.bands)}: {' '.join(self.bands)}; "
                "give these bands, in this order"
            )
        if min(shape[2:]) < MIN_SIZE_PX:
            raise FiresegError(
                f"image: {shape[2]} x {shape[3]} px, but the model takes {MIN_SIZE_PX} px and more a side; "
                "take a larger window"
            )
