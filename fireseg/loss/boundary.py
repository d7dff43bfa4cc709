"""Loss of the distance between predicted and true boundary of the burned area."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fireseg.loss.pixels import PixelPredictions


def boundary_sums(pixels: PixelPredictions) -> Tensor:
    """Computes the sums of the boundary loss: mean over labelled pixels of d |p - o|, 0 if none is labelled.

    p is the probability of burned (all classes above 0), o is 1 where it burned, and d the distance to the boundary of
    the burned area in pixels, see `compute_distances`. It has the gradient of the loss of Kervadec et al., which is
    smaller by a constant, and is 0 for a perfect prediction.

    The distances are computed on the CPU, in 10 ms for an image of 256 x 256 pixels, and a GPU has to wait for them.

    Args:
        pixels: Result of `compute_log_probabilities`.

    Returns:
        `(2,)`: sum of the costs, and number of the labelled pixels.

    References:
        Kervadec et al. (2019), Boundary loss for highly unbalanced segmentation, MIDL.
    """
    log_p, classes, is_labelled = pixels
    is_burned = classes > 0
    distances = compute_distances(is_burned.cpu().numpy(), is_labelled.cpu().numpy())
    weight = torch.from_numpy(distances).to(log_p)
    fire = log_p[:, 1:].exp().sum(1)
    cost = (weight * (fire - is_burned.to(log_p.dtype)).abs()).sum()
    return torch.stack([cost, is_labelled.sum().to(log_p.dtype)])


def compute_distances(is_burned: NDArray[np.bool_], is_labelled: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Computes the distance of each pixel to the boundary of the burned area of its image.

    It is the distance to the nearest labelled pixel of the other kind, less half a pixel. A border with unlabelled
    pixels is thus no boundary. An image that is wholly burned or unburned has none, and its distances are 0.

    Args:
        is_burned: Burned pixels, `(B, H, W)`.
        is_labelled: Labelled pixels, `(B, H, W)`.

    Returns:
        Pixels, `(B, H, W)`, 0 where unlabelled.
    """
    from scipy.ndimage import distance_transform_edt

    distances = np.zeros(is_burned.shape, np.float32)
    for distance, burned, labelled in zip(distances, is_burned & is_labelled, is_labelled, strict=True):
        unburned = labelled & ~burned
        if burned.any() and unburned.any():
            for here, other in ((burned, unburned), (unburned, burned)):
                to_other = np.asarray(distance_transform_edt(~other))
                distance[here] = to_other[here] - 0.5
    return distances
