"""The `evaluate` command: scores a trained run on a split, fire by fire."""
