"""Command line of `fetch`."""

from __future__ import annotations

from collections.abc import Sequence

from fireseg.console import run_command, start_logging
from fireseg.fetch.options import FetchOptions


def fetch(options: FetchOptions) -> int:
    """Fetches a Sentinel-2 scene of an area from a public catalogue, ready for `predict`.

    Of the days from --date on, it chooses the one on which most of the area is clear by the scene classification, and
    mosaics its tiles. For fire.geojson it writes fire.tif (seven bands of 10 m), fire_SCL.tif (scene classification)
    and fire.json (products, date, licence); with --before also the same files of fire_before. The same command again
    keeps scenes that are complete.
    The exit code is 0 on success, 1 if no day is clear enough or the catalogue cannot be read, and 2 for an invalid
    argument.
    """
    # Imported here, so that --help answers without waiting for rasterio.
    from fireseg.fetch.pipeline import fetch_scenes

    start_logging()
    fetch_scenes(options)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command with the given arguments, `sys.argv[1:]` if None, and returns the exit code."""
    stopped = "finished scenes are kept, the unfinished one is removed"
    return run_command(fetch, arguments, program="python -m fireseg.fetch", stopped=stopped)
