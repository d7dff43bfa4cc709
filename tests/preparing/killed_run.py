"""Prepares patches in a process that ends itself at the n-th step towards the disk, as a test's helper and no more.

    python killed_run.py TILES PATCHES STEPS READS LAYOUT

Steps are forced writes and renames; below 0 it lives to the end. A line goes to READS for every tile that is read.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fireseg.data import tile_cutter
from fireseg.data.recipe import Recipe
from fireseg.preparing import Wish, prepare

if __name__ == "__main__":
    tiles, patches, steps, reads, layout = sys.argv[1:]
    left = iter(range(int(steps), -2, -1)) if int(steps) >= 0 else None

    def count_down(work: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            if left is not None and next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return work(*arguments, **options)

        return step

    def note(files: Any, *arguments: Any, **options: Any) -> Any:
        with Path(reads).open("a") as file:
            file.write(files.name + "\n")
        return read_tile(files, *arguments, **options)

    os.fsync, os.replace = count_down(os.fsync), count_down(os.replace)
    read_tile, tile_cutter.read_tile = tile_cutter.read_tile, note
    task = {"task": "del"} if layout == "files" else {}
    recipe = Recipe(size=16, layout=layout, **task)  # pyright: ignore[reportArgumentType] - it comes as text
    prepare(Wish(tiles=Path(tiles), patches=Path(patches), recipe=recipe))
    sys.stdout.write(f"{next(left) if left else 0}\n")
