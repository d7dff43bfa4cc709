"""Runs `python -m fireseg.serve`."""

import sys

from fireseg.serve.cli import main

if __name__ == "__main__":
    sys.exit(main())
