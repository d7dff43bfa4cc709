"""Runs `python -m fireseg.evaluate`."""

import sys

from fireseg.evaluate.cli import main

if __name__ == "__main__":
    sys.exit(main())
