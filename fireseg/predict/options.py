"""What a user may choose about maps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from fireseg.errors import SettingError

FireType = Literal["uint8", "float32"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How scenes become maps.

    Args:
        threshold: Least calibrated probability that counts as burned, above 0 and below 1; None for what the run's
            calibration says, else 0.5.
        temperature: What log-odds are divided by, above 0; None for what the run's calibration says, else 1.
        tta: Average over the eight turns and flips of every window: eight times the work.
        fire_dtype: `uint8` in steps of 0.004, or `float32`.
        min_area_ha: Burned areas smaller than this get no polygon.
        simplify_m: How far an outline may move to need fewer corners, in metres.
        geojson: Write the polygons as GeoJSON, too.
        overwrite: Replace maps that are there.
        offset: What digital numbers have on top where no metadata say so.
        batch_size: Windows at a time; what suits the device if not given.
        readers: Threads that read.

    Raises:
        SettingError: If a value cannot be; with all that cannot.
    """

    threshold: float | None = None
    temperature: float | None = None
    tta: bool = False
    fire_dtype: FireType = "uint8"
    min_area_ha: float = 0.5
    simplify_m: float = 0.0
    geojson: bool = False
    overwrite: bool = False
    offset: float | None = None
    batch_size: int | None = None
    readers: int = 2

    def __post_init__(self) -> None:
        wrong = {
            "threshold": self.threshold is not None
            and not 0 < self.threshold < 1
            and "a probability above 0 and below 1",
            "temperature": self.temperature is not None and not _is_above_0(self.temperature) and "a number above 0",
            "fire-dtype": self.fire_dtype not in ("uint8", "float32") and "uint8 or float32",
            "min-area-ha": not _is_0_or_more(self.min_area_ha) and "hectares, 0 or more",
            "simplify-m": not _is_0_or_more(self.simplify_m) and "metres, 0 or more",
            "offset": self.offset is not None and not _is_0_or_more(self.offset) and "a number such as 1000",
            "batch-size": self.batch_size is not None and self.batch_size < 1 and "1 window or more",
            "readers": self.readers < 1 and "1 thread or more",
        }
        faults = [
            f"--{name}: {getattr(self, name.replace('-', '_'))}, but {wanted} is wanted"
            for name, wanted in wrong.items()
            if wanted
        ]
        if faults:
            raise SettingError(*faults)


def _is_above_0(number: float) -> bool:
    return math.isfinite(number) and number > 0


def _is_0_or_more(number: float) -> bool:
    return math.isfinite(number) and number >= 0
