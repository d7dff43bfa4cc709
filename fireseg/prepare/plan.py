"""Which tiles go where, before any pixel is read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from fireseg.data.patches import SPLITS, Fault
from fireseg.errors import FiresegError, SettingError
from fireseg.prepare.audit import Audit, audit
from fireseg.prepare.footprints import Footprint, TileMetadata, make_footprint, read_tile_metadata
from fireseg.prepare.leakage import Leak
from fireseg.prepare.options import TilingOptions
from fireseg.prepare.split import assign_split
from fireseg.tiles.folder import TileFiles
from fireseg.tiles.reader import find_tiles, read_grid_and_date

SplitBy = Literal["folder", "activation"]


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """What a user asks for.

    Attributes:
        tiles: Folder of the tiles.
        patches: Folder for the patches.
        recipe: How tiles become patches.
        split_by: Whether tiles keep the split of their folders, or a new one is drawn.
        fractions: Of the new one: train, val, test.
        seed: Of the new one.
        metadata: The data set's own table, or None.
        workers: Processes.
        allow_leaks: Whether splits may know of each other.
        allow_bad: Whether faults of tiles are no reason to end with 1.
    """

    tiles: Path
    patches: Path
    recipe: TilingOptions = field(default_factory=TilingOptions)
    split_by: SplitBy = "folder"
    fractions: tuple[float, ...] = (0.7, 0.15, 0.15)
    seed: int = 0
    metadata: Path | None = None
    workers: int = 1
    allow_leaks: bool = False
    allow_bad: bool = False

    def options(self) -> dict[str, Any]:
        """All that decides what the patches are. The number of workers does not."""
        drawn = {"fractions": list(self.fractions), "seed": self.seed} if self.split_by == "activation" else {}
        table = None
        if self.metadata is not None:
            table = hashlib.sha256(_read_bytes(self.metadata)).hexdigest()
        return {**self.recipe.as_dict(), "split_by": self.split_by, **drawn, "metadata": table}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done.

    Attributes:
        tiles: The tiles in the order of the work, each with its split.
        known: What the data set's own table says of them; None without one.
        outside: What is in the way though it belongs to no tile that is read.
    """

    tiles: tuple[TileFiles, ...]
    known: Mapping[str, TileMetadata] | None
    outside: tuple[Fault, ...]


def make_plan(wish: PrepareOptions) -> Plan:
    """Finds the tiles, in whatever split they lie.

    Raises:
        FiresegError: If there is none.
    """
    search = find_tiles(wish.tiles)
    known = None if wish.metadata is None else read_tile_metadata(wish.metadata)
    # Which tiles lie in no folder of a split is of no consequence where a split is drawn.
    faults = (fault for fault in search.faults if wish.split_by == "folder" or fault.path != wish.tiles)
    return Plan(tiles=search.tiles, known=known, outside=tuple(faults))


def assign_splits(plan: Plan, wish: PrepareOptions) -> tuple[Plan, Audit]:
    """Gives each tile its split, and looks what the splits know of each other.

    Returns:
        The plan with the split of each tile, and the audit of their footprints.

    Raises:
        FiresegError: If there are no splits, or none can be drawn.
    """
    footprints = [read_footprint(files, plan.known) for files in plan.tiles]
    if wish.split_by == "activation":
        # One that cannot be read is named when its turn comes; what split it would be in is of no consequence.
        seen = [footprint for footprint in footprints if footprint is not None]
        drawn = iter(assign_split(seen, wish.fractions, wish.seed).footprints if seen else ())
        footprints = [None if footprint is None else next(drawn) for footprint in footprints]
        splits = ["train" if footprint is None else footprint.split for footprint in footprints]
    else:
        splits = [files.split for files in plan.tiles]
        if not any(splits):
            raise SettingError(
                f"{wish.tiles}: no train, val and test folders in it; sort the tiles into such, "
                "or have a split drawn with --split-by activation"
            )
    tiles = tuple(replace(files, split=split) for files, split in zip(plan.tiles, splits, strict=True))
    return replace(plan, tiles=tiles), audit([one for one in footprints if one is not None and one.split])


def read_footprint(files: TileFiles, known: Mapping[str, TileMetadata] | None = None) -> Footprint | None:
    """The footprint of a tile, None where it cannot be read."""
    try:
        return make_footprint(files, *read_grid_and_date(files), known)
    except FiresegError:
        return None


def check_leaks(found: Audit, wish: PrepareOptions) -> list[str]:
    """What the splits know of each other, one short line each.

    Raises:
        FiresegError: If they know something, and may not.
    """
    if found.is_clean or wish.allow_leaks:
        return [describe_leak(finding) for finding in found.findings]
    ways = ["--allow-leaks goes on and writes it into the manifest"]
    if wish.split_by == "folder":
        ways.insert(0, "--split-by activation draws a split without leaks")
    count = "1 leak" if len(found.findings) == 1 else f"{len(found.findings)} leaks"
    raise FiresegError(f"{wish.tiles}: {count} between the splits, so that scores would flatter; {'; '.join(ways)}")


def describe_leak(finding: Leak) -> str:
    """One line, for the manifest.

    Example:
        overlap: train EMSR1_AOI01_01 and val EMSR2_AOI01_01 (53.1 %, 12 days apart)
    """
    first, second = (f"{tile.split} {tile.name}" for tile in finding.tiles)
    share = "" if finding.share is None else f"{100 * finding.share:.1f} %"
    more = ", ".join(part for part in (share, finding.note) if part)
    return f"{finding.kind}: {first} and {second}" + (f" ({more})" if more else "")


def make_journal_header(wish: PrepareOptions, plan: Plan) -> dict[str, Any]:
    """What a record of this work begins with: the options, and the split of each tile."""
    splits = {files.image.relative_to(wish.tiles).as_posix(): files.split for files in plan.tiles}
    return {"options": wish.options(), "tiles": splits}


def apply_splits(plan: Plan, header: Mapping[str, Any], wish: PrepareOptions) -> Plan:
    """The plan as a record began it: tiles that are in a split, in the order of the work, each name once in each."""
    splits = header["tiles"]
    tiles = [replace(files, split=splits[files.image.relative_to(wish.tiles).as_posix()]) for files in plan.tiles]
    tiles = [files for files in tiles if files.split]
    tiles.sort(key=lambda files: (SPLITS.index(files.split), files.name, str(files.image)))
    known_faults = {fault.path for fault in plan.outside}
    outside, chosen = list(plan.outside), dict[tuple[str, str], TileFiles]()
    for files in tiles:
        first = chosen.setdefault((files.split, files.name), files)
        if first is not files and files.image not in known_faults:
            outside.append(Fault(files.image, f"a tile of this name is {first.image} already; take one away"))
    return replace(plan, tiles=tuple(chosen.values()), outside=tuple(outside))


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingError(f"--metadata {path}: cannot be read ({error.strerror or error})") from error
