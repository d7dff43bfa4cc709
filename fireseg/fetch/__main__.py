"""Runs `python -m fireseg.fetch`."""

import sys

from fireseg.fetch.cli import main

if __name__ == "__main__":
    sys.exit(main())
