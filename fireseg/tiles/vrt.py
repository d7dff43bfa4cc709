"""Finds the files that a virtual raster (VRT) refers to, and refuses everything else that it could make GDAL open."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

from fireseg.errors import FiresegError

_MAX_BYTES = 64 * 2**20

_SOURCES = ("sourcefilename", "sourcedataset")
"""Elements whose text is a file, in lower case: GDAL does not distinguish the case of names."""

_DATASET = "vrtdataset srs geotransform gcplist gcp metadata mdi overviewlist blockxsize blockysize"

_BAND = (
    "vrtrasterband maskband overview description unittype offset scale nodatavalue hidenodatavalue colorinterp "
    "colortable entry categorynames category histograms histitem histmin histmax bucketcount includeoutofrange "
    "approximate histcounts"
)

_SOURCE = (
    "simplesource complexsource averagedsource kernelfilteredsource nodatafrommasksource sourceband sourceproperties "
    "srcrect dstrect nodata usemaskband scaleoffset scaleratio lut exponent srcmin srcmax dstmin dstmax clamp "
    "colortablecomponent kernel size coefs maskvaluethreshold remappedvalue"
)

_RAW = "imageoffset pixeloffset lineoffset byteorder"

_DERIVED = "pixelfunctiontype pixelfunctionarguments sourcetransfertype bufferradius skipnoncontributingsources"

_WARPED = (
    "gdalwarpoptions warpmemorylimit resamplealg workingdatatype option transformer approxtransformer maxerror "
    "basetransformer genimgprojtransformer srcgeotransform srcinvgeotransform dstgeotransform dstinvgeotransform "
    "reprojecttransformer reprojectiontransformer sourcesrs targetsrs options bandlist bandmapping srcnodatareal "
    "srcnodataimag dstnodatareal dstnodataimag initdest srcalphaband dstalphaband"
)

_ELEMENTS = frozenset(" ".join((_DATASET, _BAND, _SOURCE, _RAW, _DERIVED, _WARPED, *_SOURCES)).split())
"""Elements that are understood. Others, such as code of pixel functions, elevation models and processing steps, can
name files, addresses and programs."""

_CLASSES = (
    "vrtsourcedrasterband",
    "vrtrawrasterband",
    "vrtderivedrasterband",
    "vrtwarpeddataset",
    "vrtwarpedrasterband",
)

_SIZES = "rasterxsize rasterysize datatype band blockxsize blockysize xoff yoff xsize ysize"

_OTHERS = (
    "subclass dataaxistosrsaxismapping coordinateepoch relativetovrt shared resampling domain key name format "
    "c1 c2 c3 c4 src dst id info pixel line x y z projection normalized k"
)

_ATTRIBUTES = frozenset(f"{_SIZES} {_OTHERS}".split())
"""Attributes that are understood: GDAL also takes an attribute for an element of the same name."""

_SPECIAL_NAME = re.compile(r"\w{2,}:|/vsi|[<>\"\x00-\x1f\x7f]|.*://|.*[<>\"\x00-\x1f\x7f]", re.DOTALL)
"""Names that GDAL does not take for those of files: subdatasets, virtual file systems, addresses, and XML."""


class Source(NamedTuple):
    """A file that a virtual raster refers to.

    Attributes:
        path: File, symbolic links resolved.
        is_raw: True if its bytes are values of pixels, not those of a raster format.
    """

    path: Path
    is_raw: bool


def list_sources(path: Path) -> list[Source]:
    """Lists the files that a virtual raster refers to, without opening them.

    Args:
        path: Virtual raster, whatever its suffix.

    Returns:
        Files below the folder of the virtual raster, each once.

    Raises:
        FiresegError: If it is not valid XML, has an element that could make GDAL open anything else, or a source is no
            regular file below its folder; with all faults.
    """
    content = path.read_bytes() if path.stat().st_size <= _MAX_BYTES else b""
    document = _Document()
    # The encoding is given, because GDAL ignores the declared one.
    parser = expat.ParserCreate("utf-8")
    parser.StartElementHandler = document.start
    parser.EndElementHandler = document.end
    parser.CharacterDataHandler = document.add_text
    parser.CommentHandler = parser.StartCdataSectionHandler = parser.ProcessingInstructionHandler = document.interrupt
    parser.StartDoctypeDeclHandler = document.refuse_doctype
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise FiresegError(f"{path}: virtual raster that is not valid XML ({error}); write it again") from error
    faults, sources = document.faults, []
    folder = path.resolve().parent
    for name, is_relative, is_raw in document.sources:
        if reason := _find_fault(folder, name, is_relative):
            faults.append(f"source {name[:200]!r} {reason}")
        else:
            sources.append(Source((folder / name).resolve(), is_raw))
    if faults:
        cure = f"if you trust it, copy it with gdal_translate {path.name} copy.tif"
        where = "but a virtual raster may only refer to files below its own folder"
        raise FiresegError(*(f"{path}: {fault}, {where}; {cure}" for fault in dict.fromkeys(faults)))
    return list(dict.fromkeys(sources))


@dataclass
class _Document:
    """What the parser found so far.

    Attributes:
        faults: Elements that are not understood.
        sources: Name of each source; True if it is relative to the virtual raster; True if its bytes are values.
        open: Names and attributes of the open elements, in lower case.
        text: Text of the open source.
    """

    faults: list[str] = field(default_factory=list)
    sources: list[tuple[str, bool, bool]] = field(default_factory=list)
    open: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    text: str = ""

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        name, given = name.lower(), {key.lower(): value for key, value in attributes.items()}
        if self.open and self.open[-1][0] in _SOURCES:
            self.interrupt()
        if name not in _ELEMENTS or (not self.open and name != "vrtdataset"):
            self.faults.append(f"element <{name}> not understood")
        if unknown := sorted(given.keys() - _ATTRIBUTES):
            self.faults.append(f"attribute {unknown[0]} of <{name}> not understood")
        if (kind := given.get("subclass", "").lower()) and kind not in _CLASSES:
            self.faults.append(f"class {kind} not understood")
        self.open.append((name, given))
        self.text = ""

    def end(self, name: str) -> None:
        name, given = self.open.pop()
        if name in _SOURCES:
            is_raw = bool(self.open) and self.open[-1][1].get("subclass", "").lower() == "vrtrawrasterband"
            flag = given.get("relativetovrt", "1" if is_raw else "0")
            if flag not in ("0", "1"):
                self.faults.append(f"relativeToVRT {flag} not understood")
            self.sources.append((self.text, flag == "1", is_raw))

    def add_text(self, text: str) -> None:
        if self.open and self.open[-1][0] in _SOURCES:
            self.text += text

    def interrupt(self, *_: object) -> None:
        """Refuses parts inside the name of a source, which GDAL puts together in another way."""
        if self.open and self.open[-1][0] in _SOURCES:
            self.faults.append("name of a source not understood")

    def refuse_doctype(self, *_: object) -> None:
        self.faults.append("document type not understood")


def _find_fault(folder: Path, name: str, is_relative: bool) -> str:
    """Describes why a source is no file below a folder; empty if it is."""
    if not name or name != name.strip() or _SPECIAL_NAME.match(name):
        return "is no plain file"
    if not (is_relative or Path(name).is_absolute()):
        return 'is relative to the current folder (relativeToVRT="0")'
    source = (folder / name).resolve()
    if not source.is_relative_to(folder) or str(source).startswith("/vsi"):
        return f"lies outside of {folder}"
    return "" if source.is_file() else "does not exist, or is no regular file"
