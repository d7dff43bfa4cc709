"""What becomes of a pixel in a picture: reflectance, class or agreement in, colour out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fireseg.task import Task

Pixels = Tensor | np.ndarray

# Dark, orange and blue differ for every kind of colour vision, and in a grey print by lightness.
AGREEMENT = {
    "unburned in both": "#d9d9d9",
    "false alarm": "#d55e00",
    "miss": "#56b4e9",
    "burned in both": "#3d3d3d",
}
"""What truth and prediction say together, in the order of the codes of `compare`, and its colour."""

UNLABELLED = ("#ffffff", "#8c8c8c")
"""The two colours of the stripes that mark pixels nobody labelled."""

_TRUE_COLOUR = ("B04", "B03", "B02")
_SHORT_WAVE = tuple((swir, nir, "B04") for swir in ("B12", "B11") for nir in ("B8A", "B08"))

# Reflectances that fill a colour: fixed, so that one shade is one reflectance in every picture.
_BRIGHTEST = {"B02": 0.35, "B03": 0.35, "B04": 0.35}
_BRIGHTEST_INFRARED = 0.45
_GAMMA = 1 / 1.2


class Recipe(NamedTuple):
    """Which bands a composite shows as red, green and blue (or one as grey), and how to read it."""

    bands: tuple[str, ...]
    caption: str


def choose_recipe(bands: Sequence[str]) -> Recipe:
    """The composite that tells burned land best, of those that the bands allow.

    Short-wave and near infrared with red (burned land dark red, vegetation green), else true
    colour, else the first three bands, else the first one in grey.

    Example:
        >>> choose_recipe(("B02", "B03", "B04", "B08", "B12")).bands
        ('B12', 'B08', 'B04')
    """
    for wanted in _SHORT_WAVE:
        if set(wanted) <= set(bands):
            reading = "burned land dark red or brown, vegetation green"
            return Recipe(wanted, f"short-wave infrared {_spell(wanted)}; {reading}")
    if set(_TRUE_COLOUR) <= set(bands):
        return Recipe(_TRUE_COLOUR, f"true colour {_spell(_TRUE_COLOUR)}")
    if len(bands) >= 3:
        return Recipe(tuple(bands[:3]), f"first three bands {_spell(bands[:3])}")
    return Recipe((bands[0],), f"{bands[0]} in grey")


def composite(image: Pixels, bands: Sequence[str]) -> np.ndarray:
    """A picture of a patch or scene by `choose_recipe`.

    Args:
        image: Surface reflectance, `(C, H, W)`.
        bands: The C bands of the image, in order.

    Returns:
        `(H, W, 3)` uint8; mid-grey where a band that is shown has no finite value.
    """
    recipe = choose_recipe(bands).bands
    shown = torch.as_tensor(image)[[list(bands).index(band) for band in recipe]].detach().float().cpu().numpy()
    is_known = np.asarray(np.isfinite(shown).all(axis=0))
    brightest = np.array([_BRIGHTEST.get(band, _BRIGHTEST_INFRARED) for band in recipe], np.float32)
    scaled = np.where(is_known, shown, 0) / brightest[:, None, None]
    tones = np.rint(255 * scaled.clip(0, 1) ** _GAMMA).astype(np.uint8)
    picture = np.broadcast_to(tones, (3, *is_known.shape)).transpose(1, 2, 0)
    return np.where(is_known[..., None], picture, np.uint8(128))


def colour_classes(mask: Pixels, task: Task) -> np.ndarray:
    """A mask or prediction in the task's colours.

    Args:
        mask: Class of every pixel, `(H, W)`.
        task: What the values mean.

    Returns:
        `(H, W, 3)` uint8; what is no class is striped.
    """
    return _paint(to_array(mask), task.colours)


def colour_agreement(truth: Pixels, prediction: Pixels, task: Task) -> np.ndarray:
    """Where truth and prediction agree on burned or not, in the colours of `AGREEMENT`.

    Args:
        truth: Class of every pixel, `(H, W)`.
        prediction: The predicted class, `(H, W)`.
        task: What the values mean.

    Returns:
        `(H, W, 3)` uint8; what nobody labelled is striped.
    """
    return _paint(compare(truth, prediction, task), tuple(AGREEMENT.values()))


def compare(truth: Pixels, prediction: Pixels, task: Task) -> np.ndarray:
    """Truth and prediction as one code a pixel, on burned or not, whatever the grade.

    Returns:
        uint8 of the same shape: 0 unburned in both, 1 false alarm, 2 miss, 3 burned in both, 255
        where nobody labelled.

    Example:
        >>> from fireseg.task import Task
        >>> task = Task(name="del", num_classes=2, class_names=("background", "fire"))
        >>> compare(np.array([[0, 0, 1, 1, 255]]), np.array([[0, 1, 0, 1, 1]]), task).tolist()
        [[0, 1, 2, 3, 255]]
    """
    true, predicted = to_array(truth), to_array(prediction)
    code = 2 * (true > 0).astype(np.uint8) + (predicted > 0)
    return np.where(true == task.ignore_index, np.uint8(255), code)


def to_array(pixels: Pixels) -> np.ndarray:
    """The same numbers for numpy, whatever device they are on."""
    return torch.as_tensor(pixels).detach().cpu().numpy()


def _paint(values: np.ndarray, colours: Sequence[str]) -> np.ndarray:
    """Pixels in the colour of their value; values beyond the colours get diagonal stripes."""
    width = max(1, min(values.shape) // 32)
    stripes = np.add.outer(np.arange(values.shape[0]), np.arange(values.shape[1])) // width % 2
    table = np.array([list(bytes.fromhex(colour[1:])) for colour in (*colours, *UNLABELLED)], np.uint8)
    return table[np.where(values < len(colours), values, len(colours) + stripes)]


def _spell(bands: Sequence[str]) -> str:
    return f"{' '.join(bands)} as red, green, blue"
