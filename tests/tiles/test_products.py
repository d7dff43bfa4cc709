"""Products as they are delivered: SAFE folders and archives, and STAC items."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fireseg.data.bands import BAND_NAMES
from fireseg.errors import FiresegError
from fireseg.tiles import RasterOptions, open_bands
from fireseg.tiles.products import get_scene_name, parse_scene
from tests.tiles.builders import PRODUCT, interpolate, utm_grid, write_raster, write_safe

FINE = ("B02", "B03", "B04", "B08")


def make_numbers() -> dict[str, NDArray[np.uint16]]:
    """Makes digital numbers of a scene of 120 x 140 pixels of 10 m, with the offset of 1000."""
    rng = np.random.default_rng(0)
    numbers = {band: rng.integers(1050, 5500, (120, 140)).astype(np.uint16) for band in FINE}
    numbers |= {band: rng.integers(1050, 5500, (60, 70)).astype(np.uint16) for band in ("B8A", "B11", "B12")}
    return numbers | {"SCL": rng.choice([3, 4, 5, 9], (60, 70)).astype(np.uint16)}


def read(scene: Path | str) -> NDArray[np.uint16]:
    with open_bands(scene, BAND_NAMES) as reader:
        return reader.read(0, 0, reader.height, reader.width)[0]


@pytest.fixture(scope="module")
def expected() -> NDArray[np.uint16]:
    """Reflectance of the same scene as one raster of 10 m."""
    numbers = make_numbers()
    planes = [numbers[band] if band in FINE else interpolate(numbers[band]) for band in BAND_NAMES]
    return np.stack(planes, axis=2) - np.uint16(1000)


@pytest.fixture
def safe(tmp_path: Path) -> Path:
    return write_safe(tmp_path, make_numbers())


@pytest.mark.parametrize("form", ["folder", "xml", "SAFE.zip", "zip"])
def test_a_safe_product_is_read_as_one_raster_of_10_m(safe: Path, form: str, expected: NDArray[np.uint16]) -> None:
    scene = safe
    if form == "xml":
        scene = safe / "MTD_MSIL2A.xml"
    elif "zip" in form:
        archive = shutil.make_archive(str(safe.parent / "archive"), "zip", safe.parent, safe.name)
        scene = Path(archive).rename(safe.parent / f"{PRODUCT}.{form}")
        shutil.rmtree(safe)
    np.testing.assert_array_equal(read(scene), expected)
    with open_bands(scene, BAND_NAMES) as reader:
        assert (reader.name, reader.date, reader.level) == (PRODUCT, "2023-08-28T10:54:39Z", "2A")
        assert reader.check_values() == ()


def test_windows_of_a_product_are_those_of_the_whole(safe: Path, expected: NDArray[np.uint16]) -> None:
    with open_bands(safe, BAND_NAMES) as reader:
        for top, left, height, width in [(0, 0, 120, 140), (17, 33, 51, 64), (119, 139, 1, 1), (61, 0, 3, 140)]:
            image, unknown = reader.read(top, left, height, width)
            np.testing.assert_array_equal(image, expected[top : top + height, left : left + width])
            assert not unknown.any()


def test_the_classification_of_a_product_is_its_cloud_mask(safe: Path) -> None:
    classes = make_numbers()["SCL"].repeat(2, axis=0).repeat(2, axis=1)
    codes = np.where(classes == 3, 3, np.where(classes == 9, 1, 0))
    with open_bands(safe, BAND_NAMES) as reader:
        mask = reader.open_cloud_mask()
        assert mask is not None
        with mask:
            np.testing.assert_array_equal(mask.read_codes(0, 120), codes)


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda safe: shutil.rmtree(safe / "GRANULE"), r"no band in GRANULE.*; download"),
        (lambda safe: (safe / "MTD_MSIL2A.xml").unlink(), r"a folder without MTD_MSIL2A\.xml; give"),
        (lambda safe: (safe / "MTD_MSIL2A.xml").write_text("<a>"), r"MTD_MSIL2A\.xml: not valid XML .*; download"),
        (
            lambda safe: next(safe.rglob("*B12*.jp2")).write_bytes(b"\0\0\0\0"),
            r"B12 at .*_B12_20m\.jp2: truncated or not .*; download",
        ),
        (lambda safe: next(safe.rglob("*B12*.jp2")).unlink(), r"band B12 not found"),
    ],
)
def test_an_incomplete_product_is_an_error(safe: Path, break_it: object, words: str) -> None:
    break_it(safe)  # pyright: ignore[reportCallIssue]
    with pytest.raises(FiresegError, match=words):
        open_bands(safe, BAND_NAMES)


def test_an_archive_that_is_no_product_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(FiresegError, match=r"a\.zip: cannot be read .*; download it again"):
        open_bands(tmp_path / "a.zip", BAND_NAMES)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("in/scene.tif", "scene"),
        (f"in/{PRODUCT}.SAFE", PRODUCT),
        (f"in/{PRODUCT}.SAFE/", PRODUCT),
        (f"in/{PRODUCT}.SAFE.zip", PRODUCT),
        (f"in/{PRODUCT}.SAFE/MTD_MSIL2A.xml", PRODUCT),
        ("https://host/a/scene.tif?key=a/b.c", "scene"),
        ("/vsicurl/https://host/scene.tif", "scene"),
        ("a.b.tif", "a.b"),
    ],
)
def test_the_name_of_a_scene_is_that_of_its_file_or_product(text: str, name: str) -> None:
    assert get_scene_name(parse_scene(text)) == name


STAC_NAMES = {
    "B02": "blue",
    "B03": "green",
    "B04": "red",
    "B08": "nir",
    "B8A": "nir08",
    "B11": "swir16",
    "B12": "swir22",
}


def write_item(folder: Path, *, applied: bool | None = None, planetary: bool = False) -> Path:
    """Writes a STAC item of single-band rasters, with common names or band names as keys of the assets."""
    assets = {}
    for band, values in make_numbers().items():
        pixel_m = 10 if band in FINE else 20
        write_raster(folder / f"{band}.tif", values, crs="EPSG:32631", transform=utm_grid(pixel_m))
        key = band if planetary else STAC_NAMES.get(band, "scl")
        assets[key] = {"href": f"./{band}.tif"}
        if band != "SCL" and not planetary:
            assets[key]["raster:bands"] = [{"scale": 0.0001, "offset": -0.1}]
    assets["thumbnail"] = {"href": "./preview.jpg"}
    properties = {"datetime": "2023-08-28T10:54:39.024Z"}
    properties |= {"s2:processing_baseline": "05.09"} if planetary else {}
    properties |= {} if applied is None else {"earthsearch:boa_offset_applied": applied}
    item = {"type": "Feature", "id": "S2B_31TCJ_20230828_0_L2A", "properties": properties, "assets": assets}
    path = folder / "item.json"
    path.write_text(json.dumps(item))
    return path


@pytest.mark.parametrize("planetary", [False, True])
def test_a_stac_item_is_read_by_the_names_of_its_assets(
    tmp_path: Path, planetary: bool, expected: NDArray[np.uint16]
) -> None:
    item = write_item(tmp_path, planetary=planetary)
    np.testing.assert_array_equal(read(item), expected)
    with open_bands(item, BAND_NAMES) as reader:
        assert (reader.name, reader.date) == ("item", "2023-08-28T10:54:39Z")


def test_an_offset_that_was_applied_is_not_subtracted_again(tmp_path: Path) -> None:
    item = write_item(tmp_path, applied=True)
    with open_bands(item, ("B02",), RasterOptions(trust_values=True)) as reader:
        np.testing.assert_array_equal(reader.read(0, 0, 120, 140)[0][..., 0], make_numbers()["B02"])


SERVER = """
import http.server, re, sys

class Handler(http.server.SimpleHTTPRequestHandler):
    def send_head(self):
        wanted = re.fullmatch(r"bytes=(\\d+)-(\\d+)", self.headers.get("Range", ""))
        if self.command != "GET" or wanted is None:
            return super().send_head()
        content = open(self.translate_path(self.path), "rb").read()
        first, last = int(wanted[1]), min(int(wanted[2]), len(content) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        self.wfile.write(content[first:last + 1])

with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
    print(server.server_address[1], flush=True)
    server.serve_forever()
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    # In a process of its own: GDAL holds Python's lock while it opens a raster.
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.kill()


def test_an_item_at_an_address_is_read_with_its_rasters(
    tmp_path: Path, server: str, expected: NDArray[np.uint16]
) -> None:
    write_item(tmp_path)
    np.testing.assert_array_equal(read(f"{server}/item.json"), expected)


def test_an_address_without_an_item_is_an_error(server: str) -> None:
    with pytest.raises(FiresegError, match=r"nowhere\.json: cannot be read .*404.*; check the address"):
        open_bands(f"{server}/nowhere.json", BAND_NAMES)


@pytest.mark.parametrize(
    ("href", "words"),
    [
        ("/vsicurl/http://127.0.0.1:1/b.tif", "must not name"),
        ("a\0.tif", "correct the item"),
        ("ftp://127.0.0.1/b.tif", "download the file"),
    ],
)
def test_an_asset_that_names_a_virtual_file_system_is_an_error(tmp_path: Path, href: str, words: str) -> None:
    path = write_item(tmp_path)
    item = json.loads(path.read_text())
    item["assets"]["red"]["href"] = href
    path.write_text(json.dumps(item))
    with pytest.raises(FiresegError, match=rf"asset red: .*{words}"):
        open_bands(path, BAND_NAMES)


def test_a_json_that_is_no_item_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(FiresegError, match=r"a\.json: a json without assets.*; give a raster or an item"):
        open_bands(tmp_path / "a.json", BAND_NAMES)


def test_an_item_of_stac_1_1_has_scale_and_offset_beside_its_bands(
    tmp_path: Path, expected: NDArray[np.uint16]
) -> None:
    path = write_item(tmp_path)
    item = json.loads(path.read_text())
    assets = {}
    for band in (*BAND_NAMES, "SCL"):
        resolution = 10 if band in FINE else 20
        assets[f"{band}_{resolution}m"] = {"href": f"{band}.tif", "bands": [{"name": band}]}
        if band != "SCL":
            assets[f"{band}_{resolution}m"] |= {"raster:scale": 0.0001, "raster:offset": -0.1}
    assets["B10_60m"] = {"href": "B02.tif", "raster:scale": 0.0001, "raster:offset": 0, "eo:bands": ["B10"]}
    path.write_text(json.dumps({**item, "assets": assets}))
    np.testing.assert_array_equal(read(path), expected)


def test_the_baseline_in_the_id_of_an_item_counts(tmp_path: Path, expected: NDArray[np.uint16]) -> None:
    path = write_item(tmp_path, planetary=True)
    item = json.loads(path.read_text())
    path.write_text(json.dumps({**item, "id": PRODUCT, "properties": {}}))
    np.testing.assert_array_equal(read(path), expected)


@pytest.mark.parametrize("href", ["file:///vsizip//tmp/x.zip/B04.tif", f"{'../' * 20}vsizip/tmp/x.zip/B04.tif"])
def test_an_asset_cannot_reach_a_virtual_file_system_by_another_way(tmp_path: Path, href: str) -> None:
    path = write_item(tmp_path)
    item = json.loads(path.read_text())
    item["assets"]["red"]["href"] = href
    path.write_text(json.dumps(item))
    with pytest.raises(FiresegError, match=r"asset red: .*must not name"):
        open_bands(path, BAND_NAMES)


def test_spaces_in_the_address_of_an_asset_are_decoded(tmp_path: Path, expected: NDArray[np.uint16]) -> None:
    path = write_item(tmp_path / "a b")
    item = json.loads(path.read_text())
    item["assets"]["red"]["href"] = f"file://{tmp_path}/a%20b/B04.tif"
    path.write_text(json.dumps(item))
    np.testing.assert_array_equal(read(path), expected)


def test_a_product_in_the_current_folder_has_its_name(safe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(safe)
    assert open_bands(Path(), BAND_NAMES).name == PRODUCT


def test_an_item_on_a_server_cannot_name_local_files(tmp_path: Path, server: str, expected: NDArray[np.uint16]) -> None:
    path = write_item(tmp_path)
    item = json.loads(path.read_text())
    item["assets"]["red"]["href"] = f"file://{tmp_path}/B04.tif"
    path.write_text(json.dumps(item))
    np.testing.assert_array_equal(read(path), expected)
    with pytest.raises(FiresegError, match=r"asset red: file://.*local files; download the item"):
        open_bands(f"{server}/item.json", BAND_NAMES)


def test_an_archive_with_files_that_lead_gdal_elsewhere_is_refused(safe: Path, tmp_path: Path) -> None:
    next(safe.rglob("*B12*.jp2")).with_suffix(".jp2.ovr").write_text("<VRTDataset/>")
    archive = shutil.make_archive(str(tmp_path / "a"), "zip", safe.parent, safe.name)
    with pytest.raises(FiresegError, match=r"a\.zip: .*_B12_20m\.jp2\.ovr in it is no part of a product; unpack it"):
        open_bands(Path(archive), BAND_NAMES)


def test_a_band_whose_name_is_a_virtual_raster_is_refused(safe: Path) -> None:
    path = next(safe.rglob("*B12*.jp2"))
    path.rename(path.with_name("<VRTDataset>_B12_20m.jp2"))
    with pytest.raises(FiresegError, match=r"B12 at .*< in its path has a meaning for GDAL; rename"):
        open_bands(safe, BAND_NAMES)


@pytest.mark.parametrize(("scale", "shift"), [("1e999", "0"), ("NaN", "-0.1"), ("1e-4", "-60"), ("1e-4", '"nan"')])
def test_impossible_scales_and_offsets_of_an_item_are_faults(tmp_path: Path, scale: str, shift: str) -> None:
    path = write_item(tmp_path)
    text = path.read_text().replace('{"scale": 0.0001, "offset": -0.1}', f'{{"scale": {scale}, "offset": {shift}}}', 1)
    path.write_text(text)
    with pytest.raises(FiresegError, match=r"item\.json: (asset blue: )?(scale|offset) .*correct it"):
        open_bands(path, BAND_NAMES)
