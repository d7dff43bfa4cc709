"""Reads the pixels of items and mosaics them on one grid."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fireseg.data.bands import BAND_NAMES
from fireseg.errors import FiresegError
from fireseg.fetch.catalogue import CatalogueClient, retry
from fireseg.fetch.items import SceneItem
from fireseg.geo.grid import GDAL_ERRORS, Grid
from fireseg.tiles.channels import SCL
from fireseg.tiles.clouds import convert_scene_classification, is_cloudy
from fireseg.tiles.metadata import BASELINE_OFFSET

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
        import odc.stac
        from odc.geo.geobox import GeoBox
        from odc.geo.geom import Geometry
        from odc.geo.xr import rasterize

        gdal_options: dict[str, Any] = _HTTP_OPTIONS | _get_s3_options(client)
        odc.stac.configure_rio(cloud_defaults=True, **gdal_options)
        self._client = client
        self._area = Geometry(area, "EPSG:4326").to_crs(f"EPSG:{epsg}", resolution=0.01)
        self._rasterize = rasterize
        box = self._area.boundingbox
        west, south = (COARSE_M * np.floor(value / COARSE_M) for value in (box.left, box.bottom))
        east, north = (COARSE_M * np.ceil(value / COARSE_M) for value in (box.right, box.top))
        self._geobox = GeoBox.from_bbox((west, south, east, north), f"EPSG:{epsg}", resolution=PIXEL_M, tight=True)
        height, width = self._geobox.shape
        transform: Any = tuple(self._geobox.affine)[:6]
        self.grid = Grid(height=height, width=width, crs=f"EPSG:{epsg}", transform=transform)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        # rasterio suppresses this warning itself, but not reliably in several threads at once.
        self._stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message="Dataset has no geotransform")
        # Their errors are raised as well, and their logs would show tokens in addresses.
        for logger in (logging.getLogger("odc.loader"), logging.getLogger("rasterio")):
            self._stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL)
        self._pool = ThreadPoolExecutor(_NUM_READERS, thread_name_prefix="read")
        self._stack.callback(self._pool.shutdown, cancel_futures=True)
        return self

    def __exit__(self, *reason: object) -> None:
        self._stack.close()

    def measure_clear_share(self, items: Sequence[SceneItem]) -> float:
        """Measures the share of the area that is measured and clear, 0 to 1, by the classification at 60 m."""
        geobox = self._geobox.zoom_out(COARSE_M // PIXEL_M)
        mosaic = np.zeros(geobox.shape, np.uint8)
        for scl in self._pool.map(lambda item: self._read(item, SCL, geobox), items):
            np.copyto(mosaic, scl, where=mosaic == 0)
        return float(is_clear(mosaic)[self._find_area(geobox)].mean())

    def read_strips(self, items: Sequence[SceneItem]) -> Iterator[Strip]:
        """Mosaics the items from north to south; where they overlap, the first one that was measured is used.

        Args:
            items: Items in the order of preference.

        Yields:
            Strips that cover the grid.

        Raises:
            FiresegError: If an asset cannot be read.
        """
        height, width = self._geobox.shape
        rows = max(_STRIP_STEP, _MAX_STRIP_PX // width // _STRIP_STEP * _STRIP_STEP)
        for top in range(0, height, rows):
            geobox = self._geobox[top : min(top + rows, height), :]
            yield Strip(top, *self._mosaic(items, geobox), self._find_area(geobox))

    def _mosaic(self, items: Sequence[SceneItem], geobox: Any) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
        bands = np.zeros((len(BAND_NAMES), *geobox.shape), np.uint16)
        scl, is_missing = np.zeros(geobox.shape, np.uint8), np.ones(geobox.shape, np.bool_)
        for item in items:
            names = (*BAND_NAMES, SCL)
            *values, classes = self._pool.map(self._read, [item] * len(names), names, [geobox] * len(names))
            is_new = is_missing & np.logical_and.reduce([plane > 0 for plane in values])
            for channel, (plane, name) in enumerate(zip(values, BAND_NAMES, strict=True)):
                asset = item.assets[name]
                np.copyto(bands[channel], _to_stored(plane, gain=asset.gain, offset=asset.offset), where=is_new)
            np.copyto(scl, classes, where=is_new)
            is_missing &= ~is_new
            if not is_missing.any():
                break
        return bands, scl

    def _find_area(self, geobox: Any) -> NDArray[np.bool_]:
        """Finds the pixels that the area touches; a small area has one pixel at least."""
        return self._rasterize(self._area, geobox, all_touched=True).values

    def _read(self, item: SceneItem, band: str, geobox: Any) -> NDArray[Any]:
        """Reads one band of an item on a grid, 0 where it has none."""
        import odc.stac

        key = item.assets[band].key

        def read() -> NDArray[Any]:
            loaded = odc.stac.load(
                [item.item],
                bands=[key],
                geobox=geobox,
                groupby="id",
                dtype="uint8" if band == SCL else "uint16",
                nodata=0,
                resampling="nearest" if band == SCL else "bilinear",
                patch_url=self._client.complete_href,
            )
            return loaded[key].values[0]

        def describe(error: Exception) -> FiresegError:
            href = item.item.assets[key].get_absolute_href() or item.item.assets[key].href
            advice = self._client.catalogue.s3_advice if href.startswith("s3://") else ""
            reason = re.sub(r"\?\S*", "", str(error.__cause__ or error))  # without a token
            return FiresegError(
                f"{item.item.id}, asset {key}: {href} cannot be read, or is cut short ({reason}); "
                f"{advice or 'try again later, or use another --catalog or other dates'}"
            )

        return retry(read, GDAL_ERRORS, describe, is_final=_is_refusal)


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
