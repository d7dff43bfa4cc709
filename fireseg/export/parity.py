"""Compares the probabilities of an exported model with those of the run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fireseg.data.bands import CEMS_BANDS, SCALE
from fireseg.data.scene_normalisation import compute_scaling, find_known
from fireseg.decision import softmax
from fireseg.errors import FiresegError
from fireseg.export.formats import Predict
from fireseg.pairs import split_pair
from fireseg.runs import TrainedModel
from fireseg.runs.patches import mirror_image, open_val_patches, select_evenly
from fireseg.runtime.onnx import DeployedModel
from fireseg.synthetic.scene import make_scene

log = logging.getLogger("fireseg")

MAX_DIFFERENCE = 1e-4
"""Largest accepted difference of a probability."""

MAX_DIFFERENCE_MLFLOW = 0.02
"""The same for models of MLflow, which hold the checkpoint itself, and may compute in half precision as maps do."""

MAX_PATCHES = 32

_SYNTHETIC_PATCHES, _SYNTHETIC_PX = 8, 256


@dataclass(frozen=True, kw_only=True)
class ParityImages:
    """Images that the models are compared on.

    Attributes:
        images: Reflectance, `(C, H, W)` float32 each, H and W multiples of 32.
        source: `val patches` or `synthetic scenes`.
        note: Folder of the patches, or the reason why they are not used.
    """

    images: Sequence[NDArray[np.float32]]
    source: str
    note: str


def collect_images(trained: TrainedModel, data: Any = None, *, size: int | None = None) -> ParityImages:
    """Reads evenly spaced val patches of the run, or makes synthetic scenes if its patches are not available.

    Args:
        trained: Model with the folder of its run.
        data: Folder of the patches given by the user, or None.
        size: Height and width in pixels that patches are repeated or cropped to; None for multiples of 32.

    Raises:
        FiresegError: If the folder given by the user does not exist, or does not hold such patches.
    """
    try:
        module = open_val_patches(trained, data, as_stored=True)
        images = [module.val[number].image for number in select_evenly(len(module.val), MAX_PATCHES)]
        found = ParityImages(images=[], source="val patches", note=" ".join(map(str, module.roots)))
    except FiresegError as error:
        if data is not None:
            raise
        reason = error.faults[0]
        log.warning("the export is compared on synthetic scenes, because the val patches are not available: %s", reason)
        images = [_make_image(trained.bands, number) for number in range(_SYNTHETIC_PATCHES)]
        found = ParityImages(images=[], source="synthetic scenes", note=reason)
    fitted = [mirror_image(_round(np.asarray(image, np.float32)), size) for image in images]
    return ParityImages(images=fitted, source=found.source, note=found.note)


def _make_image(bands: Sequence[str], number: int) -> NDArray[np.float32]:
    images = []
    # Any other scene does for the one before the fire.
    for seed, names in enumerate(filter(None, split_pair(bands))):
        reflectance = make_scene(seed, number, height=_SYNTHETIC_PX, width=_SYNTHETIC_PX).reflectance
        # B10 measures no ground; any values do for a comparison.
        channels = [CEMS_BANDS.index(band) if band in CEMS_BANDS else 0 for band in names]
        images.append(reflectance[..., channels].transpose(2, 0, 1))
    return np.concatenate(images)


def _round(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rounds reflectance to the steps of maps, without the 0 of pixels that were not measured."""
    return (np.rint(np.clip(image, 1 / SCALE, 1.0) * SCALE) / SCALE).astype(np.float32)


def _make_relative(batch: NDArray[np.float32], trained: TrainedModel) -> NDArray[np.float32]:
    """Returns what the model of the run takes: each image relative to itself, if it was trained so."""
    if not trained.is_scene_relative:
        return batch
    images = batch.transpose(0, 2, 3, 1)
    relative = [compute_scaling(image[find_known(image)], trained.bands).apply(image) for image in images]
    return np.ascontiguousarray(np.stack(relative).transpose(0, 3, 1, 2))


def compare_outputs(
    trained: TrainedModel,
    predict: Predict,
    images: ParityImages,
    *,
    temperature: float | None,
    threshold: float,
    is_static: bool,
    limit: float | None = MAX_DIFFERENCE,
) -> dict[str, Any]:
    """Compares the outputs of an exported model with those of the run, as probabilities.

    Args:
        trained: Model of the run.
        predict: The exported model.
        images: Images to compare on.
        temperature: Temperature inside of the exported model; None if it gives logits.
        threshold: Lowest fire probability that counts as burned.
        is_static: True if the exported model takes single images of one size only; else a batch of two smaller
            images is compared as well.
        limit: Largest accepted difference; None if any finite probability is accepted.

    Returns:
        `max_difference` and `mean_difference` of probabilities, `changed_share` of pixels whose decision differs,
        `limit`, `images`, `source`, `note`, `shapes`.

    Raises:
        FiresegError: If a probability differs by more than the limit, or is not finite.
    """
    # In float32 without mixed precision: the file has the weights of the checkpoint.
    reference = DeployedModel(trained.model, temperature=temperature)
    batches = [image[None] for image in images.images]
    if not is_static:
        batches.append(np.stack([image[:, :64, :64] for image in ([*images.images, *images.images])[:2]]))
    largest, total, num_values, num_changed, num_pixels = 0.0, 0.0, 0, 0, 0
    for batch in batches:
        with torch.inference_mode():
            expected = reference(torch.from_numpy(_make_relative(batch, trained))).numpy()
        result = predict(batch)
        if temperature is None:
            expected, result = softmax(expected), softmax(result)
        if result.shape[1] < expected.shape[1]:
            expected = np.stack([expected[:, 0], 1 - expected[:, 0]], axis=1)
        difference = np.abs(result.astype(np.float64) - expected)
        # NaN is not larger than the limit.
        largest = max(largest, float(difference.max())) if np.isfinite(difference).all() else np.inf
        total, num_values = total + float(difference.sum()), num_values + difference.size
        num_changed += int(((1 - result[:, 0] >= threshold) != (1 - expected[:, 0] >= threshold)).sum())
        num_pixels += expected[:, 0].size
    if not largest <= (1.0 if limit is None else limit):
        text = f"differ by {largest:.2g} from those of the run" if np.isfinite(largest) else "are not finite"
        raise FiresegError(
            f"{trained.checkpoint}: the probabilities of the exported model {text}, but at most {limit or 1:g} is "
            "accepted, so nothing was written; use another format with --to, or another version of its library"
        )
    return {
        "max_difference": largest,
        "mean_difference": total / num_values,
        "changed_share": num_changed / num_pixels,
        "limit": limit,
        "images": len(images.images),
        "source": images.source,
        "note": images.note,
        "shapes": sorted({batch.shape for batch in batches}),
    }
