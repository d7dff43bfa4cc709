"""A band of bare bytes, and the words by which GDAL reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

from rasterio import Affine
from rasterio.crs import CRS

_GDAL_TYPES = {"uint8": ("Byte", 1), "float32": ("Float32", 4)}


@dataclass(frozen=True, kw_only=True)
class Band:
    """What the values of a band are.

    Args:
        dtype: Their type, in the byte order of the machine.
        nodata: The value of what is not known.
        description: What the band is called.
        scale: What a value is to be multiplied with.
        categories: What the values from 0 on are called.
        colours: The `#rrggbb` of the values from 0 on.
    """

    dtype: Literal["uint8", "float32"]
    nodata: float
    description: str
    scale: float | None = None
    categories: Sequence[str] = field(default=())
    colours: Sequence[str] = field(default=())


def describe_raw(
    raw: Path, band: Band, *, height: int, width: int, crs: CRS, transform: Affine, tags: Mapping[str, str]
) -> Path:
    """Writes a virtual raster (VRT) beside a file of bare values.

    Bare values go to disk without GDAL's cache, and a full disk is known at once.

    Args:
        raw: The values, row after row.
        band: What they are.
        height: Rows of the raster.
        width: Columns of the raster.
        crs: CRS of the raster.
        transform: From (column, row) to coordinates in that CRS.
        tags: Metadata of the raster.

    Returns:
        The virtual raster: `raw` with the suffix `.vrt`.

    References:
        https://gdal.org/drivers/raster/vrt.html
    """
    gdal_type, pixel_bytes = _GDAL_TYPES[band.dtype]
    root = ElementTree.Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    _add(root, "SRS", crs.to_wkt())
    _add(root, "GeoTransform", ", ".join(repr(float(number)) for number in transform.to_gdal()))
    metadata = _add(root, "Metadata")
    for key, value in tags.items():
        _add(metadata, "MDI", value, key=key)
    values = _add(root, "VRTRasterBand", dataType=gdal_type, band="1", subClass="VRTRawRasterBand")
    _add(values, "Description", band.description)
    _add(values, "NoDataValue", str(band.nodata))
    if band.scale is not None:
        _add(values, "Scale", repr(band.scale))
    _add(values, "ColorInterp", "Palette" if band.colours else "Gray")
    _add_categories(values, band)
    _add(values, "SourceFilename", raw.name, relativeToVRT="1")
    _add(values, "PixelOffset", str(pixel_bytes))
    _add(values, "LineOffset", str(pixel_bytes * width))
    path = raw.with_suffix(".vrt")
    path.write_bytes(ElementTree.tostring(root, encoding="utf-8"))
    return path


def _add_categories(values: ElementTree.Element, band: Band) -> None:
    if band.categories:
        names = _add(values, "CategoryNames")
        for name in band.categories:
            _add(names, "Category", name)
    if band.colours:
        table = _add(values, "ColorTable")
        for colour in band.colours:
            red, green, blue = (str(int(colour[place : place + 2], 16)) for place in (1, 3, 5))
            _add(table, "Entry", c1=red, c2=green, c3=blue, c4="255")


def _add(parent: ElementTree.Element, name: str, text: str | None = None, **attributes: str) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, name, attributes)
    child.text = text
    return child
