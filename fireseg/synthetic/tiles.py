"""Synthetic tiles in CEMS layout, the input of `python -m fireseg.prepare`."""

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

from fireseg.data.patches import SPLITS
from fireseg.errors import SettingError
from fireseg.files import Settings, atomic_write, build_once
from fireseg.synthetic.patches import MAX_SCENES_PER_SPLIT, SAMPLE_VERSION, run_jobs
from fireseg.synthetic.scene import get_footprint, get_tile_name, make_scene
from fireseg.task import IGNORE_INDEX

TILE_SAMPLE_VERSION = 1
"""Version of the tile files; increased whenever the same scenes give different files."""

_PROPERTIES_STREAM = 100
"""Random stream of the tile properties, distinct from those of `make_scene`."""

_WITHOUT_GRADING, _WITHOUT_CLOUD_MASK, _WITHOUT_METADATA, _CUT_OFF = 0.20, 0.10, 0.05, 0.25
"""Shares of tiles without these; 121 of 559 real tiles have no grading."""


@dataclass(frozen=True, kw_only=True)
class TileJob:
    """A tile to make and the folder of its split."""

    split_folder: Path
    seed: int
    number: int
    smallest_px: int
    largest_px: int


@dataclass(frozen=True, kw_only=True)
class TileProperties:
    """Properties of a tile apart from its scene.

    Attributes:
        height: Height in pixels.
        width: Width in pixels; never equal to the height.
        has_grading: True if the tile has a GRA mask.
        has_cloud_mask: True if the tile has a CM mask.
        has_metadata: True if the tile has a JSON file.
        edge_normal: Normal (rows, columns) of the edge of the analyst's image, which leaves one corner of the
            delineation unlabelled; None if the image covers the tile.
        start: Start of the time interval of the image request.
        end: End of the time interval.
    """

    height: int
    width: int
    has_grading: bool
    has_cloud_mask: bool
    has_metadata: bool
    edge_normal: tuple[int, int] | None
    start: datetime
    end: datetime


def make_sample_tiles(
    root: Path,
    *,
    train_scenes: Annotated[int, Field(ge=1, le=MAX_SCENES_PER_SPLIT)],
    val_scenes: Annotated[int, Field(ge=1, le=MAX_SCENES_PER_SPLIT)],
    test_scenes: Annotated[int, Field(ge=0, le=MAX_SCENES_PER_SPLIT)],
    seed: Annotated[int, Field(ge=0)] = 0,
    smallest_px: Annotated[int, Field(ge=32)] = 200,
    largest_px: Annotated[int, Field(le=2048)] = 420,
    workers: Annotated[int, Field(ge=1)] = 1,
) -> None:
    """Makes synthetic tiles in CEMS layout, unless the folder holds them already.

    `{split}/SAMPLE0007/AOI01/SAMPLE0007_AOI01_01/SAMPLE0007_AOI01_01_{S2L2A,DEL,GRA,CM}.tif` and
    `…_S2L2A.json`: twelve bands of float32 reflectance without band descriptions and uint8 masks, with invented
    positions in the open Atlantic in EPSG:4326. As in the real data, some tiles have no grading, no cloud mask or
    no JSON, and some delineations are 255 beyond the edge of the analyst's image.

    The folder is renamed into place when it is complete, so an interrupted call leaves none. The values depend on
    all settings but `workers`; the bytes of a GeoTIFF also on the GDAL version.

    Args:
        root: Folder of `train`, `val` and `test`.
        train_scenes: Number of training tiles, each with fires of its own.
        val_scenes: Number of validation tiles.
        test_scenes: Number of test tiles.
        seed: Random seed of the scenes.
        smallest_px: Shortest side of a tile in pixels.
        largest_px: Longest side of a tile in pixels.
        workers: Number of processes; each takes some seconds to start.

    Raises:
        FiresegError: If the folder holds other files or another sample, or cannot be written.
        SettingError: If `largest_px` is not larger than `smallest_px`.
    """
    if smallest_px >= largest_px:
        raise SettingError(f"largest_px: {largest_px} is not larger than smallest_px={smallest_px}; increase it")
    settings = {
        "recipe": SAMPLE_VERSION,
        "tile_recipe": TILE_SAMPLE_VERSION,
        "train_scenes": train_scenes,
        "val_scenes": val_scenes,
        "test_scenes": test_scenes,
        "seed": seed,
        "smallest_px": smallest_px,
        "largest_px": largest_px,
    }
    build_once(Path(root), settings, partial(_write_tiles, settings, workers))


def make_sample_scene(root: Path, *, side_px: Annotated[int, Field(ge=33, le=2048)] = 1000, seed: int = 0) -> Path:
    """Makes one synthetic scene with several fires for mapping, unless the folder holds it already.

    Args:
        root: Folder of the scene, laid out like a tile outside any split.
        side_px: Longest side in pixels.
        seed: Random seed of the scene.

    Returns:
        Path of the image; the masks are next to it.

    Raises:
        FiresegError: If the folder holds other files or another scene, or cannot be written.
    """
    number = len(SPLITS) * MAX_SCENES_PER_SPLIT
    settings = {"recipe": SAMPLE_VERSION, "tile_recipe": TILE_SAMPLE_VERSION, "side_px": side_px, "seed": seed}

    def write(folder: Path) -> None:
        job = TileJob(
            split_folder=folder / "scene", seed=seed, number=number, smallest_px=side_px - 1, largest_px=side_px
        )
        write_tile(job)

    build_once(Path(root), settings, write)
    return next(Path(root).rglob("*_S2L2A.tif"))


def _write_tiles(settings: Settings, workers: int, root: Path) -> None:
    jobs = [
        TileJob(
            split_folder=root / split,
            seed=settings["seed"],
            number=number,
            smallest_px=settings["smallest_px"],
            largest_px=settings["largest_px"],
        )
        for index, split in enumerate(SPLITS)
        for number in range(index * MAX_SCENES_PER_SPLIT, index * MAX_SCENES_PER_SPLIT + settings[f"{split}_scenes"])
    ]
    with tqdm(total=len(jobs), desc="making sample tiles", unit="tile", disable=None, leave=False) as bar:
        for _ in run_jobs(write_tile, jobs, workers=workers):
            bar.update()


def write_tile(job: TileJob) -> None:
    """Makes a scene and writes it as the files of a tile."""
    properties = draw_properties(job)
    height, width = properties.height, properties.width
    scene = make_scene(job.seed, job.number, height=height, width=width)
    name = get_tile_name(job.number)
    activation, area, _ = name.split("_")
    folder = job.split_folder / activation / area / name
    folder.mkdir(parents=True)
    bounds = get_footprint(job.number, height=height, width=width)
    rasters: dict[str, NDArray[Any]] = {
        "S2L2A": scene.reflectance,
        "DEL": mask_corner(scene.delineation, properties.edge_normal),
    }
    if properties.has_grading:
        rasters["GRA"] = scene.grading
    if properties.has_cloud_mask:
        rasters["CM"] = scene.cloud
    for kind, values in rasters.items():
        write_raster(folder / f"{name}_{kind}.tif", values, bounds_lonlat=bounds)
    if properties.has_metadata:
        with atomic_write(folder / f"{name}_S2L2A.json") as part:
            part.write_text(json.dumps(describe_request(properties, bounds), indent=4) + "\n", encoding="utf-8")


def draw_properties(job: TileJob) -> TileProperties:
    """Draws the properties of a tile, from a random stream that nothing else uses."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([job.seed, job.number, _PROPERTIES_STREAM])))
    height, width = (int(rng.integers(job.smallest_px, job.largest_px + more)) for more in (1, 0))
    has_grading, has_cloud_mask, has_metadata, is_covered = (
        bool(rng.random() >= share) for share in (_WITHOUT_GRADING, _WITHOUT_CLOUD_MASK, _WITHOUT_METADATA, _CUT_OFF)
    )
    rows, cols = (int(rng.integers(1, 5)) * int(rng.choice((-1, 1))) for _ in range(2))
    season = datetime(int(rng.integers(2017, 2022)), 6, 1, 10, tzinfo=UTC)
    start = season + timedelta(days=int(rng.integers(100)))
    return TileProperties(
        height=height,
        width=width + (width >= height),
        has_grading=has_grading,
        has_cloud_mask=has_cloud_mask,
        has_metadata=has_metadata,
        edge_normal=None if is_covered else (rows, cols),
        start=start,
        end=start + timedelta(days=int(rng.integers(2, 50))),
    )


def mask_corner(delineation: NDArray[np.uint8], edge_normal: tuple[int, int] | None) -> NDArray[np.uint8]:
    """Sets the corner of a delineation to 255, as beyond the edge of the analyst's image.

    Args:
        delineation: Burned-area mask, `(H, W)`.
        edge_normal: See `TileProperties`; None changes nothing.

    Returns:
        The masked delineation; unchanged if nothing burned outside the corner.
    """
    if edge_normal is None:
        return delineation
    height, width = delineation.shape
    rows, cols = np.mgrid[:height, :width]
    along = edge_normal[0] * rows + edge_normal[1] * cols
    low, high = int(along.min()), int(along.max())
    masked = np.where(along - low < (high - low) // 4, IGNORE_INDEX, delineation).astype(np.uint8)
    # Without any 1, the reader of tiles would suspect that 255 means burned.
    return masked if (masked == 1).any() else delineation


def describe_request(properties: TileProperties, bounds: tuple[float, float, float, float]) -> dict[str, Any]:
    """Describes an image request, as the JSON of a CEMS tile does; this one was never sent."""
    start, end = (moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in (properties.start, properties.end))
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
                "height": properties.height,
                "width": properties.width,
                "responses": [{"format": {"type": "image/tiff"}, "identifier": "default"}],
            },
        },
        "timestamp": properties.end.strftime("%Y-%m-%dT%H:%M:%S"),
        "url": "fireseg.data.sample",  # part of the bytes of version 1
    }


def write_raster(path: Path, values: NDArray[Any], *, bounds_lonlat: tuple[float, float, float, float]) -> None:
    """Writes a GeoTIFF like those of CEMS tiles: EPSG:4326, north up, without band descriptions or nodata.

    Compression is lossless; the bytes of the file depend on the GDAL version.

    Args:
        path: Path of the file. Its folder must exist.
        values: Pixel values, `(H, W)` or `(H, W, C)`.
        bounds_lonlat: West, south, east, north in degrees.

    Raises:
        FiresegError: If the disk is full or the folder cannot be written.
    """
    bands = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    count, height, width = bands.shape
    west, south, east, north = bounds_lonlat
    # Written to memory first: GDAL notices a full disk only when it closes the file, and raises no error then.
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
