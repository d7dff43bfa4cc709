"""Runs `python -m fireseg.report`."""

import sys

from fireseg.report.cli import main

if __name__ == "__main__":
    sys.exit(main())
