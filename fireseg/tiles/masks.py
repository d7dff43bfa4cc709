"""Values of a mask, checked against what they can mean."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fireseg.data.statistics import count_values
from fireseg.errors import FiresegError
from fireseg.task import DELINEATION_CLASSES, GRADING_CLASSES, IGNORE_INDEX

MaskKind = Literal["DEL", "GRA", "CM"]

CLEAR, CLOUD, LIGHT_CLOUD, SHADOW = range(4)
"""Values of a cloud mask."""

NUM_VALUES: dict[MaskKind, int] = {"DEL": len(DELINEATION_CLASSES), "GRA": len(GRADING_CLASSES), "CM": SHADOW + 1}

_VALUES_SHOWN = 5


def normalize_mask(values: NDArray[Any], kind: MaskKind, nodata: float | None) -> tuple[NDArray[np.uint8], list[str]]:
    """A mask as uint8, with 255 where nothing is known.

    Args:
        values: What the raster holds, `(H, W)` of any number type.
        kind: DEL (0, 1), GRA (0 to 4) or CM (0 to 3). The first two may hold 255.
        nodata: The raster's nodata tag.

    Returns:
        The mask, and what looks strange though it stops nothing.

    Raises:
        FiresegError: If a value exists that means nothing.
    """
    num_values = NUM_VALUES[kind]
    flags = []
    unknown = np.isnan(values) if values.dtype.kind == "f" else None
    if nodata is not None and not math.isnan(nodata):
        if nodata in range(num_values):
            flags.append(
                f"nodata tag {nodata:g} is also a value of {kind}, and taken for that; "
                f"tag {IGNORE_INDEX}, or unset it with gdal_edit.py -unsetnodata"
            )
        else:
            tagged = values == nodata
            unknown = tagged if unknown is None else unknown | tagged
    _refuse_strange(values, unknown, kind)
    if unknown is not None and unknown.any():
        values = np.where(unknown, IGNORE_INDEX, values)
    mask = values.astype(np.uint8)
    if kind == "DEL" and not (mask == 1).any() and (num_unknown := int((mask == IGNORE_INDEX).sum())):
        flags.append(
            f"no pixel is 1, but {num_unknown} are {IGNORE_INDEX}, which is taken for unknown; "
            "if it was to mean burned, write 1 there"
        )
    return mask, flags


def _refuse_strange(values: NDArray[Any], unknown: NDArray[np.bool_] | None, kind: MaskKind) -> None:
    known = values if unknown is None or not unknown.any() else values[~unknown]
    found = count_values(known) if known.dtype == np.uint8 else np.unique(known).tolist()
    allowed = {*range(NUM_VALUES[kind])} | ({IGNORE_INDEX} if kind != "CM" else set())
    if strange := [value for value in found if value not in allowed]:
        shown = ", ".join(f"{value:g}" for value in strange[:_VALUES_SHOWN]) + ", …" * (len(strange) > _VALUES_SHOWN)
        also = f" and {IGNORE_INDEX} for unknown" if kind != "CM" else ""
        raise FiresegError(
            f"{'value' if len(strange) == 1 else 'values'} {shown}, but {kind} has 0 to {NUM_VALUES[kind] - 1}{also}; "
            "is it another mask under this name?"
        )
