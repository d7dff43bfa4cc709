"""Which channel of a raster is which band of Sentinel-2."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fireseg.data.bands import CEMS_BANDS, SENTINEL2_BANDS
from fireseg.errors import FiresegError

_BAND = re.compile(r"(?<![a-z0-9])b(?:and)?[\s_-]*0*(?P<number>\d{1,2})(?P<letter>a?)(?![a-z0-9])", re.IGNORECASE)
_PLAIN = re.compile(r"b(?:and)?[\s_-]*(?P<number>[1-9]\d*)", re.IGNORECASE)

_KNOWN_ORDERS = {len(order): order for order in (CEMS_BANDS, SENTINEL2_BANDS)}


def name_band(description: str | None) -> str | None:
    """The band that a description names, however it is written.

    Example:
        >>> name_band("Band 2 - Blue"), name_band("b8a"), name_band("elevation")
        ('B02', 'B8A', None)
    """
    match = _BAND.search(description or "")
    if match is None:
        return None
    number, letter = int(match["number"]), match["letter"].upper()
    name = f"B{number}{letter}" if letter else f"B{number:02d}"
    return name if name in SENTINEL2_BANDS else None


def name_channels(descriptions: Sequence[str | None]) -> tuple[str | None, ...]:
    """The band of every channel.

    Descriptions decide where there are any. Without, twelve channels are the bands of level 2A in their
    known order and thirteen those of the instrument. Nothing is guessed beyond that.

    Args:
        descriptions: One a channel, as the raster has them.

    Returns:
        A band a channel, None for a channel that is none (a mask, an elevation).

    Raises:
        FiresegError: If the bands cannot be told, or one comes twice.
    """
    count = len(descriptions)
    if not any(descriptions) or _are_numbers(descriptions):
        if count not in _KNOWN_ORDERS:
            raise FiresegError(
                f"{count} channels that no description names, but only 12 (level 2A) and 13 (all) have a known order; "
                "write the band into each channel's description, such as B02"
            )
        return _KNOWN_ORDERS[count]
    names = tuple(name_band(description) for description in descriptions)
    found = [name for name in names if name is not None]
    if not found:
        shown = ", ".join(f"'{description}'" for description in descriptions[:4] if description)
        raise FiresegError(
            f"descriptions {shown} name no band of Sentinel-2; write the band into each channel's description, as B02"
        )
    if twice := sorted({name for name in found if found.count(name) > 1}):
        raise FiresegError(f"{', '.join(twice)} described twice; each band is wanted once")
    return names


def pick_channels(
    descriptions: Sequence[str | None], bands: Sequence[str], *, cure: str = "choose among these with --bands"
) -> list[int]:
    """Where in a raster the wanted bands are, counted from 0, in the order wanted.

    Args:
        descriptions: One a channel, as the raster has them.
        bands: Names such as `B08`.
        cure: What to do where one is not there.

    Raises:
        FiresegError: If the bands cannot be told, or one that is wanted is not there.

    Example:
        >>> pick_channels(["B04", "B08", "Band 12"], ["B12", "B04"])
        [2, 0]
    """
    names = name_channels(descriptions)
    if missing := [band for band in bands if band not in names]:
        there = " ".join(name for name in names if name is not None)
        raise FiresegError(f"no {' '.join(missing)}, only {there}; {cure}")
    return [names.index(band) for band in bands]


def _are_numbers(descriptions: Sequence[str | None]) -> bool:
    """Whether they only count the channels (`Band 1`, `Band 2`, …), as some programs do by themselves.

    Up to `Band 8` and from `Band 9` on such a count would pass for names, and be wrong from the ninth on.
    """
    matches = [_PLAIN.fullmatch((description or "").strip()) for description in descriptions]
    return all(match and int(match["number"]) == place for place, match in enumerate(matches, 1))
