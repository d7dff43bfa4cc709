"""Pixel grids, sliding windows, Cloud-Optimized GeoTIFFs, and polygons of burned areas."""

from fireseg.geo.band_raster import BandWriter
from fireseg.geo.grid import Grid, PixelAreas, PixelSpacing
from fireseg.geo.polygons import Polygons, polygonize, write_polygons
from fireseg.geo.raster import GDAL_VERSION, MapPaths, MapWriter
from fireseg.geo.windows import Blend, SlidingWindows, Window, plan_sliding_windows

__all__ = [
    "GDAL_VERSION",
    "BandWriter",
    "Blend",
    "Grid",
    "MapPaths",
    "MapWriter",
    "PixelAreas",
    "PixelSpacing",
    "Polygons",
    "SlidingWindows",
    "Window",
    "plan_sliding_windows",
    "polygonize",
    "write_polygons",
]
