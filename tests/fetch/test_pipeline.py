"""Scenes fetched from a catalogue: choice of the day, values of the mosaic, failures of the server."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.warp import transform

from fireseg.data.bands import BAND_NAMES
from fireseg.errors import FiresegError, SettingError
from fireseg.fetch.catalogue import CATALOGUES, Catalogue
from fireseg.fetch.items import SceneItem
from fireseg.fetch.mosaic import MosaicReader
from fireseg.fetch.options import FetchOptions
from fireseg.fetch.pipeline import fetch_scenes
from fireseg.tiles import open_bands
from tests.fetch.builders import CLOUD, CUT, EPSG, NORTH, WEST, StacServer, write_area

BY_BAND = {band: 1500 + 500 * number for number, band in enumerate(BAND_NAMES)}
"""Digital numbers with an offset of 1000: reflectance 0.05, 0.10, …, 0.35."""

REFLECTANCE = [500, 1000, 1500, 2000, 2500, 3000, 3500]

Fetch = Callable[..., Path]


@pytest.fixture
def fetch(stac: StacServer, tmp_path: Path) -> Fetch:
    """Returns a function that fetches the pixels (30, 20) to (90, 80) of the first tile, and returns the folder."""

    def run(box: tuple[int, int, int, int] = (31, 20, 89, 79), day: str = "2025-08-24", **options: Any) -> Path:
        aoi = write_area(tmp_path / "fire.geojson", *box)
        out = tmp_path / "out"
        settings = {"catalog": stac.url, "days": 15, "out": out} | options
        fetch_scenes(FetchOptions(aoi=aoi, date=date.fromisoformat(day), **settings))
        return out

    return run


def read_reflectance(path: Path) -> NDArray[np.uint16]:
    """Reads a scene as `predict` does: reflectance x 10000, `(H, W, 7)`."""
    with open_bands(path, BAND_NAMES) as reader:
        return reader.read(0, 0, reader.height, reader.width)[0]


def read_classes(path: Path) -> NDArray[np.uint8]:
    with rasterio.open(path) as raster:
        return raster.read(1)


@pytest.mark.parametrize("key_style", ["common", "band", "resolution"])
def test_bands_are_found_by_the_keys_of_all_catalogues(stac: StacServer, fetch: Fetch, key_style: str) -> None:
    stac.add_item("A", day="2025-08-24", values=BY_BAND, key_style=key_style)
    image = read_reflectance(fetch() / "fire.tif")
    np.testing.assert_array_equal(image, np.broadcast_to(REFLECTANCE, image.shape))


def test_the_grid_covers_the_area_and_is_aligned_to_60_m(stac: StacServer, fetch: Fetch) -> None:
    stac.add_item("A", day="2025-08-24", values=BY_BAND)
    out = fetch((31, 20, 89, 79))
    with rasterio.open(out / "fire.tif") as raster, rasterio.open(out / "fire_SCL.tif") as classes:
        assert raster.crs.to_epsg() == EPSG
        # Columns 31 to 89 and rows 20 to 79, extended to multiples of 6.
        assert tuple(raster.bounds) == (WEST + 300, NORTH - 840, WEST + 900, NORTH - 180)
        assert raster.descriptions == BAND_NAMES
        assert (raster.dtypes[0], raster.nodata, classes.dtypes, classes.nodata) == ("uint16", 0, ("uint8",), 0)
        assert classes.transform == raster.transform
        assert classes.shape == raster.shape


def test_tiles_of_a_day_are_mosaicked_in_reflectance(stac: StacServer, fetch: Fetch) -> None:
    stac.add_item("A", day="2025-08-24", values=BY_BAND)
    before_offset = {band: number - 1000 for band, number in BY_BAND.items()}
    stac.add_item("B", day="2025-08-24", values=before_offset, column=1, baseline="03.01")
    image = read_reflectance(fetch((31, 20, 149, 79)) / "fire.tif")
    assert image.shape == (66, 120, 7)
    np.testing.assert_array_equal(image, np.broadcast_to(REFLECTANCE, image.shape))


def test_the_baseline_gives_the_offset_if_the_bands_do_not(stac: StacServer, fetch: Fetch) -> None:
    stac.add_item("A", day="2025-08-24", values=BY_BAND, raster_fields=False)
    assert read_reflectance(fetch() / "fire.tif")[0, 0].tolist() == REFLECTANCE


def test_an_offset_that_was_removed_is_not_subtracted(stac: StacServer, fetch: Fetch) -> None:
    removed = {band: number - 1000 for band, number in BY_BAND.items()}
    properties = {"earthsearch:boa_offset_applied": True}
    stac.add_item("A", day="2025-08-24", values=removed, properties=properties)
    assert read_reflectance(fetch() / "fire.tif")[0, 0].tolist() == REFLECTANCE


def test_reflectance_below_zero_is_measured(stac: StacServer, fetch: Fetch) -> None:
    stac.add_item("A", day="2025-08-24", values=BY_BAND | {"B02": 990}, column=0)
    out = fetch()
    with rasterio.open(out / "fire.tif") as raster:
        assert raster.read(1)[0, 0] == 990
    with open_bands(out / "fire.tif", BAND_NAMES) as reader:
        image, unknown = reader.read(0, 0, reader.height, reader.width)
    assert image[0, 0, 0] == 0
    assert not unknown.any()


def test_bands_of_20_m_are_interpolated(stac: StacServer, fetch: Fetch) -> None:
    ramp = np.broadcast_to(2000 + 40 * np.arange(48), (48, 48))
    stac.add_item("A", day="2025-08-24", values=BY_BAND | {"B12": ramp})
    image = read_reflectance(fetch() / "fire.tif")
    # The grid begins at column 15 of 20 m: 2600 in its middle, 2590 and 2610 in the middle of its halves, minus 1000.
    assert image[0, :4, 6].tolist() == [1590, 1610, 1630, 1650]


def test_strips_have_no_seams(stac: StacServer, fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    sizes = {band: 48 if band in ("B8A", "B11", "B12") else 96 for band in BAND_NAMES}
    stac.add_item("A", day="2025-08-24", values={b: rng.integers(1, 9000, (n, n)) for b, n in sizes.items()})
    out = fetch(trust_values=True)
    whole, clear = read_reflectance(out / "fire.tif"), json.loads((out / "fire.json").read_bytes())["clear_share"]
    monkeypatch.setattr("fireseg.fetch.mosaic._MAX_STRIP_PX", 1)
    monkeypatch.setattr("fireseg.fetch.mosaic._STRIP_STEP", 10)
    fetch(trust_values=True, overwrite=True)
    np.testing.assert_array_equal(read_reflectance(out / "fire.tif"), whole)
    assert json.loads((out / "fire.json").read_bytes())["clear_share"] == clear


def test_tiles_of_the_neighbouring_zone_are_reprojected(stac: StacServer, fetch: Fetch) -> None:
    stac.add_item("A", day="2025-08-24", values=BY_BAND, empty_columns=slice(60, 96))
    # The same ground in zone 11, whose central meridian is 6 degrees farther east.
    (x,), (y,) = transform(f"EPSG:{EPSG}", "EPSG:32611", [WEST + 600], [NORTH - 500])[:2]
    stac.add_item("B", day="2025-08-24", values=BY_BAND, epsg=32611, corner=(round(x) - 480, round(y) + 480))
    out = fetch()
    with rasterio.open(out / "fire.tif") as raster:
        assert raster.crs.to_epsg() == EPSG
    image = read_reflectance(out / "fire.tif")
    np.testing.assert_array_equal(image, np.broadcast_to(REFLECTANCE, image.shape))


def test_classes_are_not_interpolated(stac: StacServer, fetch: Fetch) -> None:
    classes = np.arange(48 * 48).reshape(48, 48).astype(np.uint8) % 4 + 4
    stac.add_item("A", day="2025-08-24", values=BY_BAND, scl=classes)
    scl = read_classes(fetch((31, 20, 89, 79)) / "fire_SCL.tif")
    # The grid begins at column 30 and row 18 of 10 m, which is column 15 and row 9 of 20 m.
    np.testing.assert_array_equal(scl, np.kron(classes, np.ones((2, 2), np.uint8))[18:84, 30:90])


def test_the_clearest_day_over_the_area_is_chosen(stac: StacServer, fetch: Fetch) -> None:
    cloudy = np.full((48, 48), CLOUD, np.uint8)
    cloudy[:, :5] = 4  # clear outside the area
    stac.add_item("cloudy", day="2025-08-25", values=BY_BAND, scl=cloudy, properties={"eo:cloud_cover": 0.0})
    stac.add_item("clear", day="2025-08-28", values=BY_BAND, properties={"eo:cloud_cover": 95.0})
    content = json.loads((fetch() / "fire.json").read_bytes())
    assert [item["id"] for item in content["items"]] == ["clear"]
    assert content["datetime"] == "2025-08-28T18:55:00Z"
    assert content["clear_share"] == 1


def test_of_equally_clear_days_the_one_closest_to_the_date_is_chosen(stac: StacServer, fetch: Fetch) -> None:
    for day in ("2025-08-17", "2025-08-20", "2025-08-27", "2025-08-30"):
        stac.add_item(day, day=day, values=BY_BAND)
    out = fetch(before=date(2025, 8, 23))
    dates = [json.loads((out / name).read_bytes())["datetime"][:10] for name in ("fire.json", "fire_before.json")]
    assert dates == ["2025-08-27", "2025-08-20"]
    with rasterio.open(out / "fire.tif") as after, rasterio.open(out / "fire_before.tif") as before:
        assert (after.transform, after.shape) == (before.transform, before.shape)


def test_area_outside_the_swath_counts_as_hidden(stac: StacServer, fetch: Fetch) -> None:
    stac.add_item("A", day="2025-08-24", values=BY_BAND, empty_columns=slice(60, 96))
    with pytest.raises(FiresegError, match=r"--max-cloud: 30 %.* 2025-08-24 5\d %; raise --days or --max-cloud"):
        fetch()
    out = fetch(max_cloud=60)
    image = read_reflectance(out / "fire.tif")
    assert image[0, 29].tolist() == REFLECTANCE
    assert not image[:, 30:].any()
    assert json.loads((out / "fire.json").read_bytes())["clear_share"] == pytest.approx(29 / 58, abs=0.02)


def test_no_day_that_is_clear_enough_is_an_error_that_lists_all(stac: StacServer, fetch: Fetch) -> None:
    for day in ("2025-08-24", "2025-08-29"):
        stac.add_item(day, day=day, values=BY_BAND, scl=CLOUD)
    with pytest.raises(FiresegError, match="2025-08-24 100 %, 2025-08-29 100 %; raise --days or --max-cloud"):
        fetch()


def test_where_tiles_overlap_the_newest_processing_is_used(stac: StacServer, fetch: Fetch) -> None:
    stac.add_item("A", day="2025-08-24", values=2000, baseline="05.00")
    stac.add_item("B", day="2025-08-24", values=3000, baseline="05.11", scl=5, empty_columns=slice(60, 96))
    out = fetch()
    image, classes = read_reflectance(out / "fire.tif"), read_classes(out / "fire_SCL.tif")
    assert (image[:, :30] == 2000).all()
    assert (image[:, 30:] == 1000).all()
    assert (classes[:, :30] == 5).all()
    assert (classes[:, 30:] == 4).all()


def test_days_are_those_of_the_sun(stac: StacServer, fetch: Fetch) -> None:
    # At 122 degrees west, 5 o'clock of universal time is the evening before.
    stac.add_item("A", day="2025-08-24", time="05:00:00", values=BY_BAND)
    with pytest.raises(FiresegError, match=r"no item of sentinel-2-l2a from 2025-08-24 to 2025-08-24.*raise --days"):
        fetch(days=0)
    assert fetch(day="2025-08-23", days=0)


@pytest.mark.parametrize(
    ("path", "failures"),
    [
        ("", [500, 503]),
        ("/collections/sentinel-2-l2a", [500]),
        ("/search", [429, CUT]),
        ("/files/A_B12.tif", [500] * 4),  # more than GDAL tries by itself
        ("/files/A_B12.tif", [CUT] * 5),
        ("/files/A_SCL.tif", [CUT]),
    ],
)
def test_a_failure_that_passes_does_no_harm(stac: StacServer, fetch: Fetch, path: str, failures: list[int]) -> None:
    stac.add_item("A", day="2025-08-24", values=BY_BAND)
    stac.failures[path] = failures
    assert read_reflectance(fetch() / "fire.tif")[0, 0].tolist() == REFLECTANCE
    assert stac.failures[path] == []


def test_a_failure_that_lasts_is_one_error(stac: StacServer, fetch: Fetch) -> None:
    stac.failures["/search"] = [500] * 20
    with pytest.raises(FiresegError, match=r"^http://127.0.0.1:\d+: .*HTTP status 500; try again later"):
        fetch()


def test_a_missing_collection_is_named(stac: StacServer, fetch: Fetch) -> None:
    with pytest.raises(FiresegError, match=r"no collection s2; .*--catalog 'http.*#COLLECTION'"):
        fetch(catalog=f"{stac.url}#s2")


def test_files_are_read_with_the_token_of_the_catalogue(
    stac: StacServer, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    stac.add_item("A", day="2025-08-24", values=BY_BAND)
    stac.token = "sig=secret"
    monkeypatch.setitem(CATALOGUES, "planetary", Catalogue(url=stac.url, token_url=f"{stac.url}/token"))
    with pytest.raises(FiresegError, match=r"asset scl: .*A_SCL.tif cannot be read") as error:
        fetch()
    assert "secret" not in str(error.value)
    assert read_reflectance(fetch(catalog="planetary") / "fire.tif")[0, 0].tolist() == REFLECTANCE
    assert [path for _, path in stac.requests].count("/token") == 1


def test_refused_access_to_s3_names_the_remedy(stac: StacServer, fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    host = stac.url.removeprefix("http://")
    for name, value in {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "word", "AWS_HTTPS": "NO"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(CATALOGUES, "cdse", Catalogue(url=stac.url, s3_endpoint=host, s3_advice="create keys"))
    stac.add_item("A", day="2025-08-24", values=BY_BAND)
    for asset in stac.items[0]["assets"].values():
        asset["href"] = asset["href"].replace(f"{stac.url}/", "s3://")
    assert read_reflectance(fetch(catalog="cdse") / "fire.tif")[0, 0].tolist() == REFLECTANCE
    stac.failures["/files/A_SCL.tif"] = [403] * 20
    with pytest.raises(FiresegError, match=r"asset scl: s3://files/A_SCL.tif cannot be read.*; create keys$"):
        fetch(catalog="cdse", overwrite=True)


def test_a_truncated_file_is_named_and_nothing_is_written(stac: StacServer, fetch: Fetch, tmp_path: Path) -> None:
    stac.add_item("A", day="2025-08-24", values=BY_BAND)
    path = stac.root / "A_B12.tif"
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(
        FiresegError, match=r"^A, asset swir22: .*/A_B12.tif cannot be read, or is cut short .*; try again later"
    ):
        fetch()
    assert list((tmp_path / "out").iterdir()) == []


def test_a_missing_file_is_not_asked_for_again(stac: StacServer, fetch: Fetch) -> None:
    stac.add_item("A", day="2025-08-24", values=BY_BAND)
    (stac.root / "A_B12.tif").unlink()
    with pytest.raises(FiresegError, match=r"^A, asset swir22: .*A_B12.tif .*cannot be read"):
        fetch()
    assert len([path for _, path in stac.requests if path == "/files/A_B12.tif"]) <= 3


@pytest.mark.parametrize("name", ["A_B12.vrt", "A_B12.tif"])
def test_a_virtual_raster_of_a_catalogue_is_not_opened(stac: StacServer, fetch: Fetch, name: str) -> None:
    stac.add_item("A", day="2025-08-24", values=BY_BAND)
    other = stac.root / "other.tif"
    (stac.root / "A_B12.tif").rename(other)
    rasterio.shutil.copy(other, stac.root / "A_B12.vrt", driver="VRT")
    content = (stac.root / "A_B12.vrt").read_text()
    source = f"/vsicurl/{stac.url}/files/other.tif"
    (stac.root / name).write_text(re.sub(r"(<SourceFilename).*(</SourceFilename)", rf"\1>{source}\2", content))
    stac.items[0]["assets"]["swir22"]["href"] = f"{stac.url}/files/{name}"
    with pytest.raises(FiresegError, match=rf"^A, asset swir22: .*/{name} cannot be read.*not recognized"):
        fetch()
    assert "/files/other.tif" not in [path for _, path in stac.requests]


@pytest.mark.parametrize("href", ["/etc/hostname", "file:///etc/hostname", "/vsicurl/http://127.0.0.1:1/a.tif"])
def test_an_address_of_another_kind_is_refused(stac: StacServer, fetch: Fetch, href: str) -> None:
    stac.add_item("A", day="2025-08-24", values=BY_BAND)
    stac.items[0]["assets"]["swir22"]["href"] = href
    with pytest.raises(FiresegError, match=rf"^A, asset swir22: {href}, but only .* addresses are fetched; use "):
        fetch()


def test_the_same_command_again_asks_for_nothing(stac: StacServer, fetch: Fetch) -> None:
    stac.add_item("A", day="2025-08-24", values=BY_BAND)
    fetch()
    stac.requests.clear()
    fetch()
    assert stac.requests == []


def test_a_scene_that_is_missing_is_fetched_and_the_other_is_kept(stac: StacServer, fetch: Fetch) -> None:
    for day in ("2025-08-20", "2025-08-24"):
        stac.add_item(day, day=day, values=BY_BAND)
    out = fetch()
    written = (out / "fire.tif").stat().st_mtime_ns
    fetch(before=date(2025, 8, 23))
    assert (out / "fire.tif").stat().st_mtime_ns == written
    assert (out / "fire_before.tif").is_file()


def test_a_scene_of_another_request_is_only_replaced_with_overwrite(stac: StacServer, fetch: Fetch) -> None:
    for day in ("2025-08-24", "2025-08-26"):
        stac.add_item(day, day=day, values=BY_BAND)
    out = fetch()
    with pytest.raises(FiresegError, match=r"fire.tif: was fetched with another from and to; .*--overwrite"):
        fetch(day="2025-08-25")
    fetch(day="2025-08-25", overwrite=True)
    assert json.loads((out / "fire.json").read_bytes())["datetime"].startswith("2025-08-26")


def test_the_area_itself_is_never_overwritten(stac: StacServer, tmp_path: Path) -> None:
    aoi = write_area(tmp_path / "fire.json", 31, 20, 89, 79)
    with pytest.raises(SettingError, match=r"--aoi: .*fire.json would be overwritten .*another OUT folder"):
        fetch_scenes(FetchOptions(aoi=aoi, date=date(2025, 8, 24), catalog=stac.url, out=tmp_path, overwrite=True))
    assert json.loads(aoi.read_bytes())["type"] == "FeatureCollection"


def test_items_without_a_reference_system_are_read(stac: StacServer, fetch: Fetch) -> None:
    stac.add_item("A", day="2025-08-24", values=BY_BAND)
    del stac.items[0]["properties"]["proj:epsg"]
    assert read_reflectance(fetch() / "fire.tif")[0, 0].tolist() == REFLECTANCE


def test_a_file_of_another_program_is_not_replaced(stac: StacServer, fetch: Fetch, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/fire.tif").touch()
    with pytest.raises(FiresegError, match=r"fire.tif: exists, .*--overwrite"):
        fetch()
    assert stac.requests == []


@pytest.mark.parametrize(("values", "baseline", "what"), [(1100, "03.01", "left on"), (600, "05.11", "no measurement")])
def test_values_that_contradict_the_catalogue_are_refused(
    stac: StacServer, fetch: Fetch, tmp_path: Path, values: int, baseline: str, what: str
) -> None:
    stac.add_item("A", day="2025-08-24", values=values, baseline=baseline)
    box = (1, 1, 95, 95)
    with pytest.raises(FiresegError, match=rf"out/fire.tif: .*{what}; .*another --catalog.*--trust-values"):
        fetch(box)
    assert list((tmp_path / "out").iterdir()) == []
    out = fetch(box, trust_values=True)
    (flag,) = json.loads((out / "fire.json").read_bytes())["flags"]
    assert what in flag


def test_the_json_names_items_licence_and_source(stac: StacServer, fetch: Fetch) -> None:
    stac.add_item("A", day="2025-08-24", values=BY_BAND)
    content = json.loads((fetch() / "fire.json").read_bytes())
    assert content["licence"] == "https://example.org/licence"
    assert (content["catalogue"], content["collection"]) == (stac.url, "sentinel-2-l2a")
    assert content["items"] == [
        {
            "id": "A",
            "datetime": "2025-08-24T18:55:00Z",
            "processing_baseline": "05.11",
            "offset": dict.fromkeys(BAND_NAMES, 1000.0),
        }
    ]
    assert content["attribution"] == "Contains modified Copernicus Sentinel data 2025"


def test_predict_finds_date_and_bands_of_a_scene(stac: StacServer, fetch: Fetch) -> None:
    stac.add_item("A", day="2025-08-24", values=BY_BAND)
    with open_bands(fetch() / "fire.tif", ["B12", "B04"]) as reader:
        assert reader.date == "2025-08-24T18:55:00Z"
        assert reader.ignored == ()
        assert reader.read(0, 0, 1, 1)[0].tolist() == [[[3500, 1500]]]


def test_without_the_extra_the_error_says_what_to_install(fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pystac_client", None)
    with pytest.raises(FiresegError, match=r"pystac_client is not installed; .*pip install 'fireseg\[stac\]'"):
        fetch()


def test_an_incomplete_item_does_not_hide_the_complete_ones(stac: StacServer, fetch: Fetch) -> None:
    stac.add_item("A", day="2025-08-24", values=BY_BAND)
    del stac.items[0]["assets"]["swir22"]
    with pytest.raises(FiresegError, match="A"):
        fetch()
    stac.add_item("B", day="2025-08-26", values=BY_BAND)
    assert json.loads((fetch() / "fire.json").read_text())["datetime"].startswith("2025-08-26")


def test_a_day_with_an_unreadable_classification_is_passed_over(stac: StacServer, fetch: Fetch) -> None:
    stac.add_item("A", day="2025-08-24", values=BY_BAND)
    (stac.root / "A_SCL.tif").unlink()
    stac.add_item("B", day="2025-08-26", values=BY_BAND)
    assert json.loads((fetch() / "fire.json").read_text())["datetime"].startswith("2025-08-26")


def test_a_scene_that_cannot_be_fetched_does_not_stop_the_other(stac: StacServer, fetch: Fetch, tmp_path: Path) -> None:
    stac.add_item("A", day="2025-08-20", values=BY_BAND)
    with pytest.raises(FiresegError, match="no item") as caught:
        fetch(before=date(2025, 8, 23))
    assert len(caught.value.faults) == 1
    assert [path.name for path in tmp_path.rglob("fire*.json")] == ["fire_before.json"]


def test_a_day_that_fails_unexpectedly_is_passed_over(
    stac: StacServer, fetch: Fetch, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = MosaicReader.measure_clear_share

    def fail_at_first(self: MosaicReader, items: Sequence[SceneItem]) -> float:
        if items[0].item.id == "A":
            raise MemoryError
        return measure(self, items)

    monkeypatch.setattr(MosaicReader, "measure_clear_share", fail_at_first)
    stac.add_item("A", day="2025-08-24", values=BY_BAND)
    stac.add_item("B", day="2025-08-26", values=BY_BAND)
    assert json.loads((fetch() / "fire.json").read_text())["datetime"].startswith("2025-08-26")
