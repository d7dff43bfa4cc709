"""Train, compare and map: burned-area segmentation on Sentinel-2."""

__version__ = "0.1.0"
