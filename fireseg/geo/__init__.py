"""Large rasters as overlapping windows, and back as maps with places and areas."""

from fireseg.geo.components import PixelAreas, polygon_area_m2
from fireseg.geo.polygons import Polygons, polygonize, write_polygons
from fireseg.geo.raster import GDAL_VERSION, MapPaths, MapWriter
from fireseg.geo.windows import Blend, Layout, Window, plan_sliding_windows

__all__ = [
    "GDAL_VERSION",
    "Blend",
    "Layout",
    "MapPaths",
    "MapWriter",
    "PixelAreas",
    "Polygons",
    "Window",
    "plan_sliding_windows",
    "polygon_area_m2",
    "polygonize",
    "write_polygons",
]
