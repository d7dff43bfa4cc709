"""Runs `python -m fireseg.register`."""

import sys

from fireseg.register.cli import main

if __name__ == "__main__":
    sys.exit(main())
