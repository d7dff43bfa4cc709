"""Options for reading rasters whose own metadata do not say enough."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from fireseg.console import metavar
from fireseg.errors import SettingError
from fireseg.task import IGNORE_INDEX, TASKS

_CLASS_RULE = re.compile(r"(?:(DEL|GRA):)?(-?\d+(?:\.\d+)?)=(\d+)")


@dataclass(frozen=True, kw_only=True)
class RasterOptions:
    """Options for reading rasters, used where the metadata of a raster are silent.

    Attributes:
        channels: Band of each channel of rasters without band descriptions, in their order: names such as B02 or
            nir08, mask or SCL for a validity channel, - for any other.
        offset: Radiometric offset of the digital numbers (BOA_ADD_OFFSET; 1000 since processing baseline 04.00),
            used if the metadata do not give it (default: that of the baseline in the name of the product, else 0).
        trust_values: Accept values that do not look like reflectance, or seem to contain the offset; they are flagged.
    """

    channels: Annotated[tuple[str, ...] | None, metavar("BAND ...")] = None
    offset: Annotated[float | None, metavar("NUMBER")] = None
    trust_values: bool = False

    def list_faults(self) -> list[str]:
        """Lists the options that are out of range."""
        if self.offset is None or 0 <= self.offset < 10_000:
            return []
        return [f"--offset: {self.offset:g}, but it must be in digital numbers, 0 to 9999, such as 1000"]


DEFAULT_OPTIONS = RasterOptions()


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """Options for reading the labels of tiles.

    Attributes:
        classes: Values of the masks that mean another class, such as 255=1, or 1=0 2=1; 255 means unknown. DEL:255=1
            and GRA:5=4 apply to one kind of mask only.
        align_masks: Warp masks on another grid to the grid of their image, by the nearest pixel.

    Raises:
        SettingError: If a rule of `classes` is invalid; lists all faults.
    """

    classes: Annotated[tuple[str, ...] | None, metavar("FROM=TO ...")] = None
    align_masks: bool = False

    def __post_init__(self) -> None:
        faults, seen = [], set[tuple[str, float]]()
        for rule in self._list_rules():
            if not (match := _CLASS_RULE.fullmatch(rule)):
                faults.append(f"--classes {rule}: not understood; write FROM=TO, such as 255=1, or 1=0 2=1")
                continue
            if int(match[3]) not in (*range(TASKS["gra"].num_classes), IGNORE_INDEX):
                faults.append(f"--classes {rule}: {match[3]} is no class; use 0 to 4, or 255 for unknown")
            for kind in [match[1]] if match[1] else ["DEL", "GRA"]:
                if (key := (kind, float(match[2]))) in seen:
                    faults.append(f"--classes {rule}: {match[2]} is given twice for {kind}; omit one of them")
                seen.add(key)
        if faults:
            raise SettingError(*faults)

    def class_map(self, kind: str) -> dict[float, int]:
        """Returns the class of each value that `classes` names for a kind of mask, DEL or GRA."""
        matches = [match for rule in self._list_rules() if (match := _CLASS_RULE.fullmatch(rule))]
        return {float(match[2]): int(match[3]) for match in matches if match[1] in (None, kind)}

    def as_dict(self) -> dict[str, Any]:
        """Returns the options that are given as plain values."""
        values = {"classes": self._list_rules(), "align_masks": self.align_masks}
        return {name: value for name, value in values.items() if value}

    def _list_rules(self) -> list[str]:
        return [rule for word in self.classes or () for rule in word.split(",")]


DEFAULT_LABELS = LabelOptions()
