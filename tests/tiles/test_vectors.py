"""Labels as polygons: rasterised like the mask that they were drawn from, and faults of their files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray
from pyogrio import raw
from pyproj import Transformer
from rasterio.features import shapes

from fireseg.data.bands import BAND_NAMES
from fireseg.errors import FiresegError
from fireseg.tiles.options import LabelOptions
from fireseg.tiles.reader import find_tiles, read_tile
from fireseg.tiles.vectors import GRADE_WORDS
from tests.tiles.builders import GRID, PIXEL, write_raster, write_tile

NAME = "EMSR999_AOI01_01"

DRIVERS = {".geojson": "GeoJSON", ".gpkg": "GPKG", ".shp": "ESRI Shapefile"}


def make_mask(high: int = 1) -> NDArray[np.uint8]:
    """Makes blobs, some with holes, of the classes 0 to `high`."""
    rows, cols = np.mgrid[:40, :50]
    radius = np.hypot(rows - 18, cols - 22)
    mask = np.where((radius > 5) & (radius < 12), 1 + (rows + cols) // 7 % high, 0)
    mask[30:35, 40:50] = high
    return mask.astype(np.uint8)


def to_polygons(mask: NDArray[np.uint8], crs: str = "EPSG:4326") -> tuple[list[Any], list[int]]:
    """Returns the outlines of the pixels of each class above 0, in a reference system, and their classes."""
    found = [(shapely.geometry.shape(one), int(value)) for one, value in shapes(mask, transform=GRID) if value]
    transform = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform
    move = lambda points: np.column_stack(transform(*points.T))  # noqa: E731
    return [shapely.transform(polygon, move) for polygon, _ in found], [value for _, value in found]


def write_layer(
    path: Path,
    geometries: Sequence[Any],
    *,
    crs: str | None = "EPSG:4326",
    geometry_type: str = "Polygon",
    layer: str = "burned",
    append: bool = False,
    **fields: Sequence[Any],
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    raw.write(
        path,
        shapely.to_wkb(np.array(geometries, object)),
        [np.array(values) for values in fields.values()],
        list(fields),
        driver=DRIVERS[path.suffix],
        layer=path.stem if path.suffix == ".shp" else layer,
        geometry_type=geometry_type,
        crs=crs,
        append=append,
    )
    return path


def read_labels(root: Path, **options: Any) -> Any:
    (files,) = find_tiles(root).tiles
    return read_tile(files, BAND_NAMES, labels=LabelOptions(**options))


def get_faults(root: Path, **options: Any) -> tuple[str, ...]:
    with pytest.raises(FiresegError) as caught:
        read_labels(root, **options)
    return caught.value.faults


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:32628", "EPSG:3035"])
@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".shp"])
def test_polygons_give_the_mask_that_they_outline(tmp_path: Path, suffix: str, crs: str) -> None:
    write_tile(tmp_path, masks=())
    polygons, _ = to_polygons(make_mask(), crs)
    write_layer(tmp_path / f"{NAME}_DEL{suffix}", polygons, crs=crs)
    tile = read_labels(tmp_path)
    np.testing.assert_array_equal(tile.delineation, make_mask())
    assert (tile.grading, tile.flags) == (None, ())


def test_a_pixel_is_burned_if_its_centre_is(tmp_path: Path) -> None:
    write_tile(tmp_path, masks=())
    # From column 3.4 to 6.6: the centres 3.5, 4.5 and 5.5 are inside, and 6.5 as well.
    box = shapely.box(-15 + 3.4 * PIXEL, 28 - 2.6 * PIXEL, -15 + 6.6 * PIXEL, 28 - 1.4 * PIXEL)
    write_layer(tmp_path / f"{NAME}_DEL.gpkg", [box])
    expected = np.zeros((40, 50), np.uint8)
    expected[1:3, 3:7] = 1
    np.testing.assert_array_equal(read_labels(tmp_path).delineation, expected)


@pytest.mark.parametrize(
    "as_text", [str, lambda grade: f" {[*GRADE_WORDS][[*GRADE_WORDS.values()].index(grade)]}".upper()]
)
def test_grades_are_read_from_the_field_as_numbers_or_words(tmp_path: Path, as_text: Any) -> None:
    write_tile(tmp_path, masks=("DEL",))
    polygons, grades = to_polygons(make_mask(4), "EPSG:32628")
    write_layer(tmp_path / f"{NAME}_GRA.shp", polygons, crs="EPSG:32628", damage=[as_text(grade) for grade in grades])
    np.testing.assert_array_equal(read_labels(tmp_path, grade_field="damage").grading, make_mask(4))


def test_other_numbers_of_the_field_are_replaced_and_the_highest_grade_counts(tmp_path: Path) -> None:
    write_tile(tmp_path, masks=())
    boxes = [
        shapely.box(-15 + left * PIXEL, 28 - 40 * PIXEL, -15 + right * PIXEL, 28) for left, right in ((0, 20), (10, 30))
    ]
    write_layer(tmp_path / f"{NAME}_GRA.gpkg", boxes, grade=[5.0, 2.0])
    grading = read_labels(tmp_path, grade_field="grade", classes=("GRA:5=4",)).grading
    assert grading[7].tolist() == [4] * 20 + [2] * 10 + [0] * 20


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".shp"])
def test_a_layer_without_features_means_that_nothing_burned(tmp_path: Path, suffix: str) -> None:
    write_tile(tmp_path, masks=())
    path = tmp_path / f"{NAME}_DEL{suffix}"
    if suffix == ".geojson":
        path.write_text('{"type": "FeatureCollection", "features": []}')
    else:
        write_layer(path, [])
    assert not read_labels(tmp_path).delineation.any()


BOX = shapely.box(-15 + 10 * PIXEL, 28 - 20 * PIXEL, -15 + 20 * PIXEL, 28 - 10 * PIXEL)
BOW_TIE = shapely.Polygon([(-15, 28), (-14.999, 27.999), (-14.999, 28), (-15, 27.999)])


@pytest.mark.parametrize(
    ("geometries", "options", "words"),
    [
        ([shapely.box(-14, 28, -13, 29)], {}, "lies wholly outside of the image .*without features"),
        ([BOX, BOW_TIE], {}, r"1 invalid polygons \(feature 2: Self-intersection.*-makevalid"),
        ([BOX], {"crs": None}, "no reference system; .*-a_srs"),
        ([shapely.Point(-14.999, 27.999)], {"geometry_type": "Point"}, "no layer of polygons"),
        ([BOX, shapely.Point(-14.999, 27.999)], {"geometry_type": "Unknown"}, "Point, but burned areas are polygons"),
        ([shapely.box(380_000, 3_090_000, 381_000, 3_091_000)], {}, "are no degrees"),
        ([None], {}, "no feature has a geometry"),
    ],
)
@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_polygons_that_say_nothing_about_the_image_are_a_fault_with_its_cure(
    tmp_path: Path, geometries: list[Any], options: dict[str, Any], words: str
) -> None:
    write_tile(tmp_path, masks=())
    write_layer(tmp_path / f"{NAME}_DEL.gpkg", geometries, **options)
    (fault,) = get_faults(tmp_path)
    assert fault.startswith(f"{tmp_path / NAME}_DEL.gpkg: ")
    with pytest.raises(FiresegError, match=words):
        raise FiresegError(fault)


def test_features_without_a_geometry_are_left_out_and_flagged(tmp_path: Path) -> None:
    write_tile(tmp_path, masks=())
    write_layer(tmp_path / f"{NAME}_DEL.gpkg", [BOX, None])
    tile = read_labels(tmp_path)
    assert tile.delineation.sum() == 100
    assert "1 of 2 features have no geometry" in tile.flags[0]


def test_several_layers_of_polygons_are_a_fault(tmp_path: Path) -> None:
    write_tile(tmp_path, masks=())
    for layer in ("event", "aoi"):
        write_layer(tmp_path / f"{NAME}_DEL.gpkg", [BOX], layer=layer, append=layer == "aoi")
    (fault,) = get_faults(tmp_path)
    assert "2 layers of polygons (event, aoi)" in fault


@pytest.mark.parametrize(
    ("grades", "options", "words"),
    [
        ([1, 2], {}, "--grade-field"),
        ([1, 2], {"grade_field": "dammage"}, "did you mean 'damage'"),
        ([1, 7], {"grade_field": "damage"}, "7 not understood"),
        (["Destroyed", "Possibly damaged"], {"grade_field": "damage"}, "Possibly damaged not understood"),
    ],
)
def test_grades_that_are_not_understood_are_a_fault(
    tmp_path: Path, grades: list[Any], options: dict[str, Any], words: str
) -> None:
    write_tile(tmp_path, masks=("DEL",))
    write_layer(tmp_path / f"{NAME}_GRA.gpkg", [BOX, BOX], damage=grades)
    (fault,) = get_faults(tmp_path, **options)
    assert words in fault


@pytest.mark.parametrize(("content", "words"), [(b"", "empty"), (b'{"type": "Feat', "not a vector file")])
def test_unreadable_files_are_faults(tmp_path: Path, content: bytes, words: str) -> None:
    write_tile(tmp_path, masks=())
    (tmp_path / f"{NAME}_DEL.geojson").write_bytes(content)
    (fault,) = get_faults(tmp_path)
    assert words in fault


def test_the_values_of_a_shapefile_are_among_the_files_of_a_tile(tmp_path: Path) -> None:
    write_tile(tmp_path, masks=())
    write_layer(tmp_path / f"{NAME}_DEL.shp", [BOX])
    (files,) = find_tiles(tmp_path).tiles
    assert [path.suffix for path in files.paths] == [".tif", ".shp", ".dbf", ".prj"]


def test_a_mask_as_raster_and_polygons_is_a_duplicate(tmp_path: Path) -> None:
    write_tile(tmp_path, masks=())
    write_layer(tmp_path / f"{NAME}_DEL.gpkg", [BOX])
    write_raster(tmp_path / f"{NAME}_DEL.tif", make_mask())
    assert "duplicate" in find_tiles(tmp_path).faults[0].message


def test_polygons_of_an_image_without_georeference_are_one_fault(tmp_path: Path) -> None:
    path = write_tile(tmp_path, masks=(), crs=None)
    (tmp_path / f"{NAME}_DEL.geojson").write_text(json.dumps(shapely.geometry.mapping(BOX)))
    (fault,) = get_faults(tmp_path)
    assert fault.startswith(f"{path}: no georeference")


def test_a_geojson_whose_features_are_none_is_not_a_tile_without_fire(tmp_path: Path) -> None:
    path = write_tile(tmp_path, NAME, masks=("CM",)).with_name(f"{NAME}_DEL.geojson")
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [[[1]]]}))
    assert "_DEL.geojson: its features are none that GeoJSON knows; export it again" in "".join(get_faults(tmp_path))


def test_a_ring_with_a_coordinate_that_is_no_number_is_refused(tmp_path: Path) -> None:
    path = write_tile(tmp_path, NAME, masks=("CM",)).with_name(f"{NAME}_DEL.geojson")
    ring = [[-15.0, 28.0], [-14.999, 28.0], [-14.999, 27.999], [-15.0, 28.0]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    feature = {"type": "Feature", "properties": {}, "geometry": geometry}
    text = json.dumps({"type": "FeatureCollection", "features": [feature]})
    path.write_text("NaN".join(text.rsplit("28.0", 1)))
    assert "_DEL.geojson: a geometry that is none" in "".join(get_faults(tmp_path))
