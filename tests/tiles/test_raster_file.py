"""Rasters that make GDAL open addresses and other files are refused before GDAL sees them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.errors import RasterioIOError
from rasterio.shutil import copy as copy_raster

from fireseg.errors import FiresegError
from fireseg.tiles.raster_file import open_dataset, open_raster
from tests.conftest import CountingServer
from tests.tiles.builders import make_reflectance, write_raster


def write_bands(folder: Path, *bands: str) -> None:
    for number, band in enumerate(bands):
        write_raster(folder / f"{band}.tif", make_reflectance(channels=1, seed=number))


def write_vrt(path: Path, *sources: str, relative: int = 1, inside: str = "") -> Path:
    """Writes a virtual raster as `gdalbuildvrt -separate` does."""
    bands = "".join(
        f'<VRTRasterBand dataType="Float32" band="{number}"><ComplexSource>'
        f'<SourceFilename relativeToVRT="{relative}">{source}</SourceFilename><SourceBand>1</SourceBand>'
        '<SourceProperties RasterXSize="50" RasterYSize="40" DataType="Float32" BlockXSize="50" BlockYSize="40"/>'
        "</ComplexSource></VRTRasterBand>"
        for number, source in enumerate(sources, 1)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        '<VRTDataset rasterXSize="50" rasterYSize="40"><SRS dataAxisToSRSAxisMapping="2,1">EPSG:4326</SRS>'
        f"<GeoTransform>-15, 0.0001, 0, 28, 0, -0.0001</GeoTransform>{bands}{inside}</VRTDataset>"
    )
    return path


def refuse(path: Path) -> str:
    with pytest.raises(FiresegError) as caught, open_raster(path):
        pass
    return str(caught.value)


def test_a_stack_of_files_below_its_folder_is_read_also_if_it_is_nested(tmp_path: Path) -> None:
    write_bands(tmp_path / "bands", "B02", "B03")
    write_vrt(tmp_path / "bands" / "inner.vrt", "B02.tif", "B03.tif")
    write_vrt(tmp_path / "outer.vrt", "bands/inner.vrt", str(tmp_path / "bands/B03.tif"))
    with open_raster(tmp_path / "outer.vrt") as raster:
        np.testing.assert_array_equal(raster.read(1), make_reflectance(channels=1)[0])
        np.testing.assert_array_equal(raster.read(2), make_reflectance(channels=1, seed=1)[0])


def test_a_virtual_raster_that_is_a_link_refers_to_files_beside_its_target(tmp_path: Path) -> None:
    write_bands(tmp_path / "bands", "B02")
    write_vrt(tmp_path / "bands" / "stack.vrt", "B02.tif")
    (tmp_path / "link.vrt").symlink_to(tmp_path / "bands" / "stack.vrt")
    with open_raster(tmp_path / "link.vrt") as raster:
        assert raster.read(1).max() > 0


@pytest.mark.parametrize(
    ("source", "relative", "reason"),
    [
        ("/etc/passwd", 0, "lies outside"),
        ("../outside.tif", 1, "lies outside"),
        ("link.tif", 1, "lies outside"),
        ("B02.tif", 0, "relative to the current folder"),
        ("missing.tif", 1, "does not exist"),
        (" B02.tif", 1, "no plain file"),
        ("/vsicurl/http://127.0.0.1:1/a.tif", 0, "no plain file"),
        ("http://127.0.0.1:1/a.tif", 1, "no plain file"),
        ("NETCDF:B02.tif:x", 1, "no plain file"),
        ("&lt;VRTDataset/&gt;", 1, "no plain file"),
        ("B02<!-- -->.tif", 1, "name of a source not understood"),
    ],
)
def test_a_source_that_is_no_file_below_the_folder_is_refused(
    tmp_path: Path, source: str, relative: int, reason: str
) -> None:
    write_bands(tmp_path, "outside")
    write_bands(tmp_path / "in", "B02")
    (tmp_path / "in" / "link.tif").symlink_to(tmp_path / "outside.tif")
    message = refuse(write_vrt(tmp_path / "in" / "scene.tif", source, relative=relative))
    assert message.startswith(f"{tmp_path / 'in' / 'scene.tif'}: ")
    assert reason in message
    assert "gdal_translate scene.tif copy.tif" in message


@pytest.mark.parametrize(
    "inside",
    [
        '<VRTRasterBand band="1" subClass="VRTRawRasterBand"><SourceFilename>/etc/passwd</SourceFilename>'
        "</VRTRasterBand>",
        '<VRTRasterBand band="1"><sourcefilename relativetovrt="0">/etc/passwd</sourcefilename></VRTRasterBand>',
        '<VRTRasterBand band="1"><SimpleSource SourceFilename="/etc/passwd"/></VRTRasterBand>',
        '<VRTRasterBand band="1"><PixelFunctionCode>import os</PixelFunctionCode></VRTRasterBand>',
        "<GDALWarpOptions><SourceDataset>/etc/passwd</SourceDataset></GDALWarpOptions>",
        "<GDALWarpOptions><Transformer><RPCTransformer><DEMPath>/etc/passwd</DEMPath></RPCTransformer></Transformer>"
        "</GDALWarpOptions>",
        "<Input><SourceFilename>/etc/passwd</SourceFilename></Input>",
        "<PansharpeningOptions/>",
        "<Group/>",
    ],
)
def test_other_ways_to_name_a_file_are_refused(tmp_path: Path, inside: str) -> None:
    assert f"{tmp_path / 'scene.vrt'}: " in refuse(write_vrt(tmp_path / "scene.vrt", inside=inside))


def test_entities_are_refused_before_they_are_expanded(tmp_path: Path) -> None:
    path = write_vrt(tmp_path / "scene.vrt")
    path.write_text('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>' + path.read_text())
    assert "document type" in refuse(path)


def test_raw_values_are_read_from_below_the_folder_only(tmp_path: Path) -> None:
    values = np.arange(2000, dtype="<f4").reshape(40, 50)
    (tmp_path / "values.bin").write_bytes(values.tobytes())
    band = (
        '<VRTRasterBand dataType="Float32" band="1" subClass="VRTRawRasterBand"><SourceFilename relativeToVRT="1">'
        "values.bin</SourceFilename><ImageOffset>0</ImageOffset><PixelOffset>4</PixelOffset>"
        "<LineOffset>200</LineOffset></VRTRasterBand>"
    )
    with open_raster(write_vrt(tmp_path / "scene.vrt", inside=band)) as raster:
        np.testing.assert_array_equal(raster.read(1), values)


def test_a_virtual_raster_that_reads_itself_is_refused(tmp_path: Path) -> None:
    assert "nested too deeply" in refuse(write_vrt(tmp_path / "scene.vrt", "scene.vrt"))


@pytest.mark.parametrize("driver", ["GTiff", "VRT"])
def test_what_gdal_itself_writes_is_read(tmp_path: Path, driver: str) -> None:
    write_raster(tmp_path / "a.tif", make_reflectance(), nodata=0.0)
    copy_raster(tmp_path / "a.tif", tmp_path / "b.tif", driver=driver)
    with open_raster(tmp_path / "b.tif") as raster:
        np.testing.assert_array_equal(raster.read(), make_reflectance())


def write_wms(url: str) -> str:
    return (
        f'<GDAL_WMS><Service name="TMS"><ServerUrl>{url}/${{z}}/${{x}}/${{y}}.png</ServerUrl></Service><DataWindow>'
        "<UpperLeftX>0</UpperLeftX><UpperLeftY>0</UpperLeftY><LowerRightX>9</LowerRightX><LowerRightY>-9</LowerRightY>"
        "<SizeX>50</SizeX><SizeY>40</SizeY></DataWindow><BandsCount>1</BandsCount></GDAL_WMS>"
    )


def write_vrt_of_server(folder: Path, url: str) -> None:
    write_vrt(folder / "scene.tif", f"/vsicurl/{url}/a.tif", relative=0)


def write_wms_of_server(folder: Path, url: str) -> None:
    (folder / "scene.tif").write_text(write_wms(url))


def write_vrt_of_wms(folder: Path, url: str) -> None:
    (folder / "a.tif").write_text(write_wms(url))
    write_vrt(folder / "scene.tif", "a.tif")


def write_vrt_of_raw_values_that_are_wms(folder: Path, url: str) -> None:
    (folder / "a.bil").write_text(write_wms(url))
    (folder / "a.hdr").write_text("ENVI\nsamples = 5\nlines = 5\nbands = 1\ndata type = 1\ninterleave = bil\n")
    write_vrt(folder / "scene.tif", "a.bil")


def write_overviews(folder: Path, url: str) -> None:
    write_raster(folder / "scene.tif", make_reflectance())
    write_vrt(folder / "scene.tif.ovr", f"/vsicurl/{url}/a.tif", relative=0)


def write_mask(folder: Path, url: str) -> None:
    write_raster(folder / "scene.tif", make_reflectance())
    (folder / "scene.tif.msk").write_text(write_wms(url))


def write_metadata(folder: Path, url: str) -> None:
    write_raster(folder / "scene.tif", make_reflectance())
    (folder / "scene.tif.aux.xml").write_text(
        f'<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">/vsicurl/{url}/a.tif</MDI></Metadata>'
        "</PAMDataset>"
    )


@pytest.mark.parametrize(
    "write",
    [
        *(write_vrt_of_server, write_wms_of_server, write_vrt_of_wms, write_vrt_of_raw_values_that_are_wms),
        *(write_overviews, write_mask, write_metadata),
    ],
)
def test_a_file_that_names_a_server_does_not_reach_it(
    tmp_path: Path, server: CountingServer, write: Callable[[Path, str], None]
) -> None:
    write(tmp_path, server.url)
    refuse(tmp_path / "scene.tif")
    assert server.paths == []


def test_an_address_that_was_typed_is_read_without_files_beside_it(tmp_path: Path, server: CountingServer) -> None:
    write_bands(tmp_path, "B02")
    write_vrt(tmp_path / "stack.vrt", "/etc/passwd", relative=0)
    server.folder = tmp_path
    with open_dataset(f"/vsicurl/{server.url}/B02.tif") as raster:
        np.testing.assert_array_equal(raster.read(), make_reflectance(channels=1))
        raster.read_masks(1)
    assert {path.split("?")[0] for path in server.paths} == {"/B02.tif"}
    with pytest.raises(RasterioIOError):
        open_dataset(f"/vsicurl/{server.url}/stack.vrt")


def test_overviews_and_masks_that_are_plain_rasters_are_read(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", make_reflectance())
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as raster:
        mask = np.ones(raster.shape, np.bool_)
        mask[0] = False
        raster.write_mask(mask)
    assert (tmp_path / "a.tif.msk").is_file()
    with open_raster(path) as raster:
        assert (raster.read_masks(1) == 0).sum() == 50


def test_other_formats_are_refused_with_the_formats_that_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"CDF\x01" + bytes(100))
    assert "known format (GeoTIFF, JPEG 2000, PNG" in refuse(tmp_path / "a.tif")
    shutil.copy(tmp_path / "a.tif", tmp_path / "<VRTDataset>.tif")
    assert "known format" in refuse(tmp_path / "<VRTDataset>.tif")
