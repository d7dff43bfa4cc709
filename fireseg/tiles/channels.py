"""Identifies the Sentinel-2 band of each channel of a raster."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader

from fireseg.console import format_count
from fireseg.data.bands import CEMS_BANDS, RASTER_BAND_ORDERS, SENTINEL2_BANDS
from fireseg.errors import FiresegError, did_you_mean

_BAND = re.compile(
    r"(?<![a-z0-9])(?:sr_?)?b(?:and)?[\s_-]*0*(?P<number>\d{1,2})(?P<letter>a?)(?![a-z0-9])", re.IGNORECASE
)

# Words of statistics and other quantities of a band, whose values are no reflectance.
_OTHER_QUANTITY = re.compile(
    r"(?<![a-z])(std\w*|stdev|variance|clouds?|mask|prob\w*|counts?|qa\w*|quality|angles?|zenith|azimuth|uncertainty|errors?"
    r"|nd[a-z]i\w*|nbr\w*|d?nbr|ratio|diff\w*)(?![a-z])",
    re.IGNORECASE,
)

_COUNTER = re.compile(r"b(?:and)?[\s_-]*(?P<number>[1-9]\d*)", re.IGNORECASE)

# STAC common names (https://github.com/stac-extensions/eo, versions 1 and 2) and the words of the instrument's manual.
# `rededge` alone is the common name of three bands and is not understood.
_COMMON_NAMES = {
    "B01": ("coastal", "coastalaerosol", "aerosol"),
    "B02": ("blue",),
    "B03": ("green",),
    "B04": ("red",),
    "B05": ("rededge1", "rededge071", "vegetationrededge1", "re1"),
    "B06": ("rededge2", "rededge075", "vegetationrededge2", "re2"),
    "B07": ("rededge3", "rededge078", "vegetationrededge3", "re3"),
    "B08": ("nir", "nearinfrared", "widenir", "nirwide", "nirbroad"),
    "B8A": ("nir08", "narrownir", "nirnarrow", "nearinfraredplateau", "rededge4"),
    "B09": ("nir09", "watervapour", "watervapor"),
    "B10": ("cirrus", "swircirrus"),
    "B11": ("swir16", "swir1", "shortwaveinfrared1"),
    "B12": ("swir22", "swir2", "shortwaveinfrared2"),
}
_BAND_OF_COMMON_NAME = {word: band for band, words in _COMMON_NAMES.items() for word in words}

# Channels that are 0 where the raster has no measurement; SCL also has classes, of which 0 is "no data".
_VALIDITY_NAMES = ("datamask", "mask", "valid", "validmask", "validity", "alpha")
_CLASSIFICATION_NAMES = ("scl", "sceneclassification", "sceneclassificationmap", "sceneclassificationlayer")

MASK, SCL, OTHER = "mask", "SCL", "-"
"""Names that `--channels` takes besides bands: a validity mask, a scene classification, and any other channel."""

_MAX_SHOWN = 4

# Orders in which stacks are written by other programs: sorted by file name (B8A after B12), by resolution, by
# wavelength with the 60 m bands last, numbers sorted as text, and product order with red and blue exchanged.
_OTHER_ORDERS = tuple(
    tuple(order.split())
    for order in (
        "B01 B02 B03 B04 B05 B06 B07 B08 B09 B11 B12 B8A",
        "B02 B03 B04 B08 B05 B06 B07 B8A B11 B12 B01 B09",
        "B04 B03 B02 B08 B05 B06 B07 B8A B11 B12 B01 B09",
        "B02 B03 B04 B08 B8A B11 B12 B01 B05 B06 B07 B09",
        "B02 B03 B04 B05 B06 B07 B08 B8A B11 B12 B01 B09",
        "B01 B11 B12 B02 B03 B04 B05 B06 B07 B08 B8A B09",
        "B01 B04 B03 B02 B05 B06 B07 B08 B8A B09 B11 B12",
        "B01 B02 B03 B04 B05 B06 B07 B08 B8A B11 B12 B09",
        "B02 B03 B04 B05 B06 B07 B08 B8A B09 B11 B12 B01",
    )
)

_MAX_PATH_RATIO = 1.02


@dataclass(frozen=True, kw_only=True)
class ChannelNames:
    """Meaning of each channel of a raster.

    Attributes:
        bands: Band of each channel, None for a channel that is none.
        masks: Numbers from 1 of the channels that are 0 where nothing was measured.
        scl: Number from 1 of the channel with the scene classification; None without one.
        is_assumed: True if nothing names the bands, and the order of the product was assumed.
        ignored: Names of the channels that are neither bands nor masks.
    """

    bands: tuple[str | None, ...]
    masks: tuple[int, ...] = ()
    scl: int | None = None
    is_assumed: bool = False
    ignored: tuple[str, ...] = ()


def identify_channels(raster: DatasetReader, channels: Sequence[str] | None = None) -> ChannelNames:
    """Identifies the bands of a raster by `channels`, its band descriptions, or the source files of a VRT.

    Without any of these, twelve channels are assumed to be the bands of level 2A and thirteen those of the
    instrument, in the order of the product; `check_assumed_order` tells whether the values agree.

    Args:
        raster: Open raster.
        channels: Name of each channel (a band, `mask`, `SCL`, or `-` for any other), for a raster without
            descriptions.

    Raises:
        FiresegError: If the bands cannot be identified, one occurs twice, or `channels` does not fit the raster.
    """
    texts = _list_descriptions(raster)
    return name_channels(texts) if channels is None else apply_channels(channels, texts)


def name_channels(texts: Sequence[str | None]) -> ChannelNames:
    """Identifies the meaning of channels by their descriptions, None for a channel without one.

    Raises:
        FiresegError: If the bands cannot be identified, or one occurs twice.

    Example:
        >>> name_channels(["B04", "Narrow NIR", "dataMask"])
        ChannelNames(bands=('B04', 'B8A', None), masks=(3,), scl=None, is_assumed=False, ignored=())
    """
    count = len(texts)
    if not any(texts) or _are_counters(texts):
        if count not in RASTER_BAND_ORDERS:
            raise FiresegError(
                f"{format_count(count, 'channel')} without band descriptions, but only 12 (level 2A) and 13 (all "
                "bands) have a known order; name the channels in their order with --channels, such as "
                "--channels B02 B03 B04"
            )
        return ChannelNames(bands=RASTER_BAND_ORDERS[count], is_assumed=True)
    bands = tuple(parse_band_name(text) for text in texts)
    known = [band for band in bands if band is not None]
    if not known:
        shown = ", ".join(f"'{text}'" for text in texts[:_MAX_SHOWN] if text)
        raise FiresegError(
            f"descriptions {shown} name no Sentinel-2 band; name the channels in their order with --channels, "
            "such as --channels B02 B03 B04"
        )
    if repeated := sorted({band for band in known if known.count(band) > 1}):
        raise FiresegError(
            f"bands {', '.join(repeated)} are described twice; describe each band once, or name the channels in "
            "their order with --channels"
        )
    is_mask = [is_mask_name(text) for text in texts]
    return ChannelNames(
        bands=bands,
        masks=tuple(number for number, flag in enumerate(is_mask, 1) if flag),
        scl=next((number for number, text in enumerate(texts, 1) if is_scene_classification(text)), None),
        ignored=tuple(
            text or f"channel {number}"
            for number, (text, band, flag) in enumerate(zip(texts, bands, is_mask, strict=True), 1)
            if band is None and not flag
        ),
    )


def parse_band_name(text: str | None) -> str | None:
    """Parses the band name in a description, in any common spelling.

    Example:
        >>> parse_band_name("Band 2 - Blue"), parse_band_name("SRB8A"), parse_band_name("SWIR 1")
        ('B02', 'B8A', 'B11')
        >>> parse_band_name("elevation") is parse_band_name("rededge") is None
        True
    """
    matches = list(_BAND.finditer(text or ""))
    if matches and _OTHER_QUANTITY.search(text or ""):
        return None
    if len(matches) > 1 and re.match(r"band", matches[0][0], re.IGNORECASE):
        matches = matches[1:]  # `Band 9 (B8A)` counts the channels before it names the band
    names = {_format_band(match) for match in matches}
    if names:
        name = names.pop()
        return name if not names and name in SENTINEL2_BANDS else None
    return _BAND_OF_COMMON_NAME.get(_simplify(text))


def _format_band(match: re.Match[str]) -> str:
    number, letter = int(match["number"]), match["letter"].upper()
    return f"B{number}{letter}" if letter else f"B{number:02d}"


def is_mask_name(text: str | None) -> bool:
    """Returns True if a description names a channel that is 0 where nothing was measured."""
    return _simplify(text) in (*_VALIDITY_NAMES, *_CLASSIFICATION_NAMES)


def is_scene_classification(text: str | None) -> bool:
    """Returns True if a description names the scene classification (SCL) of level 2A."""
    return _simplify(text) in _CLASSIFICATION_NAMES


def find_channels(names: ChannelNames, bands: Sequence[str], hint: str = "choose from these with --bands") -> list[int]:
    """Returns the channels of the requested bands, counted from 0, in the order requested.

    Args:
        names: Meaning of the channels.
        bands: Band names such as `B08`.
        hint: Advice in the error for a missing band.

    Raises:
        FiresegError: If a requested band is missing.
    """
    if missing := [band for band in bands if band not in names.bands]:
        available = " ".join(name for name in names.bands if name is not None)
        noun = "band" if len(missing) == 1 else "bands"
        raise FiresegError(f"{noun} {' '.join(missing)} not found; available: {available}; {hint}")
    return [names.bands.index(band) for band in bands]


def describe_wrong_order(values: NDArray[Any]) -> str:
    """Describes why values contradict the order of the product; empty if they agree with it.

    Spectra of land are smooth: neighbouring bands are alike and vary together. The sum of the differences from each
    band to the next (their median relative difference, plus the spread of the logarithm of their ratio) is smallest
    in the right order. It is compared with the orders in which other programs write stacks. B8A must also be closer to
    B08 than B12 is, B12 not far darker than B01, and B10 of level 1C, which does not see the ground, the darkest band.

    Measured on 56 synthetic scenes of 128 px: in product order 56 are accepted, as reflectance, as digital numbers with
    the offset on, and as level 1C; all of 29 tiles of 50 px, too. Of `_OTHER_ORDERS`, two of level 1C and 6 random
    orders none is accepted, except 5 with only B09 moved to the end. Not measured on real scenes of twelve bands.

    Args:
        values: Raster values `(12 or 13, N)` in the order assumed, of pixels known in every band, as stored.
    """
    bands = RASTER_BAND_ORDERS[len(values)]
    by_band = dict(zip(bands, _select_land(values.astype(np.float64)), strict=True))
    if "B10" in by_band:
        medians = {band: float(np.median(plane)) for band, plane in by_band.items()}
        if min(medians, key=lambda band: medians[band]) != "B10":
            return "the eleventh channel is not the darkest, as B10 would be"
    if _distance(by_band["B08"], by_band["B12"]) <= _distance(by_band["B08"], by_band["B8A"]):
        return "the channel in the place of B12 is closer to B08 than that in the place of B8A"
    if np.median(by_band["B12"]) <= 0.7 * np.median(by_band["B01"]):
        return "the channel in the place of B12 is far darker than that in the place of B01"
    planes = [by_band[band] for band in CEMS_BANDS]
    lengths = {order: _path_length(planes, order) for order in _OTHER_ORDERS}
    best = min(_OTHER_ORDERS, key=lambda order: lengths[order])
    if _path_length(planes, CEMS_BANDS) > _MAX_PATH_RATIO * lengths[best]:
        return f"the spectra would be smoother in the order {' '.join(best)}"
    return ""


def _select_land(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Selects the pixels that are neither dark in all channels, as water is, nor bright in all, as cloud and snow are.

    Returns all pixels if fewer than 1 % are left.
    """
    shifted = values - np.percentile(values, 0.5)
    highest, lowest = shifted.max(axis=0), shifted.min(axis=0)
    is_land = (highest > 0.25 * np.percentile(highest, 95)) & (lowest < 0.4 * highest)
    return values[:, is_land] if is_land.mean() >= 0.01 else values


def _path_length(planes: Sequence[NDArray[np.float64]], order: Sequence[str]) -> float:
    """Sums the differences between neighbouring bands, if the planes are in that order."""
    by_band = dict(zip(order, planes, strict=True))
    ordered = [by_band[band] for band in CEMS_BANDS]
    return sum(_distance(a, b) + _spread(a, b) for a, b in pairwise(ordered))


def _distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Median relative difference, 0 to 1."""
    total = np.abs(a) + np.abs(b)
    return float(np.median(np.abs(a - b) / np.maximum(total, np.finfo(np.float64).tiny)))


def _spread(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Width of the middle 68 % of the logarithm of the ratio."""
    smallest = 1e-3 * max(float(np.percentile(np.abs(a), 99)), float(np.percentile(np.abs(b), 99)), 1e-12)
    ratio = np.log(np.maximum(a, smallest)) - np.log(np.maximum(b, smallest))
    low, high = np.percentile(ratio, (16, 84))
    return float(high - low)


def _list_descriptions(raster: DatasetReader) -> list[str | None]:
    """Lists the description of each channel; for a VRT the bands that the names of its source files hold."""
    texts = list(raster.descriptions)
    for index, text in enumerate(texts):
        if not text and raster.driver == "VRT":
            texts[index] = _find_source_band(raster, index + 1)
        if not texts[index] and raster.colorinterp[index] == ColorInterp.alpha:
            texts[index] = "alpha"
    return texts


def _find_source_band(raster: DatasetReader, number: int) -> str | None:
    """Finds the band in the file names of a channel's sources; None if they name none, or several."""
    sources = "".join(raster.tags(number, ns="vrt_sources").values())
    files = re.findall(r"<SourceFilename[^>]*>([^<]+)</SourceFilename>", sources)
    bands = {parse_band_name(part) for file in files for part in PurePosixPath(file.replace("\\", "/")).stem.split(".")}
    bands.discard(None)
    return bands.pop() if len(bands) == 1 else None


def apply_channels(channels: Sequence[str], texts: Sequence[str | None]) -> ChannelNames:
    """Identifies the meaning of channels by the names that the user gave, which must not contradict the descriptions.

    Args:
        channels: Name of each channel: a band, `mask`, `SCL`, or `-` for any other.
        texts: Description of each channel, None for a channel without one.

    Raises:
        FiresegError: If a name is unknown or contradicts its description, or the numbers differ; with all faults.
    """
    if len(channels) != len(texts):
        raise FiresegError(
            f"--channels names {format_count(len(channels), 'channel')}, but the raster has {len(texts)}; name all "
            f"of them, with {OTHER} for one that is no band"
        )
    faults, words = [], []
    for number, (text, channel) in enumerate(zip(texts, channels, strict=True), 1):
        band = parse_band_name(channel)
        described = None if _are_counters(texts) else parse_band_name(text)
        if band is None and channel != OTHER and not is_mask_name(channel):
            hint = did_you_mean(channel, [*SENTINEL2_BANDS, MASK, SCL])
            faults.append(f"--channels: no band '{channel}'{hint}; use bands such as B02, {MASK}, {SCL}, or {OTHER}")
        elif described is not None and described != band:
            faults.append(
                f"--channels: {channel} for channel {number}, which is described as '{text}'; correct one of them"
            )
        words.append(band or channel)
    if faults:
        raise FiresegError(*faults)
    if not any(parse_band_name(word) for word in words):
        raise FiresegError("--channels names no band; name the channels in their order, such as B02 B03 B04")
    return name_channels([None if word == OTHER else word for word in words])


def _are_counters(texts: Sequence[str | None]) -> bool:
    """Returns True if the descriptions only count the channels (`Band 1`, `Band 2`, …), as some programs write them.

    Read as names they would be wrong from the ninth channel on, which is B8A.
    """
    matches = [_COUNTER.fullmatch((text or "").strip()) for text in texts]
    return all(match and int(match["number"]) == number for number, match in enumerate(matches, 1))


def _simplify(text: str | None) -> str:
    """Reduces a description to lower-case letters and digits, without a remark in parentheses."""
    return re.sub(r"[^a-z0-9]", "", re.sub(r"\(.*?\)", "", (text or "").lower()))
