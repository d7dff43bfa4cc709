"""The `train` command: one training run, or a sweep of them."""
