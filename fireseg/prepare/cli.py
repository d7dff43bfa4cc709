"""Door: raw tiles into patches."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from fireseg.console import metavar, run_command, start_logging
from fireseg.data.bands import BAND_NAMES
from fireseg.errors import SettingError

_PROGRAM = "python -m fireseg.prepare"


def prepare(
    tiles: Annotated[Path | None, tyro.conf.Positional, metavar("TILES")] = None,
    patches: Annotated[Path | None, tyro.conf.Positional, metavar("PATCHES")] = None,
    /,
    *,
    bands: Annotated[tuple[str, ...], tyro.conf.arg(metavar="BAND ...")] = BAND_NAMES,
    size: int = 256,
    stride: Annotated[int | None, metavar("INT")] = None,
    workers: int = 1,
    max_cloud: float = 0.5,
    clouds: Literal["ignore", "keep"] = "ignore",
    light_clouds: Literal["ignore", "keep"] = "keep",
    disagreement: Literal["keep", "ignore"] = "keep",
    offset: Annotated[float | None, metavar("NUMBER")] = None,
    layout: Literal["packed", "files"] = "packed",
    task: Annotated[Literal["del", "gra"] | None, metavar("{del,gra}")] = None,
    split_by: Literal["folder", "activation"] = "folder",
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    metadata: Annotated[Path | None, metavar("CSV")] = None,
    allow_leaks: bool = False,
    allow_bad: bool = False,
    audit: Annotated[Path | None, metavar("PATH")] = None,
    json: Path = Path("audit.json"),
) -> int:
    """Cuts Sentinel-2 tiles with their burned-area masks into patches to train on.

    TILES holds train, val and test, and in them at any depth <name>_S2L2A.tif with <name>_DEL.tif, <name>_GRA.tif,
    <name>_CM.tif and <name>_S2L2A.json beside it. Every labelled pixel lands in a patch. Stopped or killed, the same
    command goes on from there. It ends with 0 if all is well, 1 if tiles have faults or splits leak, and 2 for a
    wrong argument.

    Args:
        tiles: Folder of the tiles.
        patches: Folder for the patches: an empty or new one, or one begun with the same options.
        audit: Only say who overlaps whom among tiles, or in the data set's own csv; 1 if any do. Needs no folders.
        bands: Bands of a patch, in this order, found in a tile by its band descriptions.
        size: Side of a patch in pixels.
        stride: Pixels from one training patch to the next; 7/8 of the size if not given. In val and test: the size.
        max_cloud: Leave out patches with a larger share of cloud, 0 to 1.
        clouds: What becomes of labels under opaque cloud and shadow: ignored (255), or kept.
        light_clouds: The same for light cloud and haze.
        disagreement: What becomes of labels where DEL and GRA disagree.
        offset: What digital numbers have on top, as 1000 from baseline 04.00 on, where no metadata say so.
        layout: Packed arrays, fast to read; or one .npy a patch, which other tools read.
        task: Whose mask goes beside each patch with --layout files.
        split_by: Keep the split of the folders, or draw one that cannot leak.
        fractions: Shares of train, val and test in a split that is drawn.
        seed: Another number draws another split.
        metadata: The data set's satelliteData.csv: adds country, climate and date to metadata.csv.
        workers: Processes. Their number changes nothing but the time.
        allow_leaks: Go on though splits know of each other; the manifest and every training will say so.
        allow_bad: End with 0 though tiles have faults.
        json: Where --audit writes all that it found.
    """
    # Only now: a second or two that --help need not wait for.
    from fireseg.prepare.inspect import audit_tiles
    from fireseg.prepare.options import TilingOptions
    from fireseg.prepare.pipeline import prepare as cut
    from fireseg.prepare.plan import PrepareOptions
    from fireseg.prepare.report import write_report

    start_logging()
    if workers < 1:
        raise SettingError(f"--workers: {workers}, but one process at least does the work")
    if audit is not None:
        if tiles is not None:
            raise SettingError(f"--audit {audit}: takes the place of both folders; leave {tiles} out")
        found, faults = audit_tiles(audit, json_path=json, workers=workers)
        return _end(faults, allow_bad) or int(not found.is_clean)
    if tiles is None or patches is None:
        raise SettingError(f"two folders are wanted: {_PROGRAM} TILES patches (--help says more)")
    recipe = TilingOptions(
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
    wish = PrepareOptions(
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
    return _end(cut(wish, report=write_report).faults, allow_bad)


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line, does what it says, and returns what to end with."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers are the parallelism
    stopped = "the same command goes on from here"
    return run_command(prepare, arguments, program=_PROGRAM, stopped=stopped)


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
