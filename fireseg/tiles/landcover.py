"""Reads land cover maps as the classes of ESA WorldCover."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from fireseg.errors import FiresegError, join_names
from fireseg.task import IGNORE_INDEX, LANDCOVER_CLASSES
from fireseg.tiles.masks import describe_grid_difference
from fireseg.tiles.options import LandcoverCodes

_MAX_SHIFT_PX = 1.0
"""Largest shift against the image: the maps of the CEMS data set are placed half a pixel to the side."""

_ESRI: dict[int, str | None] = {
    0: None,
    1: "water",
    2: "tree_cover",
    3: "grassland",
    4: "herbaceous_wetland",
    5: "cropland",
    6: "shrubland",
    7: "built_up",
    8: "bare",
    9: "snow_and_ice",
    10: None,  # cloud
    11: "grassland",  # rangeland: grass and scrub, which maps since 2022 no longer distinguish
}

CODES: Mapping[LandcoverCodes, Mapping[int, str | None]] = {
    "esa": {0: None, **LANDCOVER_CLASSES},
    "esa-cems": dict(enumerate(LANDCOVER_CLASSES.values())),
    "esri": _ESRI,
    "esri-cems": {value - 1: name for value, name in _ESRI.items() if 0 < value < 11},
}
"""Class of `LANDCOVER_CLASSES` for each value of a map, None where unknown; 255 is unknown in all of them.

Sources: the product manual of ESA WorldCover; Karra et al. 2021, doi:10.1109/IGARSS47720.2021.9553499 (Esri); the
README of the CEMS wildfire data set (`MatteoM95/CEMS-Wildfire-Dataset`), which numbers both from 0.
"""


def read_landcover(raster: DatasetReader, image: DatasetReader, codes: LandcoverCodes) -> NDArray[np.uint8]:
    """Reads the land cover of a tile.

    Args:
        raster: Map of land cover on the grid of the image.
        image: Image of the tile.
        codes: Meaning of the values of the map.

    Returns:
        `(H, W)` uint8, the position of the class in `LANDCOVER_CLASSES`, 255 where unknown.

    Raises:
        FiresegError: If it has several channels, values of another numbering, or another grid than the image.
    """
    path = raster.name
    if raster.count != 1:
        raise FiresegError(f"{path}: {raster.count} channels, but a land cover has one; check that it is no picture")
    if difference := describe_grid_difference(raster, image, max_shift_px=_MAX_SHIFT_PX):
        raise FiresegError(
            f"{path}: {difference} {Path(image.name).name}; warp it to the grid of the image (gdalwarp -r near)"
        )
    values = raster.read(1)
    present = set(np.unique(values).tolist()) - {IGNORE_INDEX}
    if fault := _find_fault(present, raster.nodata, codes):
        raise FiresegError(f"{path}: {fault}")
    return _classify(values, CODES[codes])


def _find_fault(present: Collection[float], nodata: float | None, codes: LandcoverCodes) -> str:
    """Describes values that contradict the numbering; empty if none do.

    Both numberings of a map have the value 0, for "no data" or for a class, so its nodata tag has to agree.
    """
    other = _get_other_numbering(codes)
    cure = f"--landcover {other}"
    if wrong := sorted(value for value in present if value not in CODES[codes] and value != nodata):
        shown, known = (join_names([f"{value:g}" for value in group], 12) for group in (wrong, CODES[codes]))
        fits = all(value in CODES[other] or value == nodata for value in present)
        cure = f"they fit {cure}" if fits else "use the original map, or omit --landcover"
        return f"values {shown}, but --landcover {codes} has {known}; {cure}"
    if codes.endswith("-cems") and nodata == 0:
        return f"0 is its nodata tag, but --landcover {codes} has {CODES[codes][0]} there; use {cure}"
    if not codes.endswith("-cems") and 0 in present and nodata != 0 and all(value in CODES[other] for value in present):
        return (
            f"0 is no data with --landcover {codes}, but not the nodata tag, and {CODES[other][0]} with {cure}, which "
            "all values fit; use the latter, or set the tag with gdal_edit.py -a_nodata 0"
        )
    return ""


def _get_other_numbering(codes: LandcoverCodes) -> LandcoverCodes:
    others: dict[LandcoverCodes, LandcoverCodes] = {"esa": "esa-cems", "esri": "esri-cems"}
    return others.get(codes) or next(name for name, other in others.items() if other == codes)


def _classify(values: NDArray[Any], codes: Mapping[int, str | None]) -> NDArray[np.uint8]:
    positions = {name: number for number, name in enumerate(LANDCOVER_CLASSES.values())}
    classes = np.full(values.shape, IGNORE_INDEX, np.uint8)
    for value, name in codes.items():
        if name is not None:
            classes[values == value] = positions[name]
    return classes
