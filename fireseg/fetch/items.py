"""Finds the bands of STAC items and the conversion of their digital numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from fireseg.data.bands import BAND_NAMES, SCALE
from fireseg.errors import FiresegError
from fireseg.tiles.channels import SCL
from fireseg.tiles.metadata import find_offset, flatten_metadata
from fireseg.tiles.stac import find_band_assets, read_scaling


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

    def get_href(self, band: str) -> str:
        """Returns the address of the raster of a band, or of `SCL`."""
        asset = self.item.assets[self.assets[band].key]
        return asset.get_absolute_href() or asset.href

    def get_solar_day(self, longitude: float) -> date:
        """Returns the day of the acquisition in local solar time.

        A pass over the western Pacific lasts over midnight of universal time.
        """
        return (self.time + timedelta(hours=longitude / 15)).date()


def parse_item(item: Any) -> SceneItem:
    """Finds the bands of an item and their scaling.

    Args:
        item: pystac item of a level-2A product.

    Raises:
        FiresegError: If bands or the scene classification are missing, or the offset of the digital numbers is unknown.
    """
    found = find_band_assets({key: asset.to_dict() for key, asset in item.assets.items()})
    wanted = (*BAND_NAMES, SCL)
    if missing := [band for band in wanted if band not in found]:
        raise FiresegError(
            f"{item.id}: no asset for {' '.join(missing)} among {' '.join(item.assets)}; use a collection of level 2A, "
            "with --catalog URL#COLLECTION"
        )
    if item.datetime is None:
        raise FiresegError(f"{item.id}: no datetime; use another --catalog")
    assets = {band: _read_scaling(item, found[band]) for band in BAND_NAMES}
    assets[SCL] = BandAsset(key=found[SCL])
    scene = SceneItem(item=item, assets=assets, baseline=_find_baseline(item), epsg=_find_epsg(item))
    # GDAL reads local files and virtual file systems, too, which a catalogue has no business with.
    if faults := [
        f"{item.id}, asset {assets[band].key}: {scene.get_href(band)}, but only files of http, https and s3 addresses "
        "are fetched; use another --catalog"
        for band in wanted
        if not scene.get_href(band).startswith(("http://", "https://", "s3://"))
    ]:
        raise FiresegError(*faults)
    return scene


def _read_scaling(item: Any, key: str) -> BandAsset:
    """Reads the scaling of a band.

    The item has priority where it says that there is no offset, because it was removed or the baseline is older than
    04.00: some catalogues give an offset with every band nevertheless.
    """
    try:
        scale, shift = read_scaling(item.assets[key].extra_fields)
        offset = find_offset(flatten_metadata(item.properties, {"id": item.id}))
    except FiresegError as error:
        cure = "the item is wrong: use another --catalog"
        raise FiresegError(*(f"{item.id}, asset {key}: {fault}; {cure}" for fault in error.faults)) from error
    gain = 1.0 if scale is None else scale * SCALE
    if offset != 0 and shift is not None:
        offset = -shift * SCALE / gain
    if offset is None:
        raise FiresegError(
            f"{item.id}: neither the processing baseline nor the offset of the digital numbers is given; use another "
            "--catalog"
        )
    return BandAsset(key=key, gain=gain, offset=round(offset, 6) + 0.0)  # no -0.0


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
