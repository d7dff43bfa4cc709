"""Fetches scenes: searches items, chooses the clearest day, writes its mosaic."""

from __future__ import annotations

import json
import logging
import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from fireseg import __version__
from fireseg.console import format_count, format_share
from fireseg.data.bands import BAND_NAMES
from fireseg.errors import FiresegError, SettingError, convert_unexpected_errors
from fireseg.fetch.area import read_area
from fireseg.fetch.catalogue import Catalogue, CatalogueClient, parse_catalogue
from fireseg.fetch.items import SceneItem, parse_item
from fireseg.fetch.mosaic import PIXEL_M, MosaicReader, is_clear
from fireseg.fetch.options import FetchOptions
from fireseg.files import atomic_write, check_regular_file, convert_disk_errors, list_leftovers
from fireseg.geo import BandWriter
from fireseg.tiles import RasterOptions, open_bands
from fireseg.tiles.channels import SCL
from fireseg.tiles.metadata import BASELINE_OFFSET

log = logging.getLogger("fireseg")


@dataclass(frozen=True, kw_only=True)
class SceneRequest:
    """A scene to fetch.

    Attributes:
        stem: Path of the scene without its suffix.
        first: First day.
        last: Last day.
        preferred: Of equally clear days, the one closest to this is chosen.
        settings: What the scene was asked for with, for its JSON file.
    """

    stem: Path
    first: date
    last: date
    preferred: date
    settings: Mapping[str, Any]

    @property
    def raster(self) -> Path:
        """The raster of the bands."""
        return self.stem.with_name(f"{self.stem.name}.tif")

    @property
    def classification(self) -> Path:
        """The raster of the scene classification."""
        return self.stem.with_name(f"{self.stem.name}_SCL.tif")

    @property
    def metadata(self) -> Path:
        """The JSON file, which is written last."""
        return self.stem.with_name(f"{self.stem.name}.json")

    @property
    def paths(self) -> tuple[Path, Path, Path]:
        """All files of the scene."""
        return self.metadata, self.raster, self.classification


@dataclass(frozen=True, kw_only=True)
class Day:
    """The items of one day.

    Attributes:
        date: Day in solar time.
        items: Items in the order in which they are used.
        clear_share: Share of the area that is clear, 0 to 1.
    """

    date: date
    items: Sequence[SceneItem]
    clear_share: float


def fetch_scenes(options: FetchOptions) -> None:
    """Fetches the scenes of the options that do not exist yet.

    Args:
        options: Area, dates and catalogue.

    Raises:
        FiresegError: If the extra is not installed, files exist that were made otherwise, the catalogue or its files
            cannot be read, or no day is clear enough.
        SettingError: If the catalogue is unknown, or the scene would overwrite the area.
    """
    _check_extra()
    catalogue = parse_catalogue(options.catalog)
    area = read_area(options.aoi)
    requests = _list_requests(options, catalogue, area)
    for request in requests:
        if options.aoi.resolve() in [path.resolve() for path in request.paths]:
            raise SettingError(f"--aoi: {options.aoi} would be overwritten by the scene; choose another OUT folder")
    missing = [request for request in requests if not _is_complete(request, overwrite=options.overwrite)]
    client = None
    if missing:
        with convert_disk_errors(options.out):
            options.out.mkdir(parents=True, exist_ok=True)
        client = CatalogueClient(catalogue)
    faults = []
    for request in requests:
        try:
            with convert_unexpected_errors(request.raster):
                if client is not None and request in missing:
                    _fetch_scene(request, client, area, options)
        except FiresegError as error:  # the scene before the fire does not depend on that after it
            faults += error.faults
            continue
        for line in _describe_scene(request, is_new=request in missing):
            log.info("%s", line)
    if faults:
        raise FiresegError(*faults)


def _check_extra() -> None:
    try:
        import pystac_client  # noqa: F401
    except ImportError as error:
        raise FiresegError(
            f"fetch: {error.name} is not installed; install it with pip install 'fireseg[stac]'"
        ) from error


def _list_requests(options: FetchOptions, catalogue: Catalogue, area: Any) -> list[SceneRequest]:
    import shapely

    span = timedelta(days=options.days)
    dates = [("", options.date, options.date + span, options.date)]
    if options.before:
        dates.append(("_before", options.before - span, options.before, options.before))
    area_wkt = shapely.to_wkt(area, rounding_precision=7)
    return [
        SceneRequest(
            stem=options.out / f"{options.aoi.stem}{suffix}",
            first=first,
            last=last,
            preferred=preferred,
            settings={
                "area": area_wkt,
                "from": str(first),
                "to": str(last),
                "catalogue": catalogue.url,
                "collection": catalogue.collection,
            },
        )
        for suffix, first, last, preferred in dates
    ]


def _is_complete(request: SceneRequest, *, overwrite: bool) -> bool:
    """Returns True if a scene was fetched for the same request before, and is not to be replaced.

    Raises:
        FiresegError: If other files are in its place.
    """
    for path in request.paths:
        check_regular_file(path, cure="remove it, or choose another OUT folder")
    if overwrite or not any(path.exists() for path in request.paths):
        return False
    if not request.metadata.exists() and list_leftovers(request.metadata):  # killed between the renames
        return False
    settings: Any = None
    if all(path.is_file() for path in request.paths):
        try:
            settings = json.loads(request.metadata.read_bytes())["request"]
        except (ValueError, KeyError, TypeError):
            settings = None
    if settings == request.settings:
        return True
    cure = "use another folder, or replace it with --overwrite"
    if not isinstance(settings, dict):
        present = next(path for path in request.paths if path.exists())
        raise FiresegError(f"{present}: exists, but not as part of a complete scene of this command; {cure}")
    other = [name for name in request.settings if settings.get(name) != request.settings[name]]
    raise FiresegError(f"{request.raster}: was fetched with another {' and '.join(other)}; {cure}")


def _fetch_scene(request: SceneRequest, client: CatalogueClient, area: Any, options: FetchOptions) -> None:
    longitude = area.centroid.x
    log.info("%s: %s to %s, %s", request.raster.name, request.first, request.last, client.catalogue.url)
    items, faults = [], []
    for found in client.search(area.bounds, request.first, request.last):
        try:
            with convert_unexpected_errors(getattr(found, "id", "item")):
                items.append(parse_item(found))
        except FiresegError as error:
            faults += error.faults
            log.warning("  not used: %s", error)
    if faults and not items:
        raise FiresegError(*faults)
    by_day: dict[date, list[SceneItem]] = {}
    for item in items:
        day = item.get_solar_day(longitude)
        if request.first <= day <= request.last:
            by_day.setdefault(day, []).append(item)
    if not by_day:
        raise FiresegError(
            f"{client.catalogue.url}: no item of {client.catalogue.collection} from {request.first} to {request.last} "
            "over the area; raise --days, or check the area and the dates"
        )
    epsg = _choose_zone([item for day in by_day.values() for item in day], area)
    with MosaicReader(client, area, epsg=epsg) as reader:
        days = []
        for day in sorted(by_day):
            ordered = _sort_items(by_day[day], epsg)
            try:
                with convert_unexpected_errors(day):
                    days.append(Day(date=day, items=ordered, clear_share=reader.measure_clear_share(ordered)))
            except FiresegError as error:
                faults += error.faults
                log.warning("  %s: not used: %s", day, error)
                continue
            log.info("  %s: %s clear, %s", day, format_share(days[-1].clear_share), format_count(len(ordered), "tile"))
        if not days:
            raise FiresegError(*faults)
        chosen = _choose_day(days, request, options.max_cloud)
        _write_scene(chosen, request, client, reader, trust_values=options.trust_values)


def _choose_zone(items: Sequence[SceneItem], area: Any) -> int:
    """Chooses the UTM zone of the items that is closest to the middle of the area.

    It is the zone of the middle, but in Norway and on Svalbard, where some zones are wider.
    """
    own = int((area.centroid.x + 180) // 6) % 60 + 1 + (32600 if area.centroid.y >= 0 else 32700)
    zones = sorted({item.epsg for item in items if item.epsg is not None})
    return min(zones, key=lambda epsg: (abs(epsg - own), epsg)) if zones else own


def _sort_items(items: Sequence[SceneItem], epsg: int) -> list[SceneItem]:
    """Sorts items by preference: those that need no resampling, then the newest processing."""
    ordered = sorted(items, key=lambda item: item.item.id)
    ordered.sort(key=lambda item: item.baseline, reverse=True)
    return sorted(ordered, key=lambda item: item.epsg != epsg)


def _choose_day(days: Sequence[Day], request: SceneRequest, max_cloud: float) -> Day:
    """Chooses, of the days that are at most 1 % of the area less clear than the clearest, the closest to the date.

    Raises:
        FiresegError: If no day is clear enough.
    """
    clear = [day for day in days if 100 * (1 - day.clear_share) <= max_cloud]
    if not clear:
        shares = ", ".join(f"{day.date} {format_share(1 - day.clear_share)}" for day in days)
        raise FiresegError(
            f"--max-cloud: {max_cloud:g} %, but these shares of the area are hidden by cloud or shadow, or not "
            f"covered: {shares}; raise --days or --max-cloud"
        )
    highest = max(day.clear_share for day in clear)
    best = [day for day in clear if day.clear_share >= highest - 0.01]
    return min(best, key=lambda day: abs(day.date - request.preferred))


def _write_scene(
    day: Day, request: SceneRequest, client: CatalogueClient, reader: MosaicReader, *, trust_values: bool
) -> None:
    """Writes the files of a scene, the JSON file last."""
    start = min(item.time for item in day.items)
    tags = {"BOA_ADD_OFFSET": f"{-BASELINE_OFFSET:.0f}", "DATETIME": f"{start:%Y-%m-%dT%H:%M:%SZ}"}
    with ExitStack() as files:
        # They are renamed in the opposite order: the metadata last.
        metadata, raster, classification = (files.enter_context(atomic_write(path)) for path in request.paths)
        num_area, num_clear = 0, 0
        with (
            BandWriter(raster, reader.grid, bands=BAND_NAMES, dtype=np.uint16, tags=tags) as bands_writer,
            BandWriter(classification, reader.grid, bands=[SCL], dtype=np.uint8) as classes_writer,
            tqdm(total=reader.grid.height, desc=str(day.date), unit="row", leave=False, disable=None) as bar,
        ):
            for strip in reader.read_strips(day.items):
                bands_writer.write(strip.top, strip.bands)
                classes_writer.write(strip.top, strip.scl[None])
                num_area += int(strip.in_area.sum())
                num_clear += int(is_clear(strip.scl)[strip.in_area].sum())
                bar.update(strip.scl.shape[0])
        flags = _check_values(raster, request, trust_values=trust_values)
        content = _describe_content(day, request, client, clear_share=num_clear / num_area, flags=flags)
        metadata.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        # With --overwrite: a process killed between the renames must not leave a new raster with old metadata.
        Path(os.path.realpath(request.metadata)).unlink(missing_ok=True)
        for path in request.paths:
            for leftover in list_leftovers(path):
                leftover.unlink()


def _check_values(raster: Path, request: SceneRequest, *, trust_values: bool) -> list[str]:
    """Checks the values as `predict` does, and returns flags about odd ones.

    Raises:
        FiresegError: If the values contradict the offset in the catalogue, and are not trusted.
    """
    options = RasterOptions(trust_values=trust_values)
    with open_bands(raster, BAND_NAMES, options) as reader:
        try:
            flags = reader.check_values()
        except FiresegError as error:
            faults = [fault.removeprefix(f"{raster}: ").partition(";")[0] for fault in error.faults]
            raise FiresegError(
                *(
                    f"{request.raster}: {fault}; the catalogue describes the values wrongly: use another --catalog, "
                    "or accept them with --trust-values"
                    for fault in faults
                )
            ) from error
    flags = [flag.removeprefix(f"{raster}: ") for flag in flags]
    for flag in flags:
        log.warning("%s: %s", request.raster, flag)
    return flags


def _describe_content(
    day: Day, request: SceneRequest, client: CatalogueClient, *, clear_share: float, flags: Sequence[str]
) -> dict[str, Any]:
    start = min(item.time for item in day.items)
    return {
        "datetime": f"{start:%Y-%m-%dT%H:%M:%SZ}",
        "level": "2A",
        "bands": list(BAND_NAMES),
        "pixel_m": PIXEL_M,
        "clear_share": round(clear_share, 4),
        "catalogue": client.catalogue.url,
        "collection": client.catalogue.collection,
        "licence": client.licence,
        "attribution": f"Contains modified Copernicus Sentinel data {start.year}",
        "items": [
            {
                "id": item.item.id,
                "datetime": f"{item.time:%Y-%m-%dT%H:%M:%SZ}",
                "processing_baseline": item.baseline,
                "offset": {band: item.assets[band].offset for band in BAND_NAMES},
            }
            for item in day.items
        ],
        "flags": list(flags),
        "software": f"fireseg {__version__}",
        "request": request.settings,
    }


def _describe_scene(request: SceneRequest, *, is_new: bool) -> list[str]:
    content = json.loads(request.metadata.read_bytes())
    status = "" if is_new else " exists already and is complete (--overwrite replaces it)"
    clear = format_share(content["clear_share"])
    return [
        f"{request.raster}{status}: {content['datetime'][:10]}, {clear} of the area clear",
        *(f"  flag: {flag}" for flag in content["flags"]),
        f"  also {request.classification.name}, {request.metadata.name}",
        f"  map it: fireseg predict RUN {shlex.quote(str(request.raster))}",
    ]
