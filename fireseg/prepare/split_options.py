"""Options of `prepare` that say how tiles are divided into splits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from fireseg.console import metavar
from fireseg.errors import FiresegError, SettingError
from fireseg.files import check_regular_file

SplitBy = Literal["folder", "activation"]

_FRACTIONS = (0.7, 0.15, 0.15)

GROUP_KM = 10.0
"""Default distance up to which tiles of unknown activations stay together."""

MIN_FOLDS, MAX_FOLDS = 3, 100

GROUP_DAYS = 30
"""Default number of days up to which they do."""


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """Options of the splits.

    Attributes:
        split_by: Use the splits of the folders, or draw splits that do not leak: tiles of an activation, and
            activations that overlap, stay together.
        split_csv: Use the splits of a table with the columns tile and split.
        fractions: Shares of train, val and test, with --split-by activation.
        folds: Cross-validation: divide the tiles into this number of parts, each of which is test in one fold, val
            in another and train in the rest. All patches are cut once, as in val and test.
        seed: Seed of drawn splits.
        groups: Tiles that stay together in drawn splits: those of one folder (folder), or of one group in a table
            with the columns tile and group.
        group_km: A tile whose name tells no activation stays together with tiles up to this distance in km.
        group_days: Such a tile stays with those up to this number of days apart; unknown dates count as near.
    """

    split_by: SplitBy = "folder"
    split_csv: Annotated[Path | None, metavar("CSV")] = None
    fractions: tuple[float, float, float] = _FRACTIONS
    folds: Annotated[int | None, metavar("INT")] = None
    seed: int = 0
    groups: Annotated[str | None, metavar("folder|CSV")] = None
    group_km: float = GROUP_KM
    group_days: int = GROUP_DAYS

    @property
    def is_drawn(self) -> bool:
        """True if splits are drawn, not given."""
        return self.split_by == "activation" or self.folds is not None

    @property
    def groups_csv(self) -> Path | None:
        """Table of the groups, if they are in a table."""
        return None if self.groups in (None, "folder") else Path(self.groups)

    def list_split_faults(self) -> list[str]:
        """Returns options that are out of range or have no effect, one sentence each."""
        faults = []
        if self.split_csv is not None and self.is_drawn:
            option = "--split-by activation" if self.folds is None else "--folds"
            faults.append(f"--split-csv: gives the splits, so there is none to draw; omit {option}")
        if self.folds is not None and not MIN_FOLDS <= self.folds <= MAX_FOLDS:
            faults.append(
                f"--folds: {self.folds}, but must be {MIN_FOLDS} to {MAX_FOLDS}: one part for test, one for val, "
                "and the rest for train"
            )
        if self.folds is not None and self.fractions != _FRACTIONS:
            faults.append("--fractions: no effect with --folds, whose parts have equal size; omit it")
        if self.group_km < 0:
            faults.append(f"--group-km: {self.group_km:g}, but must be 0 or more")
        if self.group_days < 0:
            faults.append(f"--group-days: {self.group_days}, but must be 0 or more")
        near = {"--group-km": self.group_km != GROUP_KM, "--group-days": self.group_days != GROUP_DAYS}
        given = [name for name, is_given in ({"--groups": self.groups is not None} | near).items() if is_given]
        if given and not self.is_drawn:
            faults.append(
                f"{' and '.join(given)}: no effect on given splits; draw them with --split-by activation or --folds"
            )
        elif self.groups is not None and any(near.values()):
            faults.append(
                f"{' and '.join(given[1:])}: no effect with --groups, which says what stays together; omit it"
            )
        return faults

    def split_dict(self) -> dict[str, Any]:
        """Returns the options that determine the splits as plain values, with digests of tables.

        Raises:
            SettingError: If a table cannot be read.
        """
        # Options of later versions are left out if they are not given: folders of earlier versions do not have them.
        later = {
            "split_csv": self.split_csv and hash_option("--split-csv", self.split_csv),
            "groups": hash_option("--groups", self.groups_csv) if self.groups_csv else self.groups,
            "group_km": None if self.group_km == GROUP_KM else self.group_km,
            "group_days": None if self.group_days == GROUP_DAYS else self.group_days,
        }
        given = {name: value for name, value in later.items() if value is not None}
        if self.folds is not None:
            return {"split_by": "activation", "folds": self.folds, "seed": self.seed, **given}
        drawn = {"fractions": list(self.fractions), "seed": self.seed} if self.is_drawn else {}
        return {"split_by": self.split_by, **drawn, **given}


def hash_option(option: str, path: Path) -> str:
    """Returns the digest of a file that an option names.

    Raises:
        SettingError: If it cannot be read.
    """
    try:
        check_regular_file(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FiresegError as error:
        raise SettingError(f"{option} {error}") from error
    except OSError as error:
        reason = error.strerror or error
        raise SettingError(f"{option} {path}: cannot be read ({reason}); check its path and permissions") from error
