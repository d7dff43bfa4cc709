"""Folds of a cross-validation: each names the split of every tile of one store of patches.

The patches of all tiles are in one folder, `all`, cut as for validation and test: without overlap, and each labelled
pixel once. Their splits in fold n are in `fold_<n>.csv`, with the columns tile and split.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from fireseg.data.format import PREPARE_AGAIN, Manifest
from fireseg.data.patches import SPLITS, get_tile_name
from fireseg.data.statistics import SplitStatistics
from fireseg.errors import FiresegError, join_names, shorten
from fireseg.files import atomic_write, check_regular_file

_MAX_NAMES = 3


def name_fold_file(fold: int) -> str:
    """Returns the name of the table of a fold.

    Example:
        >>> name_fold_file(2)
        'fold_2.csv'
    """
    return f"fold_{fold}.csv"


def write_fold(root: Path, fold: int, splits: Mapping[str, str]) -> None:
    """Writes the table of a fold.

    Args:
        root: Folder of the store.
        fold: Number of the fold, from 0.
        splits: Split of each tile.
    """
    with atomic_write(root / name_fold_file(fold)) as part, part.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["tile", "split"])
        table.writerows(sorted(splits.items()))


def check_fold(root: Path, fold: int | None, manifest: Manifest | None) -> None:
    """Checks that a fold is chosen if and only if the patches have folds.

    Raises:
        FiresegError: If not, or if there is no fold of this number.
    """
    num_folds = len(manifest.folds) if manifest else 0
    if num_folds and (fold is None or fold >= num_folds):
        given = "no fold is chosen" if fold is None else f"{fold}, the first is 0"
        every = ",".join(map(str, range(num_folds)))
        raise FiresegError(
            f"data.fold: {given}, but {root} has {num_folds} folds; choose one of 0 to {num_folds - 1}, such as "
            f"data.fold=0, or train on each with -m data.fold={every}"
        )
    if fold is not None and not num_folds:
        raise FiresegError(
            f"data.fold: {fold}, but {root} has no folds; leave it out, or prepare the tiles with --folds 5"
        )


def select_fold(root: Path, fold: int, scan: SplitStatistics) -> dict[str, SplitStatistics]:
    """Divides the patches of a store into the splits of a fold.

    Args:
        root: Folder of the store.
        fold: Number of the fold, from 0.
        scan: Statistics of all patches.

    Returns:
        Statistics and reader of train, val and test.

    Raises:
        FiresegError: If the table of the fold cannot be read or does not name the split of every tile.
    """
    tiles = {get_tile_name(patch.name) or patch.name for patch in scan.patches}
    split_of = _read_fold(root / name_fold_file(fold), tiles)
    scans = {}
    for split in SPLITS:
        patches = tuple(patch for patch in scan.patches if split_of[get_tile_name(patch.name) or patch.name] == split)
        # Faults that belong to no tile are those of the whole folder and are reported once.
        faults = (fault for fault in scan.faults if split_of.get(get_tile_name(fault.patch) or "", "train") == split)
        scans[split] = SplitStatistics(
            scan.reader.select(patch.name for patch in patches),
            patches,
            tuple(faults),
            scan.notes if split == "train" else (),
            place=f"{root}, fold {fold}, {split}",
        )
    return scans


def _read_fold(path: Path, tiles: set[str]) -> dict[str, str]:
    check_regular_file(path)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            splits = {row["tile"]: row["split"] for row in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise FiresegError(f"{path}: not a table with the columns tile and split ({error}); {PREPARE_AGAIN}") from error
    faults = [
        f"{path}: tile {tile}: split '{split}', but must be train, val or test; {PREPARE_AGAIN}"
        for tile, split in splits.items()
        if split not in SPLITS
    ]
    if missing := sorted(tiles - splits.keys()):
        faults.append(f"{path}: no split for {len(missing)} tiles ({join_names(missing, _MAX_NAMES)}); {PREPARE_AGAIN}")
    if faults:
        raise FiresegError(*shorten(faults))
    return splits
