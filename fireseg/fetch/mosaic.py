"""Reads the pixels of items and mosaics them on one grid."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, NamedTuple, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.enums import Resampling
from rasterio.features import geometry_mask
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform as transform_points

from fireseg.data.bands import BAND_NAMES
from fireseg.errors import FiresegError
from fireseg.fetch.catalogue import CatalogueClient, retry
from fireseg.fetch.items import SceneItem
from fireseg.geo.grid import GDAL_ERRORS, Grid
from fireseg.tiles.channels import SCL
from fireseg.tiles.clouds import convert_scene_classification, is_cloudy
from fireseg.tiles.metadata import BASELINE_OFFSET
from fireseg.tiles.raster_file import open_dataset

PIXEL_M = 10

COARSE_M = 60
"""Pixel size at which clouds are counted to choose a day. The grid is aligned to it, as those of the products are."""

_MAX_STRIP_PX = 8 * 2**20
"""Pixels mosaicked at a time; each takes about 100 bytes with all copies."""

_STRIP_STEP = 512

_NUM_READERS = 8

_HTTP_OPTIONS = {
    "GDAL_HTTP_MAX_RETRY": "2",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
    "GDAL_HTTP_LOW_SPEED_TIME": "60",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "GDAL_CACHEMAX": 128 * 2**20,  # the default of 5 % of the machine's memory would be filled
    # Otherwise GDAL remembers failed answers and parts that were cut short, and a second attempt reads those again.
    # The header of each file is read again for each strip.
    "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/",
}


class Strip(NamedTuple):
    """Some rows of a mosaic.

    Attributes:
        top: First row.
        bands: `(7, rows, width)` uint16, reflectance x 10000 + 1000; 0 where nothing was measured.
        scl: `(rows, width)` uint8, scene classification; 0 where nothing was measured.
        in_area: `(rows, width)`, True in the area.
    """

    top: int
    bands: NDArray[np.uint16]
    scl: NDArray[np.uint8]
    in_area: NDArray[np.bool_]


class MosaicReader:
    """Reads mosaics of the items of one day on the grid of an area. Use it in a `with` statement.

    Args:
        client: Catalogue that the items come from.
        area: Area of interest, a shapely geometry in longitude and latitude.
        epsg: Code of the UTM zone.

    Attributes:
        grid: Grid of 10 m that covers the area.
    """

    def __init__(self, client: CatalogueClient, area: Any, *, epsg: int) -> None:
        self._client = client
        self._gdal_options: dict[str, Any] = _HTTP_OPTIONS | _get_s3_options(client)
        self._area = _project(area, epsg)
        box = np.array(self._area.bounds)
        west, south = COARSE_M * np.floor(box[:2] / COARSE_M)
        east, north = COARSE_M * np.ceil(box[2:] / COARSE_M)
        self.grid = Grid(
            height=round((north - south) / PIXEL_M),
            width=round((east - west) / PIXEL_M),
            crs=f"EPSG:{epsg}",
            transform=(PIXEL_M, 0.0, float(west), 0.0, -PIXEL_M, float(north)),
        )
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        # Its errors are raised as well, and its log would show tokens in addresses.
        logger = logging.getLogger("rasterio")
        self._stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)
        self._pool = ThreadPoolExecutor(_NUM_READERS, thread_name_prefix="read")
        self._stack.callback(self._pool.shutdown, cancel_futures=True)
        return self

    def __exit__(self, *reason: object) -> None:
        self._stack.close()

    def measure_clear_share(self, items: Sequence[SceneItem]) -> float:
        """Measures the share of the area that is measured and clear, 0 to 1, by the classification at 60 m."""
        shrink = COARSE_M // PIXEL_M
        mosaic = np.zeros((self.grid.height // shrink, self.grid.width // shrink), np.uint8)
        for scl in self._pool.map(lambda item: self._read(item, SCL, self.grid, shrink), items):
            np.copyto(mosaic, scl, where=mosaic == 0)
        return float(is_clear(mosaic)[self._find_area(self.grid, shrink)].mean())

    def read_strips(self, items: Sequence[SceneItem]) -> Iterator[Strip]:
        """Mosaics the items from north to south; where they overlap, the first one that was measured is used.

        Args:
            items: Items in the order of preference.

        Yields:
            Strips that cover the grid.

        Raises:
            FiresegError: If an asset cannot be read.
        """
        height, width = self.grid.height, self.grid.width
        rows = max(_STRIP_STEP, _MAX_STRIP_PX // width // _STRIP_STEP * _STRIP_STEP)
        for top in range(0, height, rows):
            a, b, c, d, e, f = self.grid.transform
            grid = replace(self.grid, height=min(rows, height - top), transform=(a, b, c, d, e, f + e * top))
            yield Strip(top, *self._mosaic(items, grid), self._find_area(grid))

    def _mosaic(self, items: Sequence[SceneItem], grid: Grid) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
        shape = (grid.height, grid.width)
        bands = np.zeros((len(BAND_NAMES), *shape), np.uint16)
        scl, is_missing = np.zeros(shape, np.uint8), np.ones(shape, np.bool_)
        for item in items:
            names = (*BAND_NAMES, SCL)
            *values, classes = self._pool.map(self._read, [item] * len(names), names, [grid] * len(names))
            is_new = is_missing & np.logical_and.reduce([plane > 0 for plane in values])
            for channel, (plane, name) in enumerate(zip(values, BAND_NAMES, strict=True)):
                asset = item.assets[name]
                np.copyto(bands[channel], _to_stored(plane, gain=asset.gain, offset=asset.offset), where=is_new)
            np.copyto(scl, classes, where=is_new)
            is_missing &= ~is_new
            if not is_missing.any():
                break
        return bands, scl

    def _find_area(self, grid: Grid, shrink: int = 1) -> NDArray[np.bool_]:
        """Finds the pixels that the area touches; a small area has one pixel at least."""
        shape, transform = (grid.height // shrink, grid.width // shrink), grid.affine @ Affine.scale(shrink)
        return geometry_mask([self._area], shape, transform, all_touched=True, invert=True)

    def _read(self, item: SceneItem, band: str, grid: Grid, shrink: int = 1) -> NDArray[Any]:
        """Reads one band of an item on a grid, 0 where it has none.

        Args:
            item: Item.
            band: Band, or `SCL`.
            grid: Grid.
            shrink: Pixels of the grid, in each direction, of which one is returned. Overviews are used if there are.
        """
        key, is_scl = item.assets[band].key, band == SCL
        resampling = Resampling.nearest if is_scl else Resampling.bilinear

        def read() -> NDArray[Any]:
            with (
                rasterio.Env(**self._gdal_options),
                open_dataset(self._client.complete_href(item.get_href(band))) as raster,
                WarpedVRT(
                    raster,
                    crs=grid.crs,
                    transform=grid.affine,
                    height=grid.height,
                    width=grid.width,
                    resampling=resampling,
                    src_nodata=0,
                    nodata=0,
                    dtype="uint8" if is_scl else "uint16",
                    tolerance=0.001,  # pixels; the approximation depends on the strip
                ) as warped,
            ):
                return warped.read(1, out_shape=(grid.height // shrink, grid.width // shrink), resampling=resampling)

        def describe(error: Exception) -> FiresegError:
            href = item.get_href(band)
            advice = self._client.catalogue.s3_advice if href.startswith("s3://") else ""
            reason = re.sub(r"\?\S*", "", str(error.__cause__ or error))  # without a token
            return FiresegError(
                f"{item.item.id}, asset {key}: {href} cannot be read, or is cut short ({reason}); "
                f"{advice or 'try again later, or use another --catalog or other dates'}"
            )

        return retry(read, GDAL_ERRORS, describe, is_final=_is_refusal)


def _project(area: Any, epsg: int) -> Any:
    """Projects a geometry from longitude and latitude; straight edges become curves of steps of 0.01 degrees."""
    import shapely

    def project(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(transform_points("EPSG:4326", f"EPSG:{epsg}", points[:, 0], points[:, 1])[:2])

    return shapely.transform(shapely.segmentize(area, 0.01), project)


def is_clear(scl: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Returns True where a scene classification shows the ground, so that the map of the scene is known there."""
    return ~is_cloudy(convert_scene_classification(scl))


def _to_stored(values: NDArray[Any], *, gain: float, offset: float) -> NDArray[np.uint16]:
    """Converts digital numbers to those of baselines since 04.00, so that values below 0 are kept.

    Measured values are 1 and more, because 0 is no data.
    """
    if gain == 1 and offset == BASELINE_OFFSET:
        return values
    stored = np.rint((values.astype(np.float64) - offset) * gain + BASELINE_OFFSET)
    return np.clip(stored, 1, np.iinfo(np.uint16).max).astype(np.uint16)


def _get_s3_options(client: CatalogueClient) -> dict[str, str]:
    endpoint = client.catalogue.s3_endpoint
    return {"AWS_S3_ENDPOINT": endpoint, "AWS_VIRTUAL_HOSTING": "FALSE"} if endpoint else {}


def _is_refusal(error: Exception) -> bool:
    text = f"{error} {error.__cause__ or ''}"
    return bool(re.search(r"(response code|HTTP error code)[ :]+4(?!08|29)\d\d|AccessDenied|InvalidCredential", text))
