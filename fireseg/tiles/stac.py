"""Finds the bands among the assets of a STAC item, and the scaling of their values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from fireseg.tiles.channels import SCL, is_scene_classification, parse_band_name
from fireseg.tiles.metadata import check_scaling

_RESOLUTION = re.compile(r"[_-](\d+)m$")


def find_band_assets(assets: Mapping[str, Any]) -> dict[str, str]:
    """Finds the key of the asset of each band and of the scene classification `SCL`.

    A key, or the name of its only band, is a band such as `B02` or `B02_10m`, or a common name such as `blue`. Of
    several resolutions of a band the finest is used; pictures of several bands and previews are none.

    Args:
        assets: Assets of an item by key, as in its json.
    """
    found: dict[str, tuple[float, str]] = {}
    for key, asset in assets.items():
        if isinstance(asset, dict) and (band := _identify(key, asset)):
            candidate = _find_resolution(key, asset), key
            found[band] = min(found.get(band, candidate), candidate)
    return {band: key for band, (_, key) in found.items()}


def read_scaling(asset: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Reads scale and offset of an asset where versions 1.0 and 1.1 of STAC have them; None without one.

    Raises:
        FiresegError: If a number is not finite or out of range.
    """
    raster, band = _get_first(asset, "raster:bands"), _get_first(asset, "bands")
    scale = raster.get("scale", asset.get("raster:scale", band.get("raster:scale")))
    shift = raster.get("offset", asset.get("raster:offset", band.get("raster:offset")))
    scale = scale or None
    check_scaling(scale, shift)
    return None if scale is None else float(scale), None if shift is None else float(shift)


def _identify(key: str, asset: Mapping[str, Any]) -> str | None:
    bands = asset.get("eo:bands") or asset.get("bands") or []
    is_raster = "image/" in (asset.get("type") or "image/")
    is_preview = bool({"thumbnail", "overview"} & set(asset.get("roles") or ()))
    if not isinstance(bands, list) or len(bands) > 1 or not is_raster or is_preview:
        return None
    names = [_RESOLUTION.sub("", key)]
    names += [band.get(field) for band in bands if isinstance(band, dict) for field in _NAME_FIELDS]
    for name in names:
        if isinstance(name, str) and is_scene_classification(name):
            return SCL
        if isinstance(name, str) and (band := parse_band_name(name)):
            return band
    return None


_NAME_FIELDS = ("name", "common_name", "eo:common_name")


def _find_resolution(key: str, asset: Mapping[str, Any]) -> float:
    """Finds the pixel size in metres; infinity if it is not given, as for whole copies in another format."""
    if match := _RESOLUTION.search(key):
        return float(match[1])
    raster = _get_first(asset, "raster:bands")
    sizes = (asset.get("gsd"), asset.get("raster:spatial_resolution"), raster.get("spatial_resolution"))
    return next((float(size) for size in sizes if isinstance(size, int | float) and size), math.inf)


def _get_first(asset: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    values = asset.get(name)
    return values[0] if isinstance(values, list) and values and isinstance(values[0], dict) else {}
