"""What metadata tell of where a tile comes from: its date, and the offset of its digital numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fireseg.data.bands import CEMS_BANDS, SENTINEL2_BANDS
from fireseg.errors import FiresegError

BASELINE_OFFSET = 1000.0
"""What digital numbers have on top from processing baseline 04.00 on."""

SOFTWARE_TAG = ("made_by", "fireseg")
"""What marks a json as written by this suite: a map's summary beside its scene tells nothing of the scene."""

_PRODUCT = re.compile(r"S2[A-D]_MSIL[12][AC]_(?P<date>\d{8}T\d{6})_N(?P<baseline>\d{4})_")

_DATE = re.compile(r"(\d{4})[-/]?(\d\d)[-/]?(\d\d)(?:[T_ ](\d\d):?(\d\d):?(\d\d))?")

_DATE_KEYS = ("acquisitiondate", "acquisitiontime", "sensingtime", "sensingdate", "datetime")

_START_KEYS = ("datatakesensingstart", "productstarttime")

Pairs = Sequence[tuple[str, Any]]


def read_metadata(path: Path) -> dict[str, Any]:
    """What a json file holds; nothing where it is the summary of a map of ours.

    Raises:
        FiresegError: If it cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise FiresegError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        what = "empty" if path.stat().st_size == 0 else f"no readable json ({error})"
        raise FiresegError(f"{path}: {what}; write it again, or take it away: a tile may be without") from error
    if not isinstance(content, dict):
        raise FiresegError(f"{path}: holds a {type(content).__name__}, but metadata have names; take it away")
    return {} if content.get(SOFTWARE_TAG[0]) == SOFTWARE_TAG[1] else content


def list_pairs(*records: Any) -> list[tuple[str, Any]]:
    """Every key with its value, however deep, keys in small letters and nothing else.

    Args:
        *records: What a json file or a raster's tags hold.

    Example:
        >>> list_pairs({"s2:processing_baseline": "05.09"})
        [('processingbaseline', '05.09')]
    """
    return [pair for record in records for pair in _flatten("", record)]


def find_offset(pairs: Pairs) -> float | None:
    """What is to be subtracted from digital numbers before they are divided by 10000.

    An offset that is said to be gone counts first, then an offset in numbers, then the baseline. Values
    that Sentinel Hub was asked for come without it, unless the request says `harmonizeValues: false`.

    Args:
        pairs: As `list_pairs` gives them.

    Returns:
        0 or more; None where nothing tells.

    Raises:
        FiresegError: If what is written there cannot be understood.
    """
    if _is_applied(pairs):
        return 0.0
    if stated := {abs(_to_number(key, number)) for key, number in _match(pairs, "boaaddoffset", is_start=True)}:
        if len(stated) > 1:
            shown = ", ".join(f"{value:g}" for value in sorted(stated))
            raise FiresegError(f"BOA_ADD_OFFSET of {shown}, but one for all bands is wanted; write reflectance instead")
        return stated.pop()
    baselines = [_to_baseline(key, value) for key, value in _match(pairs, "processingbaseline")]
    baselines += [int(product["baseline"]) / 100 for product in _find_products(pairs)]
    if baselines:
        return BASELINE_OFFSET if max(baselines) >= 4 else 0.0
    return None


def find_date(pairs: Pairs) -> str | None:
    """When the image was taken, in ISO 8601.

    Args:
        pairs: As `list_pairs` gives them.

    Returns:
        A moment (`2019-08-28T11:52:21Z`), a day, or where only the search interval of the download is
        known, that (`2019-08-17T00:00:00Z/2019-10-06T00:00:00Z`). None where nothing tells.
    """
    texts = [value for name in _DATE_KEYS for _, value in _match(pairs, name)]
    texts += [value for key, value in pairs if key.endswith(_START_KEYS)]
    texts += [product["date"] for product in _find_products(pairs)]
    for text in texts:
        if date := _to_iso(text):
            return date
    if intervals := [value for key, value in pairs if key == "timerange" and isinstance(value, Mapping)]:
        ends = [_to_iso(intervals[0].get(end)) for end in ("from", "to")]
        if all(ends):
            return "/".join(dict.fromkeys(str(end) for end in ends))
    return None


def _flatten(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if name:
        yield name, value
    if isinstance(value, Mapping):
        for key, inner in value.items():
            # A namespace says whose word it is, not what it means.
            yield from _flatten(re.sub(r"[^a-z]", "", str(key).rsplit(":", 1)[-1].lower()), inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _flatten(name, inner)


def _match(pairs: Pairs, name: str, *, is_start: bool = False) -> list[tuple[str, Any]]:
    """Those of a name that hold a single value."""
    return [
        (key, value)
        for key, value in pairs
        if (key.startswith(name) if is_start else key == name) and not isinstance(value, Mapping | list | tuple)
    ]


def _is_applied(pairs: Pairs) -> bool:
    """Whether the offset was taken away by whoever made the raster."""
    if any(str(value).lower() in ("true", "1", "yes") for _, value in _match(pairs, "boaoffsetapplied")):
        return True
    if asked := [str(value).lower() for _, value in _match(pairs, "harmonizevalues")]:
        return "false" not in asked
    return bool(_match(pairs, "evalscript"))


def _find_products(pairs: Pairs) -> list[re.Match[str]]:
    texts = (value for _, value in pairs if isinstance(value, str))
    return [match for text in texts if (match := _PRODUCT.search(text))]


def _to_number(key: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise FiresegError(f"{key} '{value}', but a number is wanted, such as 1000; mend it") from error


def _to_baseline(key: str, value: Any) -> float:
    """`04.00`, `N0400`, `0400` and 4.0 are the same."""
    text = str(value).strip().upper().removeprefix("N")
    number = _to_number(key, text)
    return number if "." in text or number < 100 else number / 100


def _to_iso(value: Any) -> str | None:
    match = _DATE.match(value.strip()) if isinstance(value, str) else None
    if match is None:
        return None
    year, month, day, *time = match.groups()
    return f"{year}-{month}-{day}" + (f"T{':'.join(time)}Z" if time[0] else "")


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
