"""The `serve` command: a web page and a JSON interface that map scenes with a trained run."""
