"""The sample as tiles in CEMS layout: what `python -m fireseg.prepare` takes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from rasterio import Affine
from rasterio.io import MemoryFile
from tqdm import tqdm

from fireseg.errors import SettingError
from fireseg.files import Settings, atomic_write, build_once
from fireseg.synthetic.patches import RECIPE, SCENES_A_SPLIT, SPLITS, run_jobs
from fireseg.synthetic.scene import get_footprint, get_tile_name, make_scene
from fireseg.task import IGNORE_INDEX

TILE_RECIPE = 1
"""Counts up whenever the same settings give other files, and the scenes in them are the same."""

_HABITS = 100
"""Stream of random numbers for what a tile is like around its pixels, far from those of `make_scene`."""

_WITHOUT_GRADING, _WITHOUT_CLOUD_MASK, _WITHOUT_METADATA, _CUT_OFF = 0.20, 0.10, 0.05, 0.25
"""Shares of tiles; of the real ones 438 of 559 have a grading."""


@dataclass(frozen=True, kw_only=True)
class TileJob:
    """One tile to make, and where it goes."""

    split_folder: Path
    seed: int
    number: int
    smallest_px: int
    largest_px: int


@dataclass(frozen=True, kw_only=True)
class Habits:
    """What differs from tile to tile beside the scene.

    Attributes:
        height: Rows.
        width: Columns; never as many as rows.
        has_grading: Whether there is a GRA.
        has_cloud_mask: Whether there is a CM.
        has_metadata: Whether there is a json.
        slope: Rows and columns that the edge of the analyst's image goes on by, the sign telling the
            corner that it cuts off; None where it covers the tile.
        start: First moment of the interval that was searched for an image.
        end: Its last.
    """

    height: int
    width: int
    has_grading: bool
    has_cloud_mask: bool
    has_metadata: bool
    slope: tuple[int, int] | None
    start: datetime
    end: datetime


def make_sample_tiles(
    root: Path,
    *,
    train_scenes: Annotated[int, Field(ge=1, le=SCENES_A_SPLIT)],
    val_scenes: Annotated[int, Field(ge=1, le=SCENES_A_SPLIT)],
    test_scenes: Annotated[int, Field(ge=0, le=SCENES_A_SPLIT)],
    seed: Annotated[int, Field(ge=0)] = 0,
    smallest_px: Annotated[int, Field(ge=32)] = 200,
    largest_px: Annotated[int, Field(le=2048)] = 420,
    workers: Annotated[int, Field(ge=1)] = 1,
) -> None:
    """Makes synthetic tiles in CEMS layout, or finds them made.

    `{split}/SAMPLE0007/AOI01/SAMPLE0007_AOI01_01/SAMPLE0007_AOI01_01_{S2L2A,DEL,GRA,CM}.tif` and
    `…_S2L2A.json`: twelve bands of float32 reflectance without descriptions, masks in uint8, all of it in
    EPSG:4326 in the open Atlantic, the places as invented as the fires. Like the real ones, some tiles
    have no grading, no cloud mask or no json, and some delineations 255 where the analyst's image ended.

    The folder appears with all its files at once; killed on the way, there is none. The values depend on
    everything but `workers`; the bytes of a GeoTIFF also on the version of GDAL.

    Args:
        root: Where `train`, `val` and `test` go.
        train_scenes: Tiles to train on, each of its own fire.
        val_scenes: Tiles to choose the best epoch by.
        test_scenes: Tiles to report.
        seed: Another one gives other scenes.
        smallest_px: Shortest side of a tile.
        largest_px: Longest side of a tile.
        workers: Processes that draw. Each takes some seconds to start.

    Raises:
        FiresegError: If the folder holds something else, or cannot be written.
        SettingError: If the largest is not larger than the smallest.
    """
    if smallest_px >= largest_px:
        raise SettingError(f"largest_px: {largest_px}, but more than smallest_px={smallest_px} is wanted")
    settings = {
        "recipe": RECIPE,
        "tile_recipe": TILE_RECIPE,
        "train_scenes": train_scenes,
        "val_scenes": val_scenes,
        "test_scenes": test_scenes,
        "seed": seed,
        "smallest_px": smallest_px,
        "largest_px": largest_px,
    }
    build_once(Path(root), settings, partial(_write_all, settings, workers))


def make_sample_scene(root: Path, *, side_px: Annotated[int, Field(ge=33, le=2048)] = 1000, seed: int = 0) -> Path:
    """Makes one synthetic scene with several fires to draw a map of, or finds it made.

    Args:
        root: Where it goes, laid out like a tile that is in no split.
        side_px: Longest side.
        seed: Another one gives another scene.

    Returns:
        Its image; the masks lie beside it.

    Raises:
        FiresegError: If the folder holds something else, or cannot be written.
    """
    number = len(SPLITS) * SCENES_A_SPLIT
    settings = {"recipe": RECIPE, "tile_recipe": TILE_RECIPE, "side_px": side_px, "seed": seed}

    def write(folder: Path) -> None:
        job = TileJob(
            split_folder=folder / "scene", seed=seed, number=number, smallest_px=side_px - 1, largest_px=side_px
        )
        write_tile(job)

    build_once(Path(root), settings, write)
    return next(Path(root).rglob("*_S2L2A.tif"))


def _write_all(settings: Settings, workers: int, root: Path) -> None:
    jobs = [
        TileJob(
            split_folder=root / split,
            seed=settings["seed"],
            number=number,
            smallest_px=settings["smallest_px"],
            largest_px=settings["largest_px"],
        )
        for index, split in enumerate(SPLITS)
        for number in range(index * SCENES_A_SPLIT, index * SCENES_A_SPLIT + settings[f"{split}_scenes"])
    ]
    with tqdm(total=len(jobs), desc="making sample tiles", unit="tile", disable=None, leave=False) as bar:
        for _ in run_jobs(write_tile, jobs, workers=workers):
            bar.update()


def write_tile(job: TileJob) -> None:
    """Makes a scene and writes it as the files of a tile."""

    habits = draw_habits(job)
    height, width = habits.height, habits.width
    scene = make_scene(job.seed, job.number, height=height, width=width)
    name = get_tile_name(job.number)
    activation, area, _ = name.split("_")
    folder = job.split_folder / activation / area / name
    folder.mkdir(parents=True)
    bounds = get_footprint(job.number, height=height, width=width)
    rasters: dict[str, NDArray[Any]] = {"S2L2A": scene.reflectance, "DEL": cut_off(scene.delineation, habits.slope)}
    if habits.has_grading:
        rasters["GRA"] = scene.grading
    if habits.has_cloud_mask:
        rasters["CM"] = scene.cloud
    for kind, values in rasters.items():
        write_raster(folder / f"{name}_{kind}.tif", values, bounds_lonlat=bounds)
    if habits.has_metadata:
        with atomic_write(folder / f"{name}_S2L2A.json") as part:
            part.write_text(json.dumps(describe(habits, bounds), indent=4) + "\n", encoding="utf-8")


def draw_habits(job: TileJob) -> Habits:
    """Draws them from a stream of their own: integers and plain fractions only, the same everywhere."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([job.seed, job.number, _HABITS])))
    height, width = (int(rng.integers(job.smallest_px, job.largest_px + more)) for more in (1, 0))
    has_grading, has_cloud_mask, has_metadata, is_whole = (
        bool(rng.random() >= share) for share in (_WITHOUT_GRADING, _WITHOUT_CLOUD_MASK, _WITHOUT_METADATA, _CUT_OFF)
    )
    down, right = (int(rng.integers(1, 5)) * int(rng.choice((-1, 1))) for _ in range(2))
    season = datetime(int(rng.integers(2017, 2022)), 6, 1, 10, tzinfo=UTC)
    start = season + timedelta(days=int(rng.integers(100)))
    return Habits(
        height=height,
        width=width + (width >= height),
        has_grading=has_grading,
        has_cloud_mask=has_cloud_mask,
        has_metadata=has_metadata,
        slope=None if is_whole else (down, right),
        start=start,
        end=start + timedelta(days=int(rng.integers(2, 50))),
    )


def cut_off(delineation: NDArray[np.uint8], slope: tuple[int, int] | None) -> NDArray[np.uint8]:
    """The delineation with 255 in the corner that the analyst's image did not reach.

    Args:
        delineation: `(H, W)`.
        slope: See `Habits`; None changes nothing.

    Returns:
        As it was where nothing burned elsewhere.
    """
    if slope is None:
        return delineation
    height, width = delineation.shape
    rows, cols = np.mgrid[:height, :width]
    along = slope[0] * rows + slope[1] * cols
    low, high = int(along.min()), int(along.max())
    cut = np.where(along - low < (high - low) // 4, IGNORE_INDEX, delineation).astype(np.uint8)
    # With no 1 left, 255 would rightly be suspected of meaning burned.
    return cut if (cut == 1).any() else delineation


def describe(habits: Habits, bounds: tuple[float, float, float, float]) -> dict[str, Any]:
    """What CEMS tiles have in their json: the request that brought the image. This one was never sent."""
    start, end = (moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in (habits.start, habits.end))
    search = {"mosaickingOrder": "leastCC", "timeRange": {"from": start, "to": end}}
    return {
        "headers": {"accept": "image/tiff", "content-type": "application/json"},
        "payload": {
            "evalscript": "// synthetic: mixed from measured spectra, seen by no satellite",
            "input": {
                "bounds": {
                    "bbox": list(bounds),
                    "properties": {"crs": "http://www.opengis.net/def/crs/EPSG/0/4326"},
                },
                "data": [{"dataFilter": search, "type": "sentinel-2-l2a"}],
            },
            "output": {
                "height": habits.height,
                "width": habits.width,
                "responses": [{"format": {"type": "image/tiff"}, "identifier": "default"}],
            },
        },
        "timestamp": habits.end.strftime("%Y-%m-%dT%H:%M:%S"),
        "url": "fireseg.synthetic",
    }


def write_raster(path: Path, values: NDArray[Any], *, bounds_lonlat: tuple[float, float, float, float]) -> None:
    """Writes a raster on the grid of CEMS tiles: EPSG:4326, north up, nothing said of bands or nodata.

    The values come back to the bit; the bytes around them are GDAL's, and change with its version.

    Args:
        path: The file. Its folder must exist.
        values: `(H, W)` or `(H, W, C)`.
        bounds_lonlat: West, south, east, north in degrees.

    Raises:
        FiresegError: If the disk is full or the folder cannot be written.
    """
    bands = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    count, height, width = bands.shape
    west, south, east, north = bounds_lonlat
    # In memory first: GDAL finds out about a full disk when it closes the file, and then tells nobody.
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            dtype=bands.dtype,
            count=count,
            height=height,
            width=width,
            crs="EPSG:4326",
            transform=Affine((east - west) / width, 0.0, west, 0.0, (south - north) / height, north),
            compress="deflate",
            zlevel=1,
            predictor=3 if bands.dtype.kind == "f" else 1,
        ) as raster:
            raster.write(bands)
        with atomic_write(path) as part:
            part.write_bytes(memory.getbuffer())
