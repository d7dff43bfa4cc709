"""The `train` command: trains one model, or several in a sweep."""
