"""Options for reading rasters whose own metadata do not say enough."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from fireseg.console import metavar
from fireseg.errors import SettingError
from fireseg.task import IGNORE_INDEX, TASKS

LandcoverCodes = Literal["esa", "esa-cems", "esri", "esri-cems"]
"""Numberings of land cover maps, see `tiles.landcover.CODES`."""

_CLASS_RULE = re.compile(r"(?:(DEL|GRA):)?(-?\d+(?:\.\d+)?)=(\d+)")


@dataclass(frozen=True, kw_only=True)
class RasterOptions:
    """Options for reading rasters, used where the metadata of a raster are silent.

    Attributes:
        channels: Band of each channel of rasters without band descriptions, in their order: names such as B02 or
            nir08, mask or SCL for a validity channel, - for any other.
        offset: Radiometric offset of the digital numbers (BOA_ADD_OFFSET; 1000 since processing baseline 04.00),
            used if the metadata do not give it (default: that of the baseline in the name of the product, else 0).
        scale: Reflectance per unit of the values, after the offset is subtracted: 0.0001 for digital numbers stored
            as float, 0.01 for percent; used if the raster has no scale tag (default: 1 for float, 0.0001 for integers).
        nodata: Value of pixels without a measurement, in addition to the nodata tag of the raster.
        trust_values: Accept values that do not look like reflectance, or seem to contain the offset; they are flagged.
    """

    channels: Annotated[tuple[str, ...] | None, metavar("BAND ...")] = None
    offset: Annotated[float | None, metavar("NUMBER")] = None
    scale: Annotated[float | None, metavar("NUMBER")] = None
    nodata: Annotated[float | None, metavar("NUMBER")] = None
    trust_values: bool = False

    def list_faults(self) -> list[str]:
        """Lists the options that are out of range."""
        faults = []
        if self.offset is not None and not 0 <= self.offset < 10_000:
            faults.append(f"--offset: {self.offset:g}, but it must be in digital numbers, 0 to 9999, such as 1000")
        if self.scale is not None and not 1e-6 <= self.scale <= 1:
            faults.append(
                f"--scale: {self.scale:g}, but it must be reflectance per unit, 0.000001 to 1, such as 0.0001"
            )
        return faults


DEFAULT_OPTIONS = RasterOptions()


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """Options for reading the labels of tiles.

    Attributes:
        classes: Values of the masks that mean another class, such as 255=1, or 1=0 2=1; 255 means unknown. DEL:255=1
            and GRA:5=4 apply to one kind of mask only.
        align_masks: Warp masks on another grid to the grid of their image, by the nearest pixel.
        grade_field: Field of vector gradings that holds the grades, 0 to 4 or the words of CEMS such as 'Destroyed'.
        images: Images, as a pattern relative to TILES in quotes, such as 'images/*.tif', if they are not named
            <name>_S2L2A.tif.
        masks: Delineations of these images, as a pattern such as 'masks/*.tif'; a mask has the name of its image, or
            adds words to it.
        gradings: Gradings of these images, as a pattern.
        landcover: Store the land cover with the patches, for training with task.auxiliary=landcover: of
            <name>_ESA_LC.tif (ESA WorldCover) or <name>_Esri10_LC.tif (Esri) with the original values (esa, esri), or
            as the CEMS data set numbers them, from 0 (esa-cems, esri-cems).
        pre: Scenes before the fire, as a pattern such as '**/*_PRE.tif', whose bands follow those of the images as
            B02_PRE and so on; a scene has the name of its image, or adds words to it. On another grid it is resampled.
        missing_pre: Stop and list the tiles without a scene before the fire (refuse), or leave them out (skip).
        unlabelled: Prepare the tiles that have neither DEL nor GRA, for self-training with data.unlabelled=PATCHES.

    Raises:
        SettingError: If a rule of `classes` is invalid, images are named without masks, or options contradict each
            other; lists all faults.
    """

    classes: Annotated[tuple[str, ...] | None, metavar("FROM=TO ...")] = None
    align_masks: bool = False
    grade_field: Annotated[str | None, metavar("FIELD")] = None
    images: Annotated[str | None, metavar("GLOB")] = None
    masks: Annotated[str | None, metavar("GLOB")] = None
    gradings: Annotated[str | None, metavar("GLOB")] = None
    landcover: Annotated[LandcoverCodes | None, metavar("{esa,esa-cems,esri,esri-cems}")] = None
    pre: Annotated[str | None, metavar("GLOB")] = None
    missing_pre: Literal["refuse", "skip"] = "refuse"
    unlabelled: bool = False

    def __post_init__(self) -> None:
        faults, seen = self._list_pattern_faults(), set[tuple[str, float]]()
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
        values = {**asdict(self), "classes": self._list_rules()}
        if self.missing_pre == "refuse":
            del values["missing_pre"]
        return {name: value for name, value in values.items() if value}

    def _list_pattern_faults(self) -> list[str]:
        patterns = {"--images": self.images, "--masks": self.masks, "--gradings": self.gradings}
        given = {option: pattern for option, pattern in patterns.items() if pattern is not None}
        faults = [
            f"{option} {pattern}: leads out of the folder of the tiles; write a pattern relative to it"
            for option, pattern in (*given.items(), *([] if self.pre is None else [("--pre", self.pre)]))
            if Path(pattern).is_absolute() or ".." in Path(pattern).parts
        ]
        of_labels = {"--masks": self.masks, "--gradings": self.gradings, "--classes": self.classes}
        of_labels |= {"--grade-field": self.grade_field}
        if self.unlabelled:
            faults += [
                f"{option}: has no effect with --unlabelled, which prepares tiles without masks; leave it out"
                for option, value in of_labels.items()
                if value is not None
            ]
        elif given and (self.images is None or len(given) == 1):
            faults.append(f"{', '.join(given)}: give --images, and --masks or --gradings, or none of them")
        if self.landcover and given:
            faults.append(
                "--landcover: is found by the name of <name>_S2L2A.tif; rename the images, or omit one of both"
            )
        if self.missing_pre == "skip" and self.pre is None:
            faults.append("--missing-pre skip: has no effect without --pre; add it, or leave --missing-pre out")
        return faults

    def _list_rules(self) -> list[str]:
        return [rule for word in self.classes or () for rule in word.split(",")]


DEFAULT_LABELS = LabelOptions()
