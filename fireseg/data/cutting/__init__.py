"""Tiles into patches: windows, labels, and a record of the work that outlives being killed."""
