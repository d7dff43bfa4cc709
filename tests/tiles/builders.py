"""Builders of small synthetic tiles in CEMS layout."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.enums import Resampling
from rasterio.warp import reproject

from fireseg.data.bands import CEMS_BANDS
from fireseg.synthetic.scene import read_spectra

PIXEL = 1e-4
GRID = Affine(PIXEL, 0.0, -15.0, 0.0, -PIXEL, 28.0)


def make_reflectance(height: int = 40, width: int = 50, *, channels: int = 12, seed: int = 0) -> NDArray[np.float32]:
    """Makes reflectance `(C, H, W)` with dark and bright pixels in every band, in steps of 0.0001."""
    steps = np.random.default_rng(seed).integers(50, 4500, (channels, height, width))
    return (steps / 10_000).astype(np.float32)


def write_raster(
    path: Path,
    values: NDArray[Any],
    *,
    descriptions: tuple[str, ...] | None = None,
    tags: dict[str, str] | None = None,
    **profile: Any,
) -> Path:
    """Writes `(C, H, W)` or `(H, W)` as a GeoTIFF on a grid of 0.0001 degrees near the Canaries.

    Twelve channels are described as those of the product: the values of tests would not confirm their order.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = values if values.ndim == 3 else values[None]
    options = {"driver": "GTiff", "crs": "EPSG:4326", "transform": GRID, "dtype": bands.dtype} | profile
    with rasterio.open(path, "w", count=len(bands), height=bands.shape[1], width=bands.shape[2], **options) as raster:
        raster.write(bands)
        if descriptions is None:
            descriptions = CEMS_BANDS if len(bands) == len(CEMS_BANDS) else ()
        for channel, description in enumerate(descriptions, 1):
            raster.set_band_description(channel, description)
        raster.update_tags(**(tags or {}))
    return path


def write_tile(
    folder: Path,
    name: str = "EMSR999_AOI01_01",
    *,
    image: NDArray[Any] | None = None,
    masks: tuple[str, ...] = ("DEL", "GRA", "CM"),
    **image_options: Any,
) -> Path:
    """Writes an image of the twelve bands and its masks, of which the left half is burned and graded 2.

    Returns:
        The image's path.
    """
    image = make_reflectance() if image is None else image
    path = write_raster(folder / f"{name}_S2L2A.tif", image, **image_options)
    for kind in masks:
        mask = np.zeros(image.shape[1:], np.uint8)
        mask[:, : image.shape[2] // 2] = {"DEL": 1, "GRA": 2, "CM": 0}[kind]
        write_raster(folder / f"{name}_{kind}.tif", mask)
    return path


# Land cover of the Esri 10 m map as these rasters number it (water, trees, grass, flooded, crops, scrub, built, bare).
_COVER: tuple[Mapping[str, float], ...] = (
    {"water": 1.0},
    {"canopy_mid": 0.8, "litter": 0.2},
    {"grass_dry": 0.8, "soil_mid": 0.2},
    {"canopy_open": 0.6, "turbid": 0.4},
    {"canopy_open": 0.5, "dirt": 0.5},
    {"canopy_open": 0.3, "litter": 0.4, "soil_mid": 0.3},
    {"soil_bright": 0.5, "dirt": 0.5},
    {"soil_mid": 0.6, "dirt": 0.4},
)
_REMAINS: Mapping[str, float] = {"char": 0.7, "char_soil": 0.2, "ash": 0.1}

_BURNED_SHARE = np.array([0.0, 0.25, 0.45, 0.70, 0.92])
"""Share of char and ash in a pixel, by grade."""

_CLOUD_SHARE, _LIGHT_CLOUD_SHARE, _SHADOW_LIGHT = 0.85, 0.30, 0.35


def overlay_cems(source: Path, target: Path, *, seed: int = 0) -> Path:
    """Writes a tile of real DEL, GRA, CM and json with an S2L2A image mixed from measured spectra.

    Args:
        source: A tile folder with DEL, GRA, CM, json and Esri10_LC.
        target: Folder to write the tile to.
        seed: Seed of the noise.

    Returns:
        Path of the image: float32, 12 bands without descriptions, 0 to about 1 in steps of 0.0001.
    """
    target.mkdir(parents=True)
    name = source.name
    for end in ("DEL.tif", "GRA.tif", "CM.tif", "S2L2A.json"):
        shutil.copyfile(source / f"{name}_{end}", target / f"{name}_{end}")
    masks: dict[str, NDArray[np.uint8]] = {}
    profile: dict[str, Any] = {}
    for kind in ("DEL", "GRA", "CM", "Esri10_LC"):
        with rasterio.open(source / f"{name}_{kind}.tif") as raster:
            masks[kind] = raster.read(1)
            if kind == "DEL":
                profile = {"crs": raster.crs, "transform": raster.transform}
    path = target / f"{name}_S2L2A.tif"
    height, width = masks["DEL"].shape
    profile |= {"driver": "GTiff", "height": height, "width": width, "count": 12, "dtype": "float32"}
    with rasterio.open(path, "w", **profile) as raster:
        for channel in range(len(CEMS_BANDS)):
            raster.write(_expose(masks, channel, np.random.default_rng((seed, channel))), channel + 1)
    return path


def _expose(masks: Mapping[str, NDArray[np.uint8]], channel: int, rng: np.random.Generator) -> NDArray[np.float32]:
    spectra = {name: float(values[channel]) for name, values in read_spectra().items()}
    cover = np.array([_mix(shares, spectra) for shares in _COVER])
    # Where the masks disagree the grading counts; a pixel that is only delineated is lightly burned.
    grade = np.where((masks["DEL"] == 1) & (masks["GRA"] == 0), 1, masks["GRA"])
    burned = _BURNED_SHARE[grade]
    values = cover[masks["Esri10_LC"]] * (1 - burned) + _mix(_REMAINS, spectra) * burned
    values *= np.where(masks["CM"] == 3, _SHADOW_LIGHT, 1.0)
    cloud = np.array([0.0, _CLOUD_SHARE, _LIGHT_CLOUD_SHARE, 0.0])[masks["CM"]]
    values = values * (1 - cloud) + spectra["cloud"] * cloud
    values += (0.003 + 0.03 * values) * rng.standard_normal(values.shape)
    return (np.rint(values * 10_000).clip(1, 20_000) / 10_000).astype(np.float32)


def _mix(shares: Mapping[str, float], spectra: Mapping[str, float]) -> float:
    return sum(share * spectra[name] for name, share in shares.items())


PRODUCT = "S2B_MSIL2A_20230828T105439_N0509_R051_T31TCJ_20230828T131109"
"""Name of a product of processing baseline 05.09, whose digital numbers have an offset of 1000."""

_FINE_BANDS = ("B02", "B03", "B04", "B08")


def write_safe(
    folder: Path,
    numbers: Mapping[str, NDArray[np.uint16]],
    *,
    name: str = PRODUCT,
    baseline: str = "05.09",
    offset: int | None = -1000,
) -> Path:
    """Writes a miniature SAFE product of level 2A with its true names and the parts of its XML that are read.

    Args:
        folder: Folder of the product.
        numbers: Digital numbers of bands `(H, W)` at 10 m, `(H / 2, W / 2)` at 20 m, and classes of SCL at 20 m.
        name: Name of the product.
        baseline: Processing baseline.
        offset: Offset of the digital numbers; None in products before baseline 04.00.

    Returns:
        The product's folder.
    """
    root = folder / f"{name}.SAFE"
    root.mkdir(parents=True)
    images = root / "GRANULE" / "L2A_T31TCJ_A033821_20230828T105652" / "IMG_DATA"
    for band, values in numbers.items():
        resolution = 10 if band in _FINE_BANDS else 20
        path = images / f"R{resolution}m" / f"T31TCJ_20230828T105439_{band}_{resolution}m.jp2"
        options: dict[str, Any] = {"driver": "JP2OpenJPEG", "QUALITY": 100, "REVERSIBLE": "YES"}
        write_raster(path, values, crs="EPSG:32631", transform=utm_grid(resolution), **options)
        for sidecar in path.parent.glob("*.aux.xml"):
            sidecar.unlink()
    offsets = "".join(f'<BOA_ADD_OFFSET band_id="{number}">{offset}</BOA_ADD_OFFSET>' for number in range(13))
    offsets = "" if offset is None else offsets
    (root / "MTD_MSIL2A.xml").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<n1:Level-2A_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-2A.xsd">'
        "<n1:General_Info><Product_Info><PRODUCT_START_TIME>2023-08-28T10:54:39.024Z</PRODUCT_START_TIME>"
        f"<PRODUCT_URI>{name}.SAFE</PRODUCT_URI><PROCESSING_LEVEL>Level-2A</PROCESSING_LEVEL>"
        "<PRODUCT_TYPE>S2MSI2A</PRODUCT_TYPE><PROCESSING_BASELINE>"
        f"{baseline}</PROCESSING_BASELINE></Product_Info>"
        '<Product_Image_Characteristics><BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE>'
        f"<BOA_ADD_OFFSET_VALUES_LIST>{offsets}</BOA_ADD_OFFSET_VALUES_LIST></Product_Image_Characteristics>"
        "</n1:General_Info></n1:Level-2A_User_Product>"
    )
    return root


def utm_grid(pixel_m: float) -> Affine:
    """Returns the grid of a granule in zone 31 with pixels of this size."""
    return Affine(pixel_m, 0.0, 300_000.0, 0.0, -pixel_m, 4_900_020.0)


def interpolate(values: NDArray[Any]) -> NDArray[Any]:
    """Doubles the resolution of `(H, W)` values as GDAL's warper does with linear interpolation."""
    height, width = values.shape
    result = np.empty((2 * height, 2 * width), values.dtype)
    crs = "EPSG:32631"
    reproject(
        values,
        result,
        src_transform=utm_grid(20),
        dst_transform=utm_grid(10),
        src_crs=crs,
        dst_crs=crs,
        resampling=Resampling.bilinear,
    )
    return result


def copy_before(image: Path, path: Path, *, seed: int) -> Path:
    """Writes another scene on the grid of an image, as the one before the fire."""
    with rasterio.open(image) as raster:
        return write_raster(path, make_reflectance(raster.height, raster.width, seed=seed), transform=raster.transform)
