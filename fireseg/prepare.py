"""Door: raw tiles into patches."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

import tyro

from fireseg.errors import FiresegError, SettingError

_PROGRAM = "python -m fireseg.prepare"


def prepare(
    tiles: Annotated[Path | None, tyro.conf.Positional] = None,
    patches: Annotated[Path | None, tyro.conf.Positional] = None,
    /,
    *,
    audit: Path | None = None,
    bands: tuple[str, ...] = ("B02", "B03", "B04", "B08", "B8A", "B11", "B12"),
    size: int = 256,
    stride: int | None = None,
    max_cloud: float = 0.5,
    clouds: Literal["ignore", "keep"] = "ignore",
    light_clouds: Literal["ignore", "keep"] = "keep",
    disagreement: Literal["keep", "ignore"] = "keep",
    offset: float | None = None,
    layout: Literal["packed", "files"] = "packed",
    task: Literal["del", "gra"] | None = None,
    split_by: Literal["folder", "activation"] = "folder",
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    metadata: Path | None = None,
    workers: int = 1,
    allow_leaks: bool = False,
    allow_bad: bool = False,
    json: Path = Path("audit.json"),
) -> int:
    """Cuts Sentinel-2 tiles with their burned-area masks into patches to train on.

    TILES holds train, val and test, with <name>_S2L2A.tif and <name>_DEL.tif, <name>_GRA.tif, <name>_CM.tif
    and <name>_S2L2A.json beside it, at any depth. Every labelled pixel lands in a patch. Stopped or killed,
    the same command goes on where it was. Ends with 0 if all is well, 1 if tiles have faults or splits leak,
    2 for a wrong argument.

    Args:
        tiles: Folder of the tiles.
        patches: Folder for the patches: a new or empty one, or one that was begun with the same options.
        audit: Only say who overlaps whom, among tiles (a folder) or in the data set's own table (a csv), and end
            with 1 if anybody does. Takes the place of both folders.
        bands: Bands of a patch, in this order. Tiles say by their band descriptions which they have; twelve
            without any are those of level 2A.
        size: Side of a patch in pixels.
        stride: Pixels from one training patch to the next (default: 7/8 of the size, 224 of 256). Patches of
            val and test lie side by side, and each pixel counts once.
        max_cloud: Leave out patches with a larger share of cloud, 0 to 1.
        clouds: Whether labels under opaque cloud and its shadow are ignored (255) or kept.
        light_clouds: Whether light cloud and haze are treated the same.
        disagreement: Whether labels are kept or ignored where DEL and GRA disagree.
        offset: What integer digital numbers have on top, as 1000 since processing baseline 04.00, where neither
            json nor tags say so.
        layout: Packed arrays, which are fast to read, or one .npy a patch, which other tools read.
        task: Whose mask the files of --layout files hold.
        split_by: Keep the split of the folders, or draw one in which activations stay together and nothing
            overlaps.
        fractions: Shares of train, val and test in a split that is drawn.
        seed: Another number, another split.
        metadata: The data set's satelliteData.csv: adds country, climate and date to metadata.csv.
        workers: Processes. Their number changes nothing but the time.
        allow_leaks: Go on though splits know of each other. The manifest and every training will say so.
        allow_bad: End with 0 though tiles have faults.
        json: Where --audit writes all that it found.
    """
    # Only now: a second or two that --help need not wait for.
    from fireseg.console import start_logging
    from fireseg.data.recipe import Recipe
    from fireseg.preparing import Wish, audit_path
    from fireseg.preparing import prepare as cut

    start_logging()
    if workers < 1:
        raise SettingError(f"--workers: {workers}, but one process at least does the work")
    if audit is not None:
        if tiles is not None:
            raise SettingError(f"--audit {audit}: takes the place of both folders; leave {tiles} out")
        found, faults = audit_path(audit, json_path=json, workers=workers)
        return _end(faults, allow_bad) or int(not found.is_clean)
    if tiles is None or patches is None:
        raise SettingError(f"two folders are wanted: {_PROGRAM} TILES patches (--help says more)")
    recipe = Recipe(
        bands=bands,
        size=size,
        stride=stride,
        max_cloud=max_cloud,
        layout=layout,
        task=task,
        clouds=clouds,
        light_clouds=light_clouds,
        disagreement=disagreement,
        offset=offset,
    )
    wish = Wish(
        tiles=tiles,
        patches=patches,
        recipe=recipe,
        split_by=split_by,
        fractions=fractions,
        seed=seed,
        metadata=metadata,
        workers=workers,
        allow_leaks=allow_leaks,
        allow_bad=allow_bad,
    )
    return _end(cut(wish).faults, allow_bad)


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line, does what it says, and returns what to end with."""
    signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        return tyro.cli(prepare, prog=_PROGRAM, args=arguments)
    except FiresegError as error:
        for fault in error.faults:
            print(f"fireseg: {fault}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("fireseg: stopped; the same command goes on from here", file=sys.stderr)
        return 128 + signal.SIGINT
    except _Terminated:
        print("fireseg: stopped; the same command goes on from here", file=sys.stderr)
        return 128 + signal.SIGTERM


class _Terminated(BaseException):
    """SIGTERM came. Not an `Exception`, so that nothing on the way takes it for a fault to go on from."""


def _raise_terminated(signum: int, frame: FrameType | None) -> None:
    raise _Terminated


def _end(faults: Sequence[str], allow_bad: bool) -> int:
    """Says what is wrong with tiles, and what to end with."""
    if not faults:
        return 0
    print(f"\n{len(faults)} fault{'s' * (len(faults) > 1)}:", file=sys.stderr)
    for fault in faults:
        print(f"  {fault}", file=sys.stderr)
    if allow_bad:
        return 0
    print("mend or take away what is named, or accept it with --allow-bad", file=sys.stderr)
    return 1


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
