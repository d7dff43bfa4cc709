"""Sentinel-2 bands, and the mapping of stored channels to the bands of a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fireseg.errors import FiresegError, did_you_mean
from fireseg.pairs import add_pre_bands, describe_wrong_pair

SENTINEL2_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
"""The thirteen bands of the instrument, in its own order."""

CEMS_BANDS = tuple(band for band in SENTINEL2_BANDS if band != "B10")
"""The twelve bands of a level-2A product; B10 does not see the ground and is dropped by atmospheric correction."""

BAND_NAMES = ("B02", "B03", "B04", "B08", "B8A", "B11", "B12")
"""The seven bands of this project: visible, near and short-wave infrared."""

WAVELENGTH_NM: dict[str, int] = dict(
    zip(SENTINEL2_BANDS, (443, 492, 560, 665, 704, 740, 783, 833, 865, 945, 1374, 1614, 2202), strict=True),
)
"""Centre wavelengths of the bands of Sentinel-2A, in nanometres."""

NUM_INPUT_CHANNELS = len(BAND_NAMES)

SCALE = 10000
"""Factor from reflectance to stored integers, the resolution of the Sentinel-2 product itself."""

MIN_REFLECTANCE, MAX_REFLECTANCE = -0.2, 2.0
"""Plausible range: atmospheric correction gives values a little below 0, bright cloud exceeds 1."""

MIN_DIGITAL_NUMBER = 255
"""Values of supposed reflectance above this are digital numbers; those of percent or of 8 bits do not exceed it."""

RASTER_BAND_ORDERS = {len(order): order for order in (CEMS_BANDS, SENTINEL2_BANDS)}
"""Band orders of rasters without band descriptions, by number of channels."""

_PATCH_BAND_ORDERS = {len(BAND_NAMES): BAND_NAMES, **RASTER_BAND_ORDERS}


def check_bands(bands: Sequence[str]) -> tuple[str, ...]:
    """Checks that all bands are known and none is repeated, and returns them as a tuple.

    Args:
        bands: 1 to 13 names such as `B08`, and behind them perhaps those of a scene before the fire, such as `B08_PRE`.

    Raises:
        ValueError: If there are none, one is unknown or repeated, or those before the fire are not the last.
    """
    known = add_pre_bands(SENTINEL2_BANDS)
    faults = [f"no band '{band}'{did_you_mean(band, known)}" for band in bands if band not in known]
    faults += [f"{band} is repeated" for band in sorted({band for band in bands if bands.count(band) > 1})]
    if fault := describe_wrong_pair(bands):
        faults.append(fault)
    if not bands:
        faults.append("empty; name 1 to 13 of " + ", ".join(SENTINEL2_BANDS))
    if faults:
        raise ValueError("; ".join(faults))
    return tuple(bands)


def select_bands(num_channels: int, bands: Sequence[str], stored: Sequence[str] | None = None) -> list[int] | None:
    """Returns the channels of a stored patch that hold the given bands.

    If the stored bands are recorded, channels are selected by name. If not, a patch with as many channels as
    there are bands is assumed to hold exactly these, in this order; one of 7, 12 or 13 channels holds the
    project's seven, the twelve of level 2A or the instrument's thirteen.

    Args:
        num_channels: Number of channels of the stored patch.
        bands: Requested bands.
        stored: Band of each channel, or None if not recorded.

    Returns:
        Channel indices in the order of `bands`, or None for all channels as stored.

    Raises:
        FiresegError: If the channels are unknown or a requested band is not among them.

    Example:
        >>> select_bands(12, ("B02", "B12"))
        [1, 11]
    """
    if stored is not None:
        return _select_by_name(num_channels, bands, stored)
    if num_channels == len(bands):
        return None
    order = _PATCH_BAND_ORDERS.get(num_channels, ())
    if missing := [band for band in bands if band not in order]:
        content = f"assumed to be {' '.join(order)}, without {' '.join(missing)}" if order else "in no known band order"
        raise FiresegError(
            f"data.bands: {len(bands)} bands ({' '.join(bands)}), but the patches have {num_channels} channels, "
            f"{content}; name the bands that the patches hold"
        )
    return [order.index(band) for band in bands]


def _select_by_name(num_channels: int, bands: Sequence[str], stored: Sequence[str]) -> list[int] | None:
    if num_channels != len(stored):
        raise FiresegError(
            f"the patches have {num_channels} channels, but their manifest names {len(stored)} bands "
            f"({' '.join(stored)}); prepare the patches again"
        )
    if missing := [band for band in bands if band not in stored]:
        raise FiresegError(
            f"data.bands: {' '.join(bands)}, but the patches were made with {' '.join(stored)}, without "
            f"{' '.join(missing)}; name bands that they hold, or prepare them again with "
            f"{'--pre' if set(missing) <= set(add_pre_bands(stored)) else '--bands'}"
        )
    channels = [stored.index(band) for band in bands]
    return None if channels == list(range(num_channels)) else channels


def to_reflectance(stored: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Converts stored integers to reflectance.

    All readers and writers of patches share this division: a multiplication by 1e-4 differs in the last bit,
    which changes every trained model.

    Args:
        stored: Reflectance times 10000, of any shape and strides. Not modified.

    Returns:
        Reflectance in a new contiguous array.

    Example:
        >>> to_reflectance(np.array([0, 2500, 10000], np.uint16)).tolist()
        [0.0, 0.25, 1.0]
    """
    image = stored.astype(np.float32, order="C")
    image /= np.float32(SCALE)
    return image
