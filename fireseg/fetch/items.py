"""Finds the bands of STAC items and the conversion of their digital numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from fireseg.data.bands import BAND_NAMES, SCALE
from fireseg.errors import FiresegError
from fireseg.tiles.channels import SCL, is_mask_name, parse_band_name
from fireseg.tiles.metadata import find_offset, flatten_metadata


@dataclass(frozen=True, kw_only=True)
class BandAsset:
    """Raster of one band of an item.

    Attributes:
        key: Key of the asset in the item.
        gain: Factor from digital numbers to reflectance x 10000.
        offset: Digital number of reflectance 0.
    """

    key: str
    gain: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SceneItem:
    """One Sentinel-2 tile of a catalogue.

    Attributes:
        item: The pystac item.
        assets: Asset of each band of `BAND_NAMES`, and of `SCL`.
        baseline: Processing baseline such as `05.11`; empty if unknown.
        epsg: Code of the reference system; None if unknown.
    """

    item: Any
    assets: Mapping[str, BandAsset]
    baseline: str
    epsg: int | None

    @property
    def time(self) -> datetime:
        """Time of acquisition."""
        return self.item.datetime

    def get_solar_day(self, longitude: float) -> date:
        """Returns the day of the acquisition in local solar time.

        A pass over the western Pacific lasts over midnight of universal time.
        """
        return (self.time + timedelta(hours=longitude / 15)).date()


def parse_item(item: Any) -> SceneItem:
    """Finds the bands of an item by the keys of its assets, or by their band names.

    The key or name is a band such as `B02` or `B02_10m`, or a common name such as `blue` or `nir08`. Of several
    resolutions of a band, the finest is used.

    Args:
        item: pystac item of a level-2A product.

    Raises:
        FiresegError: If bands or the scene classification are missing, or the offset of the digital numbers is unknown.
    """
    found: dict[str, tuple[float, str]] = {}
    for key, asset in item.assets.items():
        band = _identify(key, asset)
        if band is not None:
            candidate = _find_resolution(key, asset), key
            found[band] = min(found.get(band, candidate), candidate)
    wanted = (*BAND_NAMES, SCL)
    if missing := [band for band in wanted if band not in found]:
        raise FiresegError(
            f"{item.id}: no asset for {' '.join(missing)} among {' '.join(item.assets)}; use a collection of level 2A, "
            "with --catalog URL#COLLECTION"
        )
    if item.datetime is None:
        raise FiresegError(f"{item.id}: no datetime; use another --catalog")
    assets = {band: _read_scaling(item, found[band][1]) for band in BAND_NAMES}
    assets[SCL] = BandAsset(key=found[SCL][1])
    return SceneItem(item=item, assets=assets, baseline=_find_baseline(item), epsg=_find_epsg(item))


def _identify(key: str, asset: Any) -> str | None:
    """Identifies the band of an asset; None if it is none, or a picture of several bands."""
    fields = asset.extra_fields
    bands = fields.get("eo:bands") or fields.get("bands") or []
    is_raster = "image/" in (asset.media_type or "image/") and not {"thumbnail", "overview"} & set(asset.roles or ())
    if len(bands) > 1 or not is_raster:
        return None
    names = [re.sub(r"[_-]\d+m$", "", key)]
    for band in bands:
        names += [band.get(field) for field in ("name", "common_name", "eo:common_name")]
    for name in names:
        if band := parse_band_name(name):
            return band
        if name and "scl" in name.lower() and is_mask_name(name):
            return SCL
    return None


def _find_resolution(key: str, asset: Any) -> float:
    fields = asset.extra_fields
    if match := re.search(r"[_-](\d+)m$", key):
        return float(match[1])
    raster = (fields.get("raster:bands") or [{}])[0]
    for value in (fields.get("gsd"), fields.get("raster:spatial_resolution"), raster.get("spatial_resolution")):
        if value:
            return float(value)
    return math.inf


def _read_scaling(item: Any, key: str) -> BandAsset:
    """Reads the scaling of a band.

    The item has priority where it says that there is no offset, because it was removed or the baseline is older than
    04.00: some catalogues give an offset with every band nevertheless.
    """
    scale, shift = _read_raster_fields(item.assets[key].extra_fields)
    gain = 1.0 if scale is None else scale * SCALE
    offset = find_offset(flatten_metadata(item.properties, {"id": item.id}))
    if offset != 0 and shift is not None:
        offset = -shift * SCALE / gain
    if offset is None:
        raise FiresegError(
            f"{item.id}: neither the processing baseline nor the offset of the digital numbers is given; use another "
            "--catalog"
        )
    return BandAsset(key=key, gain=gain, offset=round(offset, 6) + 0.0)  # no -0.0


def _read_raster_fields(fields: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Reads scale and offset of an asset, in the spellings of STAC 1.0 and 1.1."""
    raster = (fields.get("raster:bands") or [{}])[0]
    band = (fields.get("bands") or [{}])[0]
    scale = raster.get("scale", fields.get("raster:scale", band.get("raster:scale")))
    shift = raster.get("offset", fields.get("raster:offset", band.get("raster:offset")))
    return scale or None, shift


def _find_baseline(item: Any) -> str:
    for name, value in item.properties.items():
        if name.endswith("processing_baseline"):
            return str(value)
    match = re.search(r"_N(\d\d)(\d\d)_", " ".join([item.id, *map(str, item.properties.values())]))
    return f"{match[1]}.{match[2]}" if match else ""


def _find_epsg(item: Any) -> int | None:
    codes = [item.properties.get("proj:code"), item.properties.get("proj:epsg")]
    for asset in item.assets.values():
        codes += [asset.extra_fields.get("proj:code"), asset.extra_fields.get("proj:epsg")]
    for code in codes:
        if match := re.fullmatch(r"(?:EPSG:)?(\d+)", str(code)):
            return int(match[1])
    return None
