"""Land cover: two maps in two numberings as the classes of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio import Affine

from fireseg.data.bands import BAND_NAMES
from fireseg.errors import FiresegError
from fireseg.task import LANDCOVER_CLASSES
from fireseg.tiles.options import LabelOptions, LandcoverCodes
from fireseg.tiles.reader import Tile, find_tiles, read_tile
from tests.tiles.builders import GRID, PIXEL, write_raster, write_tile

NAMES = (*LANDCOVER_CLASSES.values(),)


def write_landcover(folder: Path, values: Any, kind: str = "ESA_LC", **options: Any) -> None:
    write_tile(folder)
    write_raster(folder / f"EMSR999_AOI01_01_{kind}.tif", np.asarray(values, np.uint8), **options)


def write_row(folder: Path, codes: LandcoverCodes, values: list[int], **options: Any) -> None:
    """Writes a map that holds these values, and the last one everywhere else."""
    kind = "ESA_LC" if codes.startswith("esa") else "Esri10_LC"
    raster = np.full((40, 50), values[-1])
    raster[0, : len(values)] = values
    write_landcover(folder, raster, kind, **options)


def read(folder: Path, codes: LandcoverCodes) -> Tile:
    labels = LabelOptions(landcover=codes)
    (files,) = find_tiles(folder, labels).tiles
    return read_tile(files, BAND_NAMES, labels=labels)


@pytest.mark.parametrize(
    ("codes", "values", "classes"),
    [
        ("esa", [20, 95, 100, 0, 255, 10], ["shrubland", "mangroves", "moss_and_lichen", None, None, "tree_cover"]),
        ("esa-cems", [0, 7, 9, 255, 1], ["tree_cover", "water", "mangroves", None, "shrubland"]),
        ("esri", [1, 2, 3, 4, 5], ["water", "tree_cover", "grassland", "herbaceous_wetland", "cropland"]),
        ("esri", [6, 7, 8, 9], ["shrubland", "built_up", "bare", "snow_and_ice"]),
        ("esri", [10, 255, 11, 2], [None, None, "grassland", "tree_cover"]),
        ("esri-cems", [0, 1, 2, 3, 4], ["water", "tree_cover", "grassland", "herbaceous_wetland", "cropland"]),
        ("esri-cems", [5, 6, 7, 8, 9, 255], ["shrubland", "built_up", "bare", "snow_and_ice", None, None]),
    ],
)
def test_values_are_read_as_the_positions_of_the_classes(
    codes: LandcoverCodes, values: list[int], classes: list[str | None], tmp_path: Path
) -> None:
    write_row(tmp_path, codes, values)
    landcover = read(tmp_path, codes).landcover
    assert landcover is not None
    expected = [255 if name is None else NAMES.index(name) for name in classes]
    assert landcover[0, : len(values)].tolist() == expected
    assert (landcover[1:] == expected[-1]).all()


def test_a_land_cover_is_ignored_unless_it_is_wanted(tmp_path: Path) -> None:
    write_landcover(tmp_path, np.full((3, 3), 7))
    write_raster(tmp_path / "EMSR999_AOI01_01_Esri10_LC.tif", np.full((40, 50), 5, np.uint8))
    (files,) = find_tiles(tmp_path).tiles
    assert files.landcover is None
    assert all("_LC" not in path.name for path in files.paths)
    landcover = read(tmp_path, "esri").landcover  # and of two maps only the one that is wanted
    assert landcover is not None
    assert (landcover == NAMES.index("cropland")).all()


@pytest.mark.parametrize(
    ("codes", "values", "tag", "fault"),
    [
        ("esa", [0, 1, 5], None, r"values 1, 5, but --landcover esa has 0, 10, .*100; they fit --landcover esa-cems"),
        (
            "esa-cems",
            [10, 20, 80],
            0,
            r"values 20, 80, but .* has 0, 1, .*10; they fit --landcover esa$",
        ),
        ("esri", [1, 12], None, r"values 12, but --landcover esri has .*use the original map, or omit --landcover"),
        ("esri", [10, 20], None, r"values 20, but --landcover esri has 0, 1, .*; use the original map"),
        ("esri-cems", [1, 11], 0, r"values 11, but --landcover esri-cems has .*they fit --landcover esri$"),
        (
            "esri",
            [0, 1, 4, 7],
            None,
            r"0 is no data with --landcover esri, but not the nodata tag, and water with",
        ),
        (
            "esa",
            [0],
            None,
            r"0 is no data with --landcover esa, but not the nodata tag, and tree_cover",
        ),
        (
            "esri-cems",
            [0, 1, 4, 7],
            0,
            r"0 is its nodata tag, but --landcover esri-cems has water there; use",
        ),
        ("esa-cems", [1, 5], 0, r"0 is its nodata tag, but --landcover esa-cems has tree_cover there"),
    ],
)
def test_values_of_another_numbering_are_an_error(
    codes: LandcoverCodes, values: list[int], tag: int | None, fault: str, tmp_path: Path
) -> None:
    write_row(tmp_path, codes, values, nodata=tag)
    with pytest.raises(FiresegError, match=rf"_LC.tif: {fault}"):
        read(tmp_path, codes)


def test_a_nodata_tag_tells_that_0_is_no_class(tmp_path: Path) -> None:
    write_row(tmp_path, "esri", [0, 1, 5], nodata=0)
    landcover = read(tmp_path, "esri").landcover
    assert landcover is not None
    assert landcover[0, :3].tolist() == [255, NAMES.index("water"), NAMES.index("cropland")]


def shift(pixels: float) -> Affine:
    return Affine(PIXEL, 0.0, GRID.c + pixels * PIXEL, 0.0, -PIXEL, GRID.f - pixels * PIXEL)


def test_a_map_may_be_half_a_pixel_beside_the_image(tmp_path: Path) -> None:
    write_landcover(tmp_path, np.full((40, 50), 10), transform=shift(0.5))
    assert (read(tmp_path, "esa").landcover == 0).all()
    write_landcover(tmp_path, np.full((40, 50), 10), transform=shift(1.5))
    with pytest.raises(FiresegError, match=r"ESA_LC.tif: shifted by 1.5 pixels against .*warp it"):
        read(tmp_path, "esa")


@pytest.mark.parametrize(
    ("shape", "fault"),
    [
        ((41, 50), r"ESA_LC.tif: 41 x 50 pixels, but 40 x 50 in .*warp it to the grid"),
        ((3, 40, 50), r"ESA_LC.tif: 3 channels, but a land cover has one"),
    ],
)
def test_another_kind_of_raster_is_an_error(shape: tuple[int, ...], fault: str, tmp_path: Path) -> None:
    write_landcover(tmp_path, np.full(shape, 10))
    with pytest.raises(FiresegError, match=fault):
        read(tmp_path, "esa")


@pytest.mark.parametrize(("codes", "kind"), [("esa", "ESA_LC"), ("esri-cems", "Esri10_LC")])
def test_a_land_cover_that_no_tile_has_is_an_error(codes: LandcoverCodes, kind: str, tmp_path: Path) -> None:
    write_landcover(tmp_path, np.full((40, 50), 10), kind="Esri10_LC" if kind == "ESA_LC" else "ESA_LC")
    with pytest.raises(FiresegError, match=rf"--landcover {codes}: no tile in .* has <name>_{kind}.tif .*omit it"):
        find_tiles(tmp_path, LabelOptions(landcover=codes))
