"""What values look like that are no reflectance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fireseg.data.reflectance import SCALE
from fireseg.data.tiles.digital_numbers import Scaling

_OFFSET = "the offset of 1000 that digital numbers have since processing baseline 04.00"


def list_flags(sample: NDArray[Any], scaling: Scaling) -> list[str]:
    """Says what some pixels of a tile look like, if not like reflectance.

    Nothing here is proof, so nothing is changed: a desert may be bright throughout, a lake dark.

    Args:
        sample: `(C, N)` values as the raster holds them, of pixels known in every band.
        scaling: How they become levels.
    """
    if sample.shape[1] == 0:
        return ["no pixel has a value in every band wanted"]
    is_number = sample.dtype.kind in "iu"
    blank = (sample == 0).all(axis=0)
    flags = [_describe_blank(float(blank.mean()))] if blank.any() and not is_number else []
    raw = sample[:, ~blank].astype(np.float64)
    values = (raw * scaling.gains.astype(np.float64)[:, None] + scaling.biases[:, None]) / SCALE
    if (low := float(values.min(initial=0.0))) < -1:
        flags.append(
            f"values down to {raw.min():.6g}: looks like a nodata value without its tag; "
            "set it with gdal_edit.py -a_nodata"
        )
        values = values[:, (values >= -1).all(axis=0)] if low < -1 else values
    if values.shape[1]:
        flags += list(_judge_scale(raw, values, is_number) or _judge_darkness(values, is_number))
    return flags


def _describe_blank(share: float) -> str:
    return (
        f"{100 * share:.2g} % of the pixels are 0 in every band: looks like the ground beyond the satellite's swath; "
        "write NaN there, so that it is not learnt as unburned"
    )


def _judge_scale(raw: NDArray[np.float64], values: NDArray[np.float64], is_number: bool) -> list[str]:
    """A flag if the brightest or the darkest values are out of all proportion."""
    top, bottom = (float(np.percentile(values, share, axis=1).max()) for share in (99, 0.1))
    low, highest = float(np.percentile(values, 1, axis=1).min()), float(raw.max())
    span = f"values from {raw.min():.4g} to {highest:.4g}"
    if is_number:
        if highest <= 255:
            return [f"{span}: look like 8 bits of a picture, or percent, not like digital numbers of Sentinel-2"]
        if top > 2:
            return [f"{span}: look stretched over 16 bits, not like digital numbers of Sentinel-2, reflectance x 10000"]
        return []
    cure = "reflectance is wanted, mostly 0 to 1"
    if top > 255:
        return [f"{span}: look like digital numbers; divide by 10000 (after subtracting the offset), {cure}"]
    if top > 2:
        is_whole = bool((raw == np.rint(raw)).all())
        what = "8 bits of a picture" if is_whole or top > 120 else "percent; divide by 100"
        return [f"{span}: look like {what}, but {cure}"]
    if low < -0.2:
        return [f"{span}: look normalised by mean and standard deviation, but {cure}; undo that"]
    if top < 0.01:
        return [f"{span}: all but black; divided by 10000 once too often? {cure}"]
    brightest = np.percentile(values, 99.9, axis=1)
    if len(values) > 2 and bottom <= 0 and (brightest == 1).all():
        return [f"{span} in every band: look stretched for display, but {cure}"]
    return []


def _judge_darkness(values: NDArray[np.float64], is_number: bool) -> Iterator[str]:
    """A flag if the darkest pixels are brighter or darker than any shadow is."""
    dark = np.percentile(values, 0.1, axis=1)
    low, high = float(dark.min()), float(dark.max())
    # Shadow and water are near 0 in every band. With the offset left on, they are near 0.1, and what
    # a scene has of leaves or soil instead is a little above; a desert is far above in the infrared.
    if low >= 0.085 and low <= 0.17 and high <= 0.30:
        cure = "give --offset 1000" if is_number else "subtract 0.1"
        yield f"the darkest pixels are {low:.2f} to {high:.2f} in every band: looks like {_OFFSET} left on; {cure}"
    elif float(np.percentile(values, 1, axis=1).min()) < -0.02:
        cure = "give --offset 0" if is_number else "add 0.1"
        yield f"reflectance down to {values.min():.2f}: looks like {_OFFSET} taken away twice; {cure}"
