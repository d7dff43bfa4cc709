"""Runs `python -m fireseg.train`."""

import sys

from fireseg.train.cli import main

if __name__ == "__main__":
    sys.exit(main())
