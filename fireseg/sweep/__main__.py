"""Runs `python -m fireseg.sweep`."""

import sys

from fireseg.sweep.cli import main

if __name__ == "__main__":
    sys.exit(main())
