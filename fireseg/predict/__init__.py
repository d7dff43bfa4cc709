"""The `predict` command: maps burned areas in whole scenes."""
