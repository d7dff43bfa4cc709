"""Conversion of a trained model to ONNX."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fireseg.decision import class_probabilities, fire_log_odds
from fireseg.errors import FiresegError
from fireseg.files import atomic_write
from fireseg.indices import append_indices
from fireseg.model import FireSegmentationModel
from fireseg.model.ensemble import FireSegmentationEnsemble, SegmentationModel, average_logits
from fireseg.model.network import MIN_SIZE_PX
from fireseg.runtime.cache import INPUT_NAME

_MAX_BATCH, _MAX_SIZE_PX = 4096, 65_536

_EXAMPLE_SHAPE = 2, 2 * MIN_SIZE_PX, 3 * MIN_SIZE_PX
"""Batch, height and width of the image that is traced: no two equal, and none of 1, which would be taken as fixed."""


class DeployedModel(nn.Module):
    """A model, or an ensemble, as other programs compute it: indices and normalisation inside, padding outside.

    Args:
        model: Trained model; a copy of it on the CPU is held.
        temperature: Divisor of the log-odds of fire; None for logits instead of probabilities.

    Attributes:
        output_name: `logits` or `probabilities`.
    """

    def __init__(self, model: SegmentationModel, *, temperature: float | None = None) -> None:
        super().__init__()
        model = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue] - missing in torch's stubs
        members = model.members if isinstance(model, FireSegmentationEnsemble) else [model]
        self.members = nn.ModuleList(_UnpaddedModel(member) for member in members)  # pyright: ignore[reportArgumentType] - of a ModuleList
        self.temperature = temperature
        self.output_name = "logits" if temperature is None else "probabilities"
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> Tensor:
        """Computes the logits, or the calibrated probability of every class.

        Args:
            image: Reflectance, `(B, C, H, W)` float32, H and W multiples of 32.

        Returns:
            `(B, K, H, W)` float32. The sum of the probabilities of the classes above 0 is the fire probability of a
            map, sigmoid(d / temperature) with d the log-odds of fire.
        """
        parts = [member(image) for member in self.members]
        logits = average_logits(parts) if len(parts) > 1 else parts[0]
        if self.temperature is None:
            return logits
        if self.temperature == 1.0:
            return class_probabilities(logits)
        log_odds = (fire_log_odds(logits) / self.temperature).unsqueeze(1)
        return torch.cat([torch.sigmoid(-log_odds), torch.sigmoid(log_odds) * logits[:, 1:].softmax(1)], dim=1)


class _UnpaddedModel(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self, model: FireSegmentationModel) -> None:
        super().__init__()
        self.network, self.bands, self.indices = model.network, model.bands, model.indices
        self.register_buffer("mean", model.mean.view(1, -1, 1, 1))
        self.register_buffer("std", model.std.view(1, -1, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        normalised = (image - self.mean) / self.std
        return self.network(append_indices(normalised, image, bands=self.bands, names=self.indices))


def make_example(model: SegmentationModel) -> Tensor:
    """Returns an image for tracing, `(B, C, H, W)` float32."""
    batch, height, width = _EXAMPLE_SHAPE
    return torch.rand(batch, len(model.bands), height, width, generator=torch.Generator().manual_seed(0))


def make_dynamic_shapes() -> dict[str, dict[int, Any]]:
    """Returns the free dimensions of the input for `torch.export` and `torch.onnx`: batch, height and width.

    Sizes that are not declared as multiples of 32 fail inside the runtime for Unet++ and DeepLabV3+.
    """
    from torch.export import Dim

    sides = {
        axis: MIN_SIZE_PX * Dim(name, min=1, max=_MAX_SIZE_PX // MIN_SIZE_PX) for axis, name in ((2, "h"), (3, "w"))
    }
    return {INPUT_NAME: {0: Dim("batch", min=1, max=_MAX_BATCH), **sides}}


def convert_to_onnx(model: SegmentationModel, path: Path, *, temperature: float | None = None) -> None:
    """Writes a model as one ONNX file, whole or not at all.

    The input `image` is reflectance, `(batch, C, 32*h, 32*w)` float32 of any batch and size; an image of another size
    has to be padded first, by reflection as `FireSegmentationModel` does. The output is `logits` or `probabilities`,
    `(batch, K, 32*h, 32*w)` float32.

    Args:
        model: Trained model.
        path: The file; its folder must exist.
        temperature: Divisor of the log-odds of fire, for `probabilities`; None for `logits`.

    Raises:
        FiresegError: If the packages that convert are not installed, or the file cannot be written.
    """
    check_converter("onnx")
    deployed = DeployedModel(model, temperature=temperature)
    with _silence_converter():
        program = torch.onnx.export(
            deployed,
            (make_example(model),),
            dynamo=True,
            input_names=[INPUT_NAME],
            output_names=[deployed.output_name],
            dynamic_shapes=make_dynamic_shapes(),
            verbose=False,
        )
        assert program is not None
        with atomic_write(path) as part:
            program.save(part, external_data=False)


def check_converter(purpose: str) -> None:
    """Checks that the packages that convert to ONNX are installed.

    Args:
        purpose: Name of the option or command that needs them, for the message.

    Raises:
        FiresegError: If one is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise FiresegError(
            f"{purpose}: {error.name} is not installed; install it with pip install 'fireseg[fast]'"
        ) from error


@contextmanager
def _silence_converter() -> Iterator[None]:
    """Hides the warnings and the log of the conversion, which tell nothing that a user could change."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
