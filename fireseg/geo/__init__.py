"""Large rasters as overlapping windows, and back as maps with places and areas."""

from fireseg.geo.grid import Grid, PixelAreas, PixelSpacing
from fireseg.geo.polygons import Polygons, polygonize, write_polygons
from fireseg.geo.raster import GDAL_VERSION, MapPaths, MapWriter
from fireseg.geo.windows import Blend, Layout, Window, plan_sliding_windows

__all__ = [
    "GDAL_VERSION",
    "Blend",
    "Grid",
    "Layout",
    "MapPaths",
    "MapWriter",
    "PixelAreas",
    "PixelSpacing",
    "Polygons",
    "Window",
    "plan_sliding_windows",
    "polygonize",
    "write_polygons",
]
