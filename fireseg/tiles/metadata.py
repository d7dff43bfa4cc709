"""Reads acquisition date and radiometric offset from product metadata."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from fireseg.data.bands import SCALE
from fireseg.errors import FiresegError
from fireseg.files import check_regular_file

BASELINE_OFFSET = 1000.0
"""Offset of digital numbers since processing baseline 04.00 (BOA_ADD_OFFSET)."""

MAX_OFFSET = 10_000.0
"""Largest offset of digital numbers: one above makes every reflectance negative."""

MIN_SCALE = 1e-10
"""Smallest scale tag: that of reflectance in 32-bit integers."""

SOFTWARE_TAG = ("made_by", "fireseg")
"""Key and value that mark a json as written by this software: the summary of a map is not metadata of its scene."""

_PRODUCT = re.compile(r"S2[A-D]_MSIL[12][AC]_(?P<date>\d{8}T\d{6})_N(?P<baseline>\d{4})_")

_LEVEL = re.compile(r"(?:MSI|Level-?|^L?)(?P<level>1C|2A)", re.IGNORECASE)

_LEVEL_IN_NAME = re.compile(r"S2(?:[A-D]_MSI)?L(?P<level>1C|2A)")

_LEVEL_KEYS = ("producttype", "processinglevel", "level")

_BASELINE = re.compile(r"N?(?:\d{1,2}(?:\.\d+)?|\d{3,4})", re.IGNORECASE)

_OFFSET_KEYS = ("boaaddoffset", "radioaddoffset")

_DATE = re.compile(r"(\d{4})[-/]?(\d\d)[-/]?(\d\d)(?:[T_ ](\d\d):?(\d\d):?(\d\d))?")

_DAY_IN_NAME = re.compile(r"(?<!\d)(20\d\d-?[01]\d-?[0-3]\d)(?!\d)")

METADATA_XML = ("MTD_MSIL2A.xml", "MTD_MSIL1C.xml")
"""Names of the metadata file of a product."""

_MAX_SHOWN = 40

_DATE_KEYS = ("acquisitiondate", "acquisitiontime", "sensingtime", "sensingdate", "datetime")

_START_KEYS = ("datatakesensingstart", "productstarttime")

Pairs = Sequence[tuple[str, Any]]


def read_metadata(path: Path) -> dict[str, Any]:
    """Reads a json file; returns an empty dict if it is a map summary written by this software.

    Raises:
        FiresegError: If the file cannot be read or is not a json object, or a number for the conversion to reflectance
            is impossible.
    """
    check_regular_file(path)
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise FiresegError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error
    except (ValueError, RecursionError) as error:
        what = "empty" if path.stat().st_size == 0 else f"not valid json ({error})"
        raise FiresegError(f"{path}: {what}; write it again, or remove it: metadata are optional") from error
    if not isinstance(content, dict):
        raise FiresegError(f"{path}: holds a {type(content).__name__}, but an object is required; remove it")
    if content.get(SOFTWARE_TAG[0]) == SOFTWARE_TAG[1]:
        return {}
    check_radiometry(flatten_metadata(content), path)
    return content


def read_metadata_beside(path: Path, json_path: Path | None = None) -> dict[str, Any]:
    """Reads the metadata of a raster: a json of the same name, and the metadata of its product beside or above it.

    Args:
        path: Raster.
        json_path: Its json, if it was found before; upper and lower case of the name are not distinguished.

    Raises:
        FiresegError: If a file is invalid.
    """
    if json_path is None:
        name = f"{path.stem}.json"
        exact = [path.with_name(name)] if path.with_name(name).is_file() else []
        files = exact or sorted(beside for beside in path.parent.iterdir() if beside.name.lower() == name.lower())
        json_path = files[0] if files else None
    metadata = read_metadata(json_path) if json_path else {}
    product = find_product_xml(path)
    return {**metadata, "product": read_product_xml(product)} if product else metadata


def read_product_xml(path: Path, content: bytes | None = None) -> dict[str, list[str]]:
    """Reads the metadata of a product (`MTD_MSIL2A.xml`): the texts of each element by its name.

    Args:
        path: File.
        content: Content of the file, if it was read before.

    Raises:
        FiresegError: If the file cannot be read or is not XML, or its digital numbers are not reflectance x 10000.
    """
    if content is None:
        check_regular_file(path)
    try:
        root = ElementTree.fromstring(path.read_bytes() if content is None else content)
    except OSError as error:
        raise FiresegError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error
    except ElementTree.ParseError as error:
        raise FiresegError(f"{path}: not valid XML ({error}); download or unpack it again") from error
    texts: dict[str, list[str]] = {}
    for element in root.iter():
        if text := (element.text or "").strip():
            texts.setdefault(element.tag.rsplit("}", 1)[-1], []).append(text)
    for name in ("BOA_QUANTIFICATION_VALUE", "QUANTIFICATION_VALUE"):
        if wrong := [text for text in texts.get(name, ()) if _to_float(text) != SCALE]:
            raise FiresegError(f"{path}: {name} {_crop(wrong[0])}, but {SCALE} is expected; convert to reflectance")
    check_radiometry(flatten_metadata(texts), path)
    return texts


def find_product_xml(path: Path) -> Path | None:
    """Finds the MTD_MSIL2A.xml of the product of a raster: beside it, or in the `.SAFE` folder above it.

    A file beside a raster with another date in its name belongs to another product.
    """
    above = [folder for folder in path.absolute().parents if folder.suffix.upper() == ".SAFE"]
    for folder in (path.absolute().parent, *above):
        for name in METADATA_XML:
            if (file := folder / name).is_file():
                days = {re.sub(r"\D", "", date)[:8] for date in _DAY_IN_NAME.findall(path.stem)}
                date = find_date(flatten_metadata(read_product_xml(file)))
                if not days or date is None or date[:10].replace("-", "") in days:
                    return file
    return None


def flatten_metadata(*records: Any) -> list[tuple[str, Any]]:
    """Lists every key with its value at any depth; keys are reduced to lower-case letters.

    Args:
        *records: Contents of json files or tags of rasters.

    Example:
        >>> flatten_metadata({"s2:processing_baseline": "05.09"})
        [('processingbaseline', '05.09')]
    """
    return [pair for record in records for pair in _flatten("", record)]


def find_offset(pairs: Pairs) -> float | None:
    """Finds the offset to subtract from digital numbers before dividing them by 10000.

    A statement that the offset was already removed has priority, then a numeric offset (BOA_ADD_OFFSET, or scale and
    offset of STAC's `raster:bands`), then the processing baseline.
    Data requested from Sentinel Hub have no offset, unless the request sets `harmonizeValues: false`.

    Args:
        pairs: Metadata from `flatten_metadata`.

    Returns:
        The offset, 0 or more; None if the metadata do not give it.

    Raises:
        FiresegError: If the metadata give an invalid offset or baseline, or several offsets.
    """
    if _is_applied(pairs):
        return 0.0
    offsets = {_parse_offset(key, number) for key, number in _match(pairs, _OFFSET_KEYS, is_start=True)}
    if offsets := offsets or set(_list_stac_offsets(pairs)):
        if len(offsets) > 1:
            shown = ", ".join(f"{value:g}" for value in sorted(offsets))
            raise FiresegError(
                f"BOA_ADD_OFFSET of {shown}, but one offset for all bands is required; convert to reflectance"
            )
        return offsets.pop()
    baselines = [_parse_baseline(key, value) for key, value in _match(pairs, "processingbaseline")]
    baselines += [int(product["baseline"]) / 100 for product in _find_products(pairs)]
    if baselines:
        return BASELINE_OFFSET if max(baselines) >= 4 else 0.0
    return None


def check_radiometry(pairs: Pairs, origin: object) -> None:
    """Checks the numbers for the conversion to reflectance, also those that are not needed for this raster.

    Texts that are no numbers are left to `find_offset`, which needs only some of them.

    Args:
        pairs: Metadata from `flatten_metadata`.
        origin: Origin of the metadata, for messages.

    Raises:
        FiresegError: If an offset, scale or baseline is not finite or out of range; with all faults.
    """
    faults: list[str] = []
    parsers = [(_match(pairs, _OFFSET_KEYS, is_start=True), _parse_offset)]
    parsers += [(_match(pairs, "processingbaseline"), _parse_baseline)]
    for matches, parse in parsers:
        for key, value in matches:
            if _to_float(value) is not None:
                try:
                    parse(key, value)
                except FiresegError as error:
                    faults += error.faults
    try:
        _ = list(_list_stac_offsets(pairs))
    except FiresegError as error:
        faults += error.faults
    if faults:
        raise FiresegError(*(f"{origin}: {fault}" for fault in dict.fromkeys(faults)))


def check_scaling(scale: Any, shift: Any) -> None:
    """Checks a factor from values to reflectance, and the reflectance of the value 0.

    Args:
        scale: Above 0, at most 1; None without one.
        shift: From -1 to 1; None without one.

    Raises:
        FiresegError: If a number is not finite or out of range; with both faults.
    """
    faults = []
    if scale is not None and not ((number := _to_float(scale)) and MIN_SCALE <= number <= 1):
        faults.append(f"scale {_crop(scale)}, but it must be {MIN_SCALE:g} to 1, such as 0.0001; correct it")
    if shift is not None and not ((number := _to_float(shift)) is not None and abs(number) <= 1):
        faults.append(f"offset {_crop(shift)}, but it must be in reflectance, -1 to 1, such as -0.1; correct it")
    if faults:
        raise FiresegError(*faults)


def find_level(pairs: Pairs) -> str | None:
    """Finds the processing level, `1C` or `2A`; None if the metadata do not give it.

    Args:
        pairs: Metadata from `flatten_metadata`.
    """
    texts = [str(value) for name in _LEVEL_KEYS for _, value in _match(pairs, name)]
    matches = [match for text in texts if (match := _LEVEL.search(text))]
    names = [value for _, value in pairs if isinstance(value, str)]
    matches += [match for name in names if (match := _LEVEL_IN_NAME.search(name))]
    return matches[0]["level"].upper() if matches else None


def find_date(pairs: Pairs) -> str | None:
    """Finds the acquisition date in ISO 8601.

    Args:
        pairs: Metadata from `flatten_metadata`.

    Returns:
        A time (`2019-08-28T11:52:21Z`), a day, or if only the search interval of the download is known, that interval
        (`2019-08-17T00:00:00Z/2019-10-06T00:00:00Z`). None if the metadata do not give it.
    """
    texts = [value for name in _DATE_KEYS for _, value in _match(pairs, name)]
    texts += [value for key, value in pairs if key.endswith(_START_KEYS)]
    texts += [product["date"] for product in _find_products(pairs)]
    for text in texts:
        if date := _parse_date(text):
            return date
    if intervals := [value for key, value in pairs if key == "timerange" and isinstance(value, Mapping)]:
        ends = [_parse_date(intervals[0].get(end)) for end in ("from", "to")]
        if all(ends):
            return "/".join(dict.fromkeys(str(end) for end in ends))
    return None


def _flatten(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if name:
        yield name, value
    if isinstance(value, Mapping):
        for key, inner in value.items():
            # The prefix before a colon is a namespace and is ignored.
            yield from _flatten(re.sub(r"[^a-z]", "", str(key).rsplit(":", 1)[-1].lower()), inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _flatten(name, inner)


def _match(pairs: Pairs, name: str | tuple[str, ...], *, is_start: bool = False) -> list[tuple[str, Any]]:
    """Returns the pairs with a key of this name, or one that starts with it, and a single value."""
    return [
        (key, value)
        for key, value in pairs
        if (key.startswith(name) if is_start else key == name) and not isinstance(value, Mapping | list | tuple)
    ]


def _is_applied(pairs: Pairs) -> bool:
    """Returns True if the offset was already removed from the values."""
    if any(str(value).lower() in ("true", "1", "yes") for _, value in _match(pairs, "boaoffsetapplied")):
        return True
    if harmonize := [str(value).lower() for _, value in _match(pairs, "harmonizevalues")]:
        return "false" not in harmonize
    return bool(_match(pairs, "evalscript"))


def _find_products(pairs: Pairs) -> list[re.Match[str]]:
    texts = (value for _, value in pairs if isinstance(value, str))
    # In a path the name of the file tells more than those of the folders above it.
    return [matches[-1] for text in texts if (matches := list(_PRODUCT.finditer(text)))]


def _list_stac_offsets(pairs: Pairs) -> Iterator[float]:
    """Yields the offsets in digital numbers of bands of reflectance x 10000, from STAC's raster extension."""
    for key, band in pairs:
        if isinstance(band, Mapping):
            names = ("scale", "offset") if key == "bands" else ("raster:scale", "raster:offset")
            scale, shift = (band.get(name, band.get(f"raster:{name}")) for name in names)
            if scale is None or shift is None:
                continue
            number = _to_float(scale)
            # Bands of other quantities, such as water vapour, have other scales.
            is_reflectance = number is not None and math.isclose(number, 1 / SCALE)
            if is_reflectance or number is None or not math.isfinite(number):
                check_scaling(scale, shift)
                yield abs(round(_parse_number(key, shift) * SCALE, 6))


def _to_float(value: Any) -> float | None:
    """Converts a number or its text to a float, which may be NaN; returns None for anything else."""
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
    except OverflowError:  # an integer of more than 308 digits
        return math.inf


def _parse_number(key: str, value: Any) -> float:
    number = _to_float(value)
    if number is None or not math.isfinite(number):
        raise FiresegError(f"{key} '{_crop(value)}', but a finite number is required, such as 1000; correct it")
    return number


def _parse_offset(key: str, value: Any) -> float:
    """Parses an offset of digital numbers, which some writers give without its sign."""
    offset = abs(_parse_number(key, value))
    if offset > MAX_OFFSET:
        raise FiresegError(
            f"{key} {_crop(value)}, but an offset is 0 to {MAX_OFFSET:.0f} digital numbers, such as 1000; correct it"
        )
    return offset


def _parse_baseline(key: str, value: Any) -> float:
    """Parses a processing baseline, written as `04.00`, `N0400`, `0400` or 4.0."""
    text = str(value).strip().upper()
    if not _BASELINE.fullmatch(text):
        raise FiresegError(f"{key} '{_crop(text)}', but a baseline such as 05.11 or N0511 is required; correct it")
    number = float(text.removeprefix("N"))
    return number if "." in text or number < 100 else number / 100


def _parse_date(value: Any) -> str | None:
    match = _DATE.match(value.strip()) if isinstance(value, str) else None
    if match is None:
        return None
    year, month, day, *time = match.groups()
    return f"{year}-{month}-{day}" + (f"T{':'.join(time)}Z" if time[0] else "")


def _crop(value: Any) -> str:
    return str(value)[:_MAX_SHOWN]
