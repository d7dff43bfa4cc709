"""Opens products as they are delivered, SAFE folders and archives and STAC items, as one raster of named bands."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote, urljoin, urlsplit
from xml.sax.saxutils import escape

import rasterio

from fireseg.errors import FiresegError
from fireseg.files import check_regular_file
from fireseg.geo.grid import GDAL_ERRORS
from fireseg.tiles.channels import SCL
from fireseg.tiles.metadata import (
    METADATA_XML,
    check_radiometry,
    find_offset,
    flatten_metadata,
    read_metadata,
    read_product_xml,
)
from fireseg.tiles.raster_file import is_address, open_dataset
from fireseg.tiles.stac import find_band_assets, read_scaling

Scene = Path | str
"""A raster, SAFE product or STAC item: a path, or a string that GDAL resolves (`https://…`, `/vsi…`)."""

_BAND_FILE = re.compile(r"_(?P<name>B\d\d|B8A|SCL)(?:_(?P<resolution>\d\d)m)?\.jp2", re.IGNORECASE)

_SIDECARS = (".jp2.aux.xml", ".jp2.ovr", ".jp2.msk", ".vrt")
"""Ends of files with which GDAL reads other files. Those in an archive cannot be checked."""

_TIMEOUT_S = 60

_BLOCK_PX = 1024
"""Block size of the virtual raster: that of the JPEG 2000 files, each of whose blocks is decoded once."""


class Product(NamedTuple):
    """The rasters of a product.

    Attributes:
        name: Name of the product.
        rasters: Address of the raster of each channel by its name: a band or `SCL`.
        metadata: Metadata of the product.
    """

    name: str
    rasters: Mapping[str, str]
    metadata: Mapping[str, Any]


def parse_scene(text: str | Path) -> Scene:
    """Returns a path, or the text itself if it is an address that GDAL resolves."""
    return text if isinstance(text, str) and is_address(text) else Path(text)


def get_scene_name(scene: Scene) -> str:
    """Returns the name of a scene, to which the names of its map are added.

    Example:
        >>> get_scene_name(Path("in/S2A_MSIL2A_1.SAFE.zip")), get_scene_name("https://host/a/scene.tif?key=1")
        ('S2A_MSIL2A_1', 'scene')
    """
    text = urlsplit(scene).path if isinstance(scene, str) and "://" in scene else str(scene)
    path = PurePosixPath(text)
    if path.name in ("", "..", *METADATA_XML):
        path = PurePosixPath(str(Path(text).resolve()))
        path = path.parent if path.name in METADATA_XML else path
    return re.sub(r"(\.SAFE)?(\.zip)?$", "", path.name, flags=re.IGNORECASE) if _is_safe_name(path) else path.stem


def find_product(scene: Scene) -> Product | None:
    """Finds the rasters of a SAFE product or a STAC item; None for an ordinary raster.

    A SAFE product is given as its folder, its `.zip`, or its `MTD_MSIL2A.xml`; of each band the finest resolution is
    used. A STAC item is a json file, or its address.

    Args:
        scene: Path or address.

    Raises:
        FiresegError: If a product is incomplete, or its metadata cannot be read.
    """
    if isinstance(scene, str):
        # The addresses of items in STAC interfaces have no suffix, those of rasters have.
        is_item = PurePosixPath(urlsplit(scene).path).suffix in ("", ".json", ".geojson")
        return _read_item(scene) if is_item and scene.startswith(("http://", "https://")) else None
    if scene.suffix.lower() == ".json" and scene.is_file():
        return _read_item(scene)
    if scene.name in METADATA_XML and scene.is_file():
        return _read_safe_folder(scene.absolute().parent)
    if scene.is_dir():
        return _read_safe_folder(scene)
    return _read_safe_archive(scene) if scene.suffix.lower() == ".zip" and scene.is_file() else None


def stack_product(product: Product) -> list[rasterio.MemoryFile]:
    """Makes virtual rasters (VRT) of the bands of a product; the last one stacks them on the grid of the finest.

    Coarser bands are interpolated linearly without the pixels of value 0, which are no measurement; a scene
    classification takes the nearest pixel. The values of a window do not depend on its position: GDAL reads the
    neighbouring pixels that the interpolation needs.

    Returns:
        Virtual rasters in memory, which have to be closed: one that gives each band its nodata value, then the stack.

    Raises:
        FiresegError: If a raster cannot be opened, or the rasters do not cover the same area.
    """
    faults: list[str] = []
    infos = {}
    for channel, address in product.rasters.items():
        try:
            with open_dataset(address, is_source=True) as raster:
                infos[channel] = _RasterInfo.of(raster)
        except FiresegError as error:
            faults += (f"{product.name}: {channel} at {fault}" for fault in error.faults)
        except (*GDAL_ERRORS, OSError) as error:
            reason = error.__cause__ or error
            faults.append(f"{product.name}: {channel} at {address} cannot be read ({reason}); download it again")
    if faults:
        raise FiresegError(*faults)
    finest = min(infos.values(), key=lambda info: abs(info.transform.a))
    faults = [
        f"{product.name}: {channel} at {product.rasters[channel]} covers {info.bounds} in "
        f"{info.crs or 'no reference system'}, but {finest.bounds} in {finest.crs or 'no reference system'} is "
        "expected; give a product whose bands cover the same area"
        for channel, info in infos.items()
        if info.crs != finest.crs or any(abs(a - b) > 1e-6 for a, b in zip(info.bounds, finest.bounds, strict=True))
    ]
    if faults:
        raise FiresegError(*faults)
    files, bands = [], []
    for number, (channel, address) in enumerate(product.rasters.items(), 1):
        info = infos[channel]
        # The source of an interpolated band has to have the nodata value itself.
        files.append(_make_vrt(info, [_format_band(1, channel, address, info, info)]))
        bands.append(_format_band(number, channel, files[-1].name, info, finest))
    return [*files, _make_vrt(finest, bands)]


def _make_vrt(grid: _RasterInfo, bands: Sequence[str]) -> rasterio.MemoryFile:
    transform = ",".join(repr(value) for value in grid.transform.to_gdal())
    xml = (
        f'<VRTDataset rasterXSize="{grid.width}" rasterYSize="{grid.height}"><SRS>{escape(grid.crs)}</SRS>'
        f"<GeoTransform>{transform}</GeoTransform>{''.join(bands)}</VRTDataset>"
    )
    return rasterio.MemoryFile(xml.encode(), ext=".vrt")


class _RasterInfo(NamedTuple):
    width: int
    height: int
    crs: str
    transform: rasterio.Affine
    bounds: tuple[float, ...]
    dtype: str
    nodata: float | None
    scale: float
    offset: float

    @classmethod
    def of(cls, raster: rasterio.DatasetReader) -> _RasterInfo:
        return cls(
            width=raster.width,
            height=raster.height,
            crs=raster.crs.to_wkt() if raster.crs else "",
            transform=raster.transform,
            bounds=tuple(raster.bounds),
            dtype=raster.dtypes[0],
            nodata=raster.nodata,
            scale=raster.scales[0],
            offset=raster.offsets[0],
        )


_GDAL_TYPES = {"uint8": "Byte", "uint16": "UInt16", "int16": "Int16", "float32": "Float32", "uint32": "UInt32"}


def _format_band(number: int, channel: str, address: str, info: _RasterInfo, grid: _RasterInfo) -> str:
    method = "nearest" if channel == SCL else "bilinear"
    parts = [
        f'<VRTRasterBand dataType="{_GDAL_TYPES.get(info.dtype, "Float64")}" band="{number}" '
        f'blockXSize="{_BLOCK_PX}" blockYSize="{_BLOCK_PX}"><Description>{channel}</Description>'
    ]
    if channel != SCL:
        parts.append(f"<NoDataValue>{0.0 if info.nodata is None else info.nodata!r}</NoDataValue>")
    if (info.scale, info.offset) != (1.0, 0.0):
        parts.append(f"<Offset>{info.offset!r}</Offset><Scale>{info.scale!r}</Scale>")
    parts.append(
        f'<SimpleSource resampling="{method}"><SourceFilename relativeToVRT="0">'
        f"{escape(address)}</SourceFilename><SourceBand>1</SourceBand>"
        f'<SrcRect xOff="0" yOff="0" xSize="{info.width}" ySize="{info.height}"/>'
        f'<DstRect xOff="0" yOff="0" xSize="{grid.width}" ySize="{grid.height}"/></SimpleSource></VRTRasterBand>'
    )
    return "".join(parts)


def _is_safe_name(path: PurePosixPath) -> bool:
    return path.suffix.lower() in (".safe", ".zip")


def _read_safe_folder(folder: Path) -> Product:
    files = {
        path.relative_to(folder).as_posix(): str(path.absolute()) for path in folder.glob("GRANULE/*/IMG_DATA/**/*.jp2")
    }
    xml = next((folder / name for name in METADATA_XML if (folder / name).is_file()), None)
    if xml is None:
        raise FiresegError(
            f"{folder}: a folder without MTD_MSIL2A.xml; give a raster, or the folder of a product, which ends in .SAFE"
        )
    return _make_safe_product(folder, files, read_product_xml(xml))


def _read_safe_archive(path: Path) -> Product:
    check_regular_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            xml = next(
                (name for name in names if PurePosixPath(name).name in METADATA_XML and name.count("/") <= 1), None
            )
            if xml is None:
                raise FiresegError(
                    f"{path}: no MTD_MSIL2A.xml in it; give the archive of a Sentinel-2 product, or unpack it"
                )
            metadata = read_product_xml(Path(xml), archive.read(xml))
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise FiresegError(f"{path}: cannot be read ({error}); download it again") from error
    if beside := [name for name in names if name.lower().endswith(_SIDECARS)]:
        raise FiresegError(f"{path}: {beside[0]} in it is no part of a product; unpack it and give the .SAFE folder")
    prefix = xml.removesuffix(PurePosixPath(xml).name)
    address = f"/vsizip/{path.absolute()}/"
    files = {
        name.removeprefix(prefix): address + name
        for name in names
        if name.startswith(f"{prefix}GRANULE/") and "/IMG_DATA/" in name
    }
    return _make_safe_product(path, files, metadata)


def _make_safe_product(path: Path, files: Mapping[str, str], metadata: Mapping[str, Any]) -> Product:
    """Selects the finest raster of each band, in the order of the names."""
    if len(granules := {name.split("/")[1] for name in files}) > 1:
        raise FiresegError(
            f"{path}: {len(granules)} granules ({', '.join(sorted(granules))}); unpack it and map each one"
        )
    finest: dict[str, tuple[int, str]] = {}
    for name, address in files.items():
        if match := _BAND_FILE.search(name):
            channel, resolution = match["name"].upper(), int(match["resolution"] or 0)
            finest[channel] = min(finest.get(channel, (1000, "")), (resolution, address))
    if not finest:
        raise FiresegError(f"{path}: no band in GRANULE/*/IMG_DATA; download the product again, with its rasters")
    return Product(get_scene_name(path), {channel: finest[channel][1] for channel in sorted(finest)}, metadata)


def _read_item(scene: Scene) -> Product:
    content = read_metadata(scene) if isinstance(scene, Path) else _download_json(scene)
    if content.get("type") != "Feature" or not isinstance(content.get("assets"), dict):
        raise FiresegError(f"{scene}: a json without assets, but a STAC item is expected; give a raster or an item")
    assets: dict[str, Any] = content["assets"]
    check_radiometry(flatten_metadata(content.get("properties", {})), scene)
    keys = find_band_assets(assets)
    rasters: dict[str, str] = {}
    faults: list[str] = []
    for channel, key in keys.items():
        try:
            rasters[channel] = _resolve_href(scene, str(assets[key].get("href", "")))
        except FiresegError as error:
            faults.append(f"{scene}: asset {key}: {error}")
    if not keys:
        faults.append(f"{scene}: no asset is a Sentinel-2 band; available: {', '.join(assets)}; give another item")
    if faults:
        raise FiresegError(*faults)
    metadata = {"id": content.get("id"), "properties": content.get("properties", {})}
    # Some catalogues give an offset with every band, also where it was removed or the baseline had none.
    if find_offset(flatten_metadata(metadata)) != 0:
        pairs = [_read_scaling(scene, key, assets[key]) for channel, key in keys.items() if channel not in (SCL, "B10")]
        metadata["raster:bands"] = [{"scale": scale, "offset": shift} for scale, shift in pairs]
    return Product(str(content.get("id") or get_scene_name(scene)), rasters, metadata)


def _read_scaling(scene: Scene, key: str, asset: Mapping[str, Any]) -> tuple[float | None, float | None]:
    try:
        return read_scaling(asset)
    except FiresegError as error:
        raise FiresegError(*(f"{scene}: asset {key}: {fault}" for fault in error.faults)) from error


def _resolve_href(item: Scene, href: str) -> str:
    """Resolves the address of an asset, which must be a plain file or a web address."""
    if isinstance(item, str) and not urlsplit(href).scheme:
        href = urljoin(item, href)
    scheme = urlsplit(href).scheme
    if scheme in ("http", "https"):
        return f"/vsicurl/{href}"
    if scheme == "s3":
        return f"/vsis3/{href.removeprefix('s3://')}"
    if scheme not in ("", "file"):
        raise FiresegError(f"{href}: addresses of this kind cannot be read; download the file")
    if isinstance(item, str):
        raise FiresegError(f"{href}: an item on a server must not name local files; download the item")
    if "\0" in href:
        raise FiresegError(f"{href!r}: no path of a file; correct the item")
    path = (item.absolute().parent / unquote(urlsplit(href).path if scheme else href)).resolve()
    if str(path).startswith("/vsi"):
        raise FiresegError(f"{href}: a file must not name GDAL's virtual file systems; correct the item")
    return str(path)


def _download_json(url: str) -> dict[str, Any]:
    if not url.startswith(("http://", "https://")):
        raise FiresegError(f"{url}: an item is read from a file or from http and https; download it")
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            content = json.loads(answer.read())
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise FiresegError(f"{url}: cannot be read ({error}); check the address and your access") from error
    return content if isinstance(content, dict) else {}
