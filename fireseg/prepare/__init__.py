"""The `prepare` command: cuts Sentinel-2 tiles and their masks into training patches."""
