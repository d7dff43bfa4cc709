"""Runs `python -m fireseg.prepare`."""

import sys

from fireseg.prepare.cli import main

if __name__ == "__main__":
    sys.exit(main())
