"""Prepares patches in a process that ends itself at the n-th step towards the disk, as a test's helper and no more.

    python killed_run.py TILES PATCHES STEPS NOTES LAYOUT

Steps are forced writes and renames; below 0 it lives to the end. A line goes to NOTES for every
step, and for every tile that is read.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fireseg.prepare import tile_task as cutter
from fireseg.prepare.options import TilingOptions
from fireseg.prepare.pipeline import prepare
from fireseg.prepare.plan import PrepareOptions

if __name__ == "__main__":
    tiles, patches, steps, notes, layout = sys.argv[1:]
    left = itertools.count(int(steps), -1)

    def count_down(work: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            note("step")
            return work(*arguments, **options)

        return step

    def note(line: str) -> None:
        with Path(notes).open("a") as file:
            file.write(line + "\n")

    def note_and_read(files: Any, *arguments: Any, **options: Any) -> Any:
        note(files.name)
        return read_tile(files, *arguments, **options)

    os.fsync, os.replace = count_down(os.fsync), count_down(os.replace)
    read_tile, cutter.read_tile = cutter.read_tile, note_and_read
    task = {"task": "del"} if layout == "files" else {}
    recipe = TilingOptions(size=16, layout=layout, **task)  # pyright: ignore[reportArgumentType] - it comes as text
    prepare(PrepareOptions(tiles=Path(tiles), patches=Path(patches), recipe=recipe))
