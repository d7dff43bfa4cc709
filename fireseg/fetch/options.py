"""Options of the `fetch` command."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated

import tyro

from fireseg.console import metavar
from fireseg.errors import SettingError

_MAX_DAYS = 366


@dataclass(frozen=True, kw_only=True)
class FetchOptions:
    """Area, dates and catalogue of the scenes to fetch.

    Attributes:
        out: Output folder.
        aoi: Polygons of the area: GeoJSON, or any other vector file.
        date: First day of the scene, such as 2025-08-24.
        days: Number of days after --date, and before --before, that are considered.
        max_cloud: Largest share of the area that may be hidden by cloud and shadow or not covered, in percent.
        before: Last day of a second scene, from before the fire.
        catalog: earth-search, planetary, cdse, or the URL of a STAC API, followed by #COLLECTION if it is not
            sentinel-2-l2a.
        overwrite: Replace existing scenes.
        trust_values: Accept values that contradict the offset in the catalogue; they are flagged.

    Raises:
        SettingError: If values are out of range; with all faults.
    """

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    aoi: Path
    date: date
    days: int = 15
    max_cloud: float = 30.0
    before: Annotated[date | None, metavar("YYYY-MM-DD")] = None
    catalog: str = "earth-search"
    overwrite: bool = False
    trust_values: bool = False

    def __post_init__(self) -> None:
        faults = []
        if not 0 <= self.days <= _MAX_DAYS:
            faults.append(f"--days: {self.days}, but it must be 0 to {_MAX_DAYS}")
        if not 0 <= self.max_cloud <= 100:
            faults.append(f"--max-cloud: {self.max_cloud:g}, but it must be a percentage, 0 to 100, such as 30")
        if self.before and self.before > self.date:
            faults.append(f"--before: {self.before}, but it must not be later than --date {self.date}; exchange them")
        if faults:
            raise SettingError(*faults)
