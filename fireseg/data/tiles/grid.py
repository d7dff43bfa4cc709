"""Where on earth the pixels of a raster lie."""

from __future__ import annotations

from typing import Any

from rasterio import Affine
from rasterio._err import CPLE_BaseError  # pyright: ignore[reportMissingImports]  # the errors of GDAL have no public name
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.warp import transform as transform_points
from rasterio.warp import transform_bounds

from fireseg.data.tiles.origin import find_date, list_pairs
from fireseg.data.tiles.tile import Place
from fireseg.errors import FiresegError

_LONLAT = "EPSG:4326"

_MAX_SHIFT_PX = 0.1
"""How far a mask may lie beside its image: less than labels are exact to, more than rounding moves a corner."""


def locate(raster: DatasetReader, metadata: dict[str, Any]) -> Place:
    """Where and when a raster was taken.

    Args:
        raster: An open raster.
        metadata: What the json beside it says; may be nothing.

    Raises:
        FiresegError: If it has no georeference, or one that is nowhere on earth.
    """
    path, crs, transform = raster.name, raster.crs, raster.transform
    if crs is None or transform.is_identity:
        raise FiresegError(
            f"{path}: no georeference, so that nobody can tell what it overlaps; "
            "set it with gdal_edit.py -a_srs EPSG:… -a_ullr west north east south"
        )
    height, width = raster.height, raster.width
    ring = [_apply(transform, corner) for corner in ((0, 0), (width, 0), (width, height), (0, height))]
    xs, ys = zip(*ring, strict=True)
    box = min(xs), min(ys), max(xs), max(ys)
    if crs.to_epsg() != 4326:  # through itself the box would lose its last digits
        try:
            box = transform_bounds(crs, _LONLAT, *box)
            ring = list(zip(*transform_points(crs, _LONLAT, xs, ys)[:2], strict=True))
        except (RasterioError, CPLE_BaseError) as error:
            raise FiresegError(
                f"{path}: nothing leads from its reference system to longitude and latitude ({error}); "
                "set the one that it is in with gdal_edit.py -a_srs EPSG:…"
            ) from error
    return Place(
        height=height,
        width=width,
        crs=crs.to_string(),
        transform=tuple(transform)[:6],
        bounds_lonlat=box,
        outline_lonlat=tuple(ring),
        date=find_date(list_pairs(raster.tags(), metadata)),
    )


def compare_grids(mask: DatasetReader, image: DatasetReader) -> str:
    """What differs, worded to stand before the name of the image; nothing if they lie on one another.

    Args:
        mask: An open raster.
        image: Another one, with a georeference.
    """
    if mask.shape != image.shape:
        return f"{mask.height} x {mask.width} pixels, but {image.height} x {image.width} in"
    if mask.crs != image.crs:
        names = [raster.crs.to_string() if raster.crs else "no reference system" for raster in (mask, image)]
        return f"{names[0]}, but {names[1]} in"
    corners = [(col, row) for col in (0, image.width) for row in (0, image.height)]
    moved = [_apply(~image.transform, _apply(mask.transform, corner)) for corner in corners]
    shift = max(abs(was - now) for pair in zip(corners, moved, strict=True) for was, now in zip(*pair, strict=True))
    return f"shifted by {shift:.2g} pixels against" if shift > _MAX_SHIFT_PX else ""


def _apply(transform: Affine, place: tuple[float, float]) -> tuple[float, float]:
    # Written out, because the operator for it changes between versions of affine.
    return (
        transform.a * place[0] + transform.b * place[1] + transform.c,
        transform.d * place[0] + transform.e * place[1] + transform.f,
    )
