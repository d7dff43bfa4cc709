"""Windows of stored reflectance into probabilities."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fireseg.data.reflectance import to_reflectance
from fireseg.engine.device import get_autocast_dtype
from fireseg.errors import FiresegError, SettingError
from fireseg.model import FireSegmentationModel
from fireseg.model.decision import get_probabilities

_CPU_BATCH, _DEVICE_BATCH = 1, 8


def get_batch_size(device: torch.device) -> int:
    """Windows at a time that keep a device busy: on a CPU more of them cost memory and win nothing."""
    return _CPU_BATCH if device.type == "cpu" else _DEVICE_BATCH


def make_ready(model: FireSegmentationModel, device: torch.device) -> FireSegmentationModel:
    """The model on its device and in eval mode, its weights laid out as the device computes fastest."""
    model.to(device).eval()
    if device.type == "cpu":  # a third faster for small encoders, and windows come with the channels last anyway
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - missing in torch's stubs
    return model


@torch.inference_mode()
def predict_windows(
    model: FireSegmentationModel, windows: NDArray[np.uint16], *, device: torch.device, tta: bool = False
) -> NDArray[np.float32]:
    """Probabilities of a batch of windows.

    Args:
        model: As `make_ready` gives it.
        windows: Reflectance x 10000, `(B, H, W, C)`.
        device: Where the model is.
        tta: Average over the eight turns and flips: eight times the work.

    Returns:
        Softmax, `(B, K, H, W)` in [0, 1], summing to 1 over K.

    Raises:
        SettingError: If the batch does not fit into memory.
        FiresegError: If the model gives no numbers.
    """
    try:
        image = torch.from_numpy(to_reflectance(windows)).permute(0, 3, 1, 2).to(device)
        probabilities = _average_views(model, image) if tta else _infer(model, image)
    except torch.OutOfMemoryError as error:
        raise SettingError(
            f"--batch-size: {len(windows)} windows of {windows.shape[1]} x {windows.shape[2]} do not fit in the memory "
            f"of {device}; try half, or --device cpu"
        ) from error
    # One look at the sum: whatever is not a number comes through, and would be neither burned nor not.
    if not torch.isfinite(probabilities.sum()):
        raise FiresegError("the model's probabilities are not finite: its training diverged; take another checkpoint")
    return probabilities.cpu().numpy()


def _average_views(model: FireSegmentationModel, image: Tensor) -> Tensor:
    total = sum(_turn_back(_infer(model, _turn(image, *view)), *view) for view in _VIEWS)
    assert isinstance(total, Tensor)
    return total / len(_VIEWS)


_VIEWS = [(quarters, is_flipped) for quarters in range(4) for is_flipped in (False, True)]


def _infer(model: FireSegmentationModel, image: Tensor) -> Tensor:
    dtype = get_autocast_dtype(image.device, "auto")
    with torch.autocast(image.device.type, dtype=dtype, enabled=dtype is not None):
        return get_probabilities(model(image))


def _turn(image: Tensor, quarters: int, is_flipped: bool) -> Tensor:
    turned = image.rot90(quarters, (2, 3))
    turned = turned.flip(3) if is_flipped else turned
    return turned.contiguous(memory_format=torch.channels_last)


def _turn_back(image: Tensor, quarters: int, is_flipped: bool) -> Tensor:
    return (image.flip(3) if is_flipped else image).rot90(-quarters, (2, 3))
