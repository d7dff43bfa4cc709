"""Command line of `prepare`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from fireseg.console import print_faults, run_command, start_logging
from fireseg.errors import SettingError
from fireseg.prepare.options import PrepareOptions

_PROGRAM = "python -m fireseg.prepare"


def prepare(options: PrepareOptions) -> int:
    """Cuts Sentinel-2 tiles and their burned-area masks into training patches.

    TILES contains the folders train, val and test, and in them, at any depth, <name>_S2L2A.tif with <name>_DEL.tif,
    <name>_GRA.tif, <name>_CM.tif and <name>_S2L2A.json; docs/inputs.md lists other formats and names. Every labelled
    pixel is part of a patch. If interrupted, run the same command again to continue.

    Exit code: 0 on success, 1 if tiles have faults or splits leak, 2 if an argument is invalid.
    """
    # Imported here because reading rasters takes a second to import, which --help can do without.
    from fireseg.prepare.audit import audit_tiles
    from fireseg.prepare.pipeline import prepare as prepare_patches
    from fireseg.prepare.report import write_report

    start_logging()
    if options.audit is not None:
        if options.tiles is not None:
            raise SettingError(f"--audit {options.audit}: takes the place of TILES and PATCHES; omit {options.tiles}")
        audit, faults = audit_tiles(
            options.audit,
            json_path=options.json,
            workers=options.workers,
            options=options.tiling,
            labels=options.tiling.labels,
        )
        return _finish(faults, options.allow_bad) or int(not audit.is_clean)
    if options.tiles is None or options.patches is None:
        raise SettingError(f"two folders are required: {_PROGRAM} TILES PATCHES (see --help)")
    outcome = prepare_patches(options, write_report=write_report)
    return _finish(outcome.faults, options.allow_bad)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the worker processes are the parallelism
    return run_command(prepare, arguments, program=_PROGRAM, stopped="run the same command again to continue")


def _finish(faults: Sequence[str], allow_bad: bool) -> int:
    """Prints the faults of tiles on stderr and returns the exit code."""
    if not faults:
        return 0
    print_faults(faults)
    if allow_bad:
        return 0
    print("fix or remove the files listed, or accept the faults with --allow-bad", file=sys.stderr)
    return 1
