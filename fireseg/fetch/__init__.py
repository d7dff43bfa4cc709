"""Fetches Sentinel-2 scenes of an area from a STAC catalogue."""
