"""Runs `python -m fireseg.runs`."""

import sys

from fireseg.runs.cli import main

if __name__ == "__main__":
    sys.exit(main())
