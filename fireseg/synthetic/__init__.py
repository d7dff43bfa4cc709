"""Synthetic scenes with known truth: sample patches, sample tiles and sample scenes, reproducible to the byte."""

from fireseg.synthetic.patches import make_sample
from fireseg.synthetic.scene import Scene, get_footprint, get_tile_name, make_scene

__all__ = ["Scene", "get_footprint", "get_tile_name", "make_sample", "make_scene"]
