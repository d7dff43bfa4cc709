"""Runs `python -m fireseg.export`."""

import sys

from fireseg.export.cli import main

if __name__ == "__main__":
    sys.exit(main())
