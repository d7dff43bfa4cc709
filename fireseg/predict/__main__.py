"""Runs `python -m fireseg.predict`."""

import sys

from fireseg.predict.cli import main

if __name__ == "__main__":
    sys.exit(main())
