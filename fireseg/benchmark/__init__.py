"""The `benchmark` command: judges training recipes by cross-validation over fires."""
