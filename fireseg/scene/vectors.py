"""Polygons into files that a GIS opens."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from fireseg.disk import disk_error, replacing
from fireseg.errors import FiresegError
from fireseg.scene.polygons import Polygons

LAYER = "burned"


def write_vectors(polygons: Polygons, path: Path, *, driver: Literal["GPKG", "GeoJSON"]) -> None:
    """Writes polygons, whole or not at all. A map without fire gives a valid file without a feature.

    Args:
        polygons: What to write.
        path: The file; its folder must exist, and takes a temporary file.
        driver: `GPKG` in the CRS of the map, layer `burned`; `GeoJSON` in longitude and latitude (RFC 7946), cut at
            the antimeridian. GeoJSON names its fields with each feature, so an empty one has none.

    Raises:
        FiresegError: If the file cannot be written.
    """
    from pyogrio.errors import DataLayerError, DataSourceError

    try:
        with TemporaryDirectory(prefix=".vectors-", dir=path.parent) as work:
            written = Path(work) / f"{LAYER}.{driver.lower()}"  # GDAL wants the suffix of the format
            is_whole = _write(polygons, written, driver)
            if is_whole:
                with replacing(path) as part:
                    written.replace(part)
    except OSError as error:
        raise disk_error(path, error) from error
    except (DataLayerError, DataSourceError) as error:
        raise FiresegError(f"{path}: cannot be written ({error}); is the disk full? make room") from error
    if not is_whole:
        raise FiresegError(f"{path}: does not hold what was written to it; is the disk full or broken?")


def _write(polygons: Polygons, path: Path, driver: str) -> bool:
    """Returns whether all of it is there: GDAL can miss that the disk is full at the end of a file."""
    import shapely
    from pyogrio import raw, read_info

    raw.write(
        path,
        shapely.to_wkb(polygons.geometries),
        list(polygons.fields.values()),
        list(polygons.fields),
        driver=driver,
        layer=LAYER,
        geometry_type="Polygon",
        crs=polygons.crs.to_wkt(),
        layer_options={"RFC7946": "YES"} if driver == "GeoJSON" else {},
    )
    return read_info(path, force_feature_count=True)["features"] == len(polygons.geometries)
