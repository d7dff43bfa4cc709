"""The segmentation model: reflectance in, logits out, with indices, normalisation and padding inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fireseg.decision import argmax_classes, class_probabilities, fire_probability
from fireseg.errors import FiresegError
from fireseg.indices import append_indices
from fireseg.task import NUM_AUXILIARY

MIN_SIZE_PX = 32
"""Smallest height and width of an image; encoders halve it five times, so both are padded to a multiple of this."""

HEAD_PREFIX = "network.segmentation_head."
"""Prefix of the tensors of the last layer in a state dict."""


class FireSegmentationModel(nn.Module):
    """A segmentation network together with its bands and its normalisation.

    The input is surface reflectance. It is normalised inside, `(x - mean) / std` per band, so that inference
    uses the normalisation of the run that trained the model. Mean is 0 and std is 1 until `set_normalisation`.
    Spectral indices are computed inside from the reflectance, and normalised by their own constants.

    Args:
        network: Maps `(B, C + I, H, W)` to logits `(B, K, H, W)` for heights and widths divisible by 32.
        bands: Sentinel-2 bands of the C channels of the input, in order.
        indices: The I names of `fireseg.indices.INDICES` that are appended for the network.
        num_auxiliary: Number of the last logits of the network that belong to an auxiliary task.
        provenance: Origin of the weights: `source`, `sha256` and `note`, and of a run the `fingerprint` of its patches.

    Attributes:
        network: Network from the argument.
        bands: Sentinel-2 bands of the channels.
        indices: Spectral indices that the network sees besides the bands.
        provenance: Origin of the weights.
        mean: Mean reflectance per band, a `(C,)` float32 buffer.
        std: Standard deviation of the reflectance per band, a `(C,)` float32 buffer, above 0.

    Example:
        >>> model = FireSegmentationModel(nn.Conv2d(2, 5, 1), bands=("B08", "B12"))
        >>> model.predict_segmentation(torch.rand(1, 2, 33, 50)).shape
        torch.Size([1, 33, 50])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        bands: Sequence[str],
        indices: Sequence[str] = (),
        num_auxiliary: int = 0,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.bands = tuple(bands)
        self.indices = tuple(indices)
        self.num_auxiliary = num_auxiliary
        self.provenance = dict(provenance or {})
        self._normalisation_was_set = False
        self.register_buffer("mean", torch.zeros(len(self.bands)))
        self.register_buffer("std", torch.ones(len(self.bands)))

    @property
    def is_normalised(self) -> bool:
        """True if mean and std were set by `set_normalisation`, be it to 0 and 1, or by a loaded checkpoint."""
        return self._normalisation_was_set or bool((self.mean != 0).any() or (self.std != 1).any())

    def set_normalisation(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Sets the mean and the standard deviation of each band.

        Args:
            mean: Mean reflectance of each band on the training split.
            std: Standard deviation of each band there, above 0.

        Raises:
            FiresegError: If there is not one finite number per band, or a std is not above 0; with all faults.
        """
        faults = []
        for name, values in (("mean", mean), ("std", std)):
            if len(values) != len(self.bands):
                faults.append(
                    f"normalisation: {len(values)} numbers for {name}, but the model has {len(self.bands)} bands "
                    f"({' '.join(self.bands)}); give one per band"
                )
            for band, value in zip(self.bands, torch.as_tensor(values).tolist(), strict=False):
                if value - value != 0 or (name == "std" and value <= 0):
                    expected = "a finite number" + (" above 0" if name == "std" else "")
                    faults.append(
                        f"normalisation: {name} of {band} is {value:g}, but must be {expected}; "
                        "check that the band is neither empty nor constant in the training patches"
                    )
        if faults:
            raise FiresegError(*faults)
        self.mean.copy_(torch.as_tensor(mean))
        self.std.copy_(torch.as_tensor(std))
        self._normalisation_was_set = True

    def load_task_state(self, state: Mapping[str, Tensor]) -> None:
        """Loads the tensors of a model; the head of an auxiliary task stays as it is if they lack it.

        Args:
            state: Tensors, see `drop_auxiliary_head`.

        Raises:
            RuntimeError: If they are not those of this network.
        """
        own = self.state_dict()
        lacking = [
            key
            for key, tensor in state.items()
            if key.startswith(HEAD_PREFIX) and key in own and len(own[key]) - len(tensor) == self.num_auxiliary > 0
        ]
        heads = {key: torch.cat([state[key].to(own[key].device), own[key][len(state[key]) :]]) for key in lacking}
        self.load_state_dict({**state, **heads})

    def forward(self, image: Tensor) -> Tensor:
        """Computes the logits of every pixel.

        Height and width are padded to a multiple of 32 by reflection, and the logits are cropped back. Reflection
        keeps the statistics of the ground, which zeros would not.

        Args:
            image: Reflectance, `(B, C, H, W)` float, H and W at least 32.

        Returns:
            Logits, `(B, K, H, W)`. In training mode those of an auxiliary task follow.

        Raises:
            FiresegError: If the number of channels is not that of the bands, or the image is smaller than 32 px.
        """
        self._check_shape(image)
        height, width = image.shape[-2:]
        normalised = (image - self.mean.view(1, -1, 1, 1)) / self.std.view(1, -1, 1, 1)
        channels = append_indices(normalised, image, bands=self.bands, names=self.indices)
        # At most 31 rows are added to at least 32, so reflection always has enough rows.
        down, right = -height % MIN_SIZE_PX, -width % MIN_SIZE_PX
        if down or right:
            channels = F.pad(channels, (0, right, 0, down), mode="reflect")
        logits = self.network(channels)[..., :height, :width]
        return logits[:, : -self.num_auxiliary] if self.num_auxiliary and not self.training else logits

    def predict_segmentation(self, image: Tensor) -> Tensor:
        """Returns the likeliest class of every pixel of a `(B, C, H, W)` image, `(B, H, W)` int64."""
        return argmax_classes(self._compute_logits(image)).long()

    def predict_probabilities(self, image: Tensor) -> Tensor:
        """Returns the probability of every class, `(B, K, H, W)` in [0, 1]."""
        return class_probabilities(self._compute_logits(image))

    def predict_fire_detection(self, image: Tensor) -> Tensor:
        """Returns True for each patch with a burned pixel, one whose argmax is above 0, `(B,)` bool."""
        return (argmax_classes(self._compute_logits(image)) > 0).flatten(1).any(1)

    def predict_fire_confidence(self, image: Tensor) -> Tensor:
        """Returns the largest fire probability of each patch, `(B,)` in [0, 1]."""
        return fire_probability(self._compute_logits(image)).flatten(1).amax(1)

    def predict_fire_fraction(self, image: Tensor) -> Tensor:
        """Returns the share of burned pixels of each patch, `(B,)` in [0, 1]."""
        burned = (argmax_classes(self._compute_logits(image)) > 0).flatten(1)
        return burned.sum(1) / burned.shape[1]

    def _compute_logits(self, image: Tensor) -> Tensor:
        """Logits without gradients and in eval mode; every module keeps the mode it was in."""
        training = [module for module in self.modules() if module.training]
        self.eval()
        try:
            with torch.no_grad():
                return self(image)
        finally:
            for module in training:
                module.training = True

    def _check_shape(self, image: Tensor) -> None:
        shape = tuple(image.shape)
        if image.ndim != 4:
            raise FiresegError(f"image: shape {shape}, but the model takes (B, C, H, W); add the batch dimension")
        if shape[1] != len(self.bands):
            raise FiresegError(
                f"image: {shape[1]} channels, but the model takes {len(self.bands)}: {' '.join(self.bands)}; "
                "give these bands, in this order"
            )
        if min(shape[2:]) < MIN_SIZE_PX:
            raise FiresegError(
                f"image: {shape[2]} x {shape[3]} px, but the model takes at least {MIN_SIZE_PX} px a side; "
                "use a larger window"
            )


def drop_auxiliary_head(state: Mapping[str, Tensor], num_classes: int) -> dict[str, Tensor]:
    """Returns the tensors of a model without the head of an auxiliary task, which its predictions do not need.

    Args:
        state: Tensors of a `FireSegmentationModel`, with or without such a head.
        num_classes: Number of classes of the task.
    """
    # The heads are the rows of one convolution.
    num_rows = num_classes + NUM_AUXILIARY
    return {
        key: tensor[:num_classes].clone() if key.startswith(HEAD_PREFIX) and len(tensor) == num_rows else tensor
        for key, tensor in state.items()
    }
