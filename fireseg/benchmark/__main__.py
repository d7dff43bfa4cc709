"""Runs `python -m fireseg.benchmark`."""

import sys

from fireseg.benchmark.cli import main

if __name__ == "__main__":
    sys.exit(main())
