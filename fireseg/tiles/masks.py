"""Checks and converts the values of CEMS masks."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fireseg.data.statistics import count_values
from fireseg.errors import FiresegError, join_names
from fireseg.task import IGNORE_INDEX, SHADOW, TASKS

MaskKind = Literal["DEL", "GRA", "CM"]

NUM_VALUES: dict[MaskKind, int] = {
    "DEL": TASKS["del"].num_classes,
    "GRA": TASKS["gra"].num_classes,
    "CM": SHADOW + 1,
}

_MAX_VALUES_SHOWN = 5


def normalize_mask(values: NDArray[Any], kind: MaskKind, nodata: float | None) -> tuple[NDArray[np.uint8], list[str]]:
    """Converts a mask to uint8, with 255 for unknown pixels.

    Args:
        values: Values of the raster, `(H, W)` of any numeric type.
        kind: DEL (0, 1), GRA (0 to 4) or CM (0 to 3). DEL and GRA may also hold 255.
        nodata: Nodata tag of the raster.

    Returns:
        The mask, and warnings about suspicious values.

    Raises:
        FiresegError: If a value is invalid for this kind of mask.
    """
    num_values = NUM_VALUES[kind]
    flags = []
    unknown = np.isnan(values) if values.dtype.kind == "f" else None
    if nodata is not None and not math.isnan(nodata):
        if nodata in range(num_values):
            flags.append(
                f"nodata tag {nodata:g} is also a value of {kind} and is ignored; "
                f"set the tag to {IGNORE_INDEX}, or unset it with gdal_edit.py -unsetnodata"
            )
        else:
            tagged = values == nodata
            unknown = tagged if unknown is None else unknown | tagged
    _check_values(values, unknown, kind)
    if unknown is not None and unknown.any():
        values = np.where(unknown, IGNORE_INDEX, values)
    mask = values.astype(np.uint8)
    if kind == "DEL" and not (mask == 1).any() and (num_unknown := int((mask == IGNORE_INDEX).sum())):
        flags.append(
            f"no pixel is 1, but {num_unknown} pixels are {IGNORE_INDEX}, which means unknown; "
            "if they are burned, set them to 1"
        )
    return mask, flags


def _check_values(values: NDArray[Any], unknown: NDArray[np.bool_] | None, kind: MaskKind) -> None:
    known = values if unknown is None or not unknown.any() else values[~unknown]
    present = count_values(known) if known.dtype == np.uint8 else np.unique(known).tolist()
    allowed = {*range(NUM_VALUES[kind])} | ({IGNORE_INDEX} if kind != "CM" else set())
    if invalid := [value for value in present if value not in allowed]:
        shown = join_names([f"{value:g}" for value in invalid], _MAX_VALUES_SHOWN)
        also = f" and {IGNORE_INDEX} for unknown" if kind != "CM" else ""
        raise FiresegError(
            f"{'value' if len(invalid) == 1 else 'values'} {shown}, but {kind} has 0 to {NUM_VALUES[kind] - 1}{also}; "
            "check that the file is this kind of mask"
        )
