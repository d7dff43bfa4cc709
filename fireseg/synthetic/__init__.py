"""A small data set that looks like the real one, made on the spot and the same everywhere."""

from fireseg.synthetic.patches import make_sample
from fireseg.synthetic.scene import Scene, get_footprint, get_tile_name, make_scene

__all__ = ["Scene", "get_footprint", "get_tile_name", "make_sample", "make_scene"]
