"""Large rasters as overlapping windows, and back as maps with places and areas."""

from fireseg.scene.areas import PixelAreas, polygon_area_m2
from fireseg.scene.blend import Blend
from fireseg.scene.cog import GDAL_VERSION
from fireseg.scene.outputs import MapPaths, MapWriter
from fireseg.scene.polygons import Polygons, draw_polygons
from fireseg.scene.vectors import write_vectors
from fireseg.scene.windows import Layout, Window, plan_windows

__all__ = [
    "GDAL_VERSION",
    "Blend",
    "Layout",
    "MapPaths",
    "MapWriter",
    "PixelAreas",
    "Polygons",
    "Window",
    "draw_polygons",
    "plan_windows",
    "polygon_area_m2",
    "write_vectors",
]
