"""The bands of Sentinel-2, and which of them a model sees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fireseg.errors import FiresegError, did_you_mean

SENTINEL2_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
"""The thirteen bands of the instrument, in its own order."""

CEMS_BANDS = tuple(band for band in SENTINEL2_BANDS if band != "B10")
"""The twelve bands of a level-2A product: B10 sees no ground and is dropped by atmospheric correction."""

BAND_NAMES = ("B02", "B03", "B04", "B08", "B8A", "B11", "B12")
"""The seven bands of this project: visible, near and short-wave infrared."""

NUM_INPUT_CHANNELS = len(BAND_NAMES)

RASTER_BAND_ORDERS = {len(order): order for order in (CEMS_BANDS, SENTINEL2_BANDS)}
"""Band orders of rasters without band descriptions, by number of channels."""

_PATCH_BAND_ORDERS = {len(BAND_NAMES): BAND_NAMES, **RASTER_BAND_ORDERS}


def check_bands(bands: Sequence[str]) -> tuple[str, ...]:
    """The bands, if all are Sentinel-2's and none comes twice.

    Args:
        bands: 1 to 13 names such as `B08`.

    Raises:
        ValueError: If there is none, one is unknown, or one comes twice.
    """
    faults = [f"no band '{band}'{did_you_mean(band, SENTINEL2_BANDS)}" for band in bands if band not in SENTINEL2_BANDS]
    faults += [f"{band} comes twice" for band in sorted({band for band in bands if bands.count(band) > 1})]
    if not bands:
        faults.append("no band at all; name 1 to 13 of " + ", ".join(SENTINEL2_BANDS))
    if faults:
        raise ValueError("; ".join(faults))
    return tuple(bands)


def select_bands(num_channels: int, bands: Sequence[str], stored: Sequence[str] | None = None) -> list[int] | None:
    """Which channels of a patch are the wanted bands.

    Where it is written down which bands are stored, the wanted ones are picked by name. Where it is
    not, a patch with as many channels as bands wanted holds just these, in this order; one of 7, 12 or
    13 channels holds the project's seven, the twelve of level 2A or the instrument's thirteen.

    Args:
        num_channels: Channels of the stored patch.
        bands: The bands wanted.
        stored: The band of each channel, where that is known.

    Returns:
        Channel positions in the order of `bands`, or None for all as they are.

    Raises:
        FiresegError: If the channels cannot be told or do not hold a wanted band.

    Example:
        >>> select_bands(12, ("B02", "B12"))
        [1, 11]
    """
    if stored is not None:
        return _select_stored(num_channels, bands, stored)
    if num_channels == len(bands):
        return None
    order = _PATCH_BAND_ORDERS.get(num_channels, ())
    if missing := [band for band in bands if band not in order]:
        held = f"the order {' '.join(order)}, without {' '.join(missing)}" if order else "no known order of bands"
        raise FiresegError(
            f"data.bands: {len(bands)} bands ({' '.join(bands)}), but the patches have {num_channels} channels, "
            f"{held}; name the bands that the patches hold"
        )
    return [order.index(band) for band in bands]


def _select_stored(num_channels: int, bands: Sequence[str], stored: Sequence[str]) -> list[int] | None:
    if num_channels != len(stored):
        raise FiresegError(
            f"the patches have {num_channels} channels, but their manifest names {len(stored)} bands "
            f"({' '.join(stored)}); make the patches anew"
        )
    if missing := [band for band in bands if band not in stored]:
        raise FiresegError(
            f"data.bands: {' '.join(bands)}, but the patches were made with {' '.join(stored)}, without "
            f"{' '.join(missing)}; name bands that they hold, or make them anew with --bands"
        )
    channels = [stored.index(band) for band in bands]
    return None if channels == list(range(num_channels)) else channels


SCALE = 10000
"""Packed patches hold reflectance times this, rounded: as fine as the product itself."""


def to_reflectance(stored: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Reflectance of stored numbers, by the one division that all who read or write patches share.

    A multiplication by 1e-4 would differ in the last bit, and with it everything that is trained.

    Args:
        stored: Reflectance times 10000, of any shape and strides. Left as it is.

    Returns:
        New and contiguous.

    Example:
        >>> to_reflectance(np.array([0, 2500, 10000], np.uint16)).tolist()
        [0.0, 0.25, 1.0]
    """
    image = stored.astype(np.float32, order="C")
    image /= np.float32(SCALE)
    return image
