"""Styles with which QGIS shows maps: class rasters in their colours, polygons as outlines with their hectares."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import quoteattr

_RASTER_STYLE = """<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.22.0" styleCategories="Symbology">
  <pipe>
    <rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1" nodataColor="">
      <colorPalette>
{entries}
      </colorPalette>
    </rasterrenderer>
  </pipe>
</qgis>
"""

_ENTRY = """        <paletteEntry value="{value}" color="{colour}" alpha="{alpha}" label={label}/>"""

# Two lines, because no single colour is visible on satellite images, on white maps and on the class raster.
_POLYGON_STYLE = """<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<qgis version="3.22.0" styleCategories="Symbology|Labeling" labelsEnabled="1">
  <renderer-v2 type="singleSymbol">
    <symbols>
      <symbol name="0" type="fill" alpha="1">
{lines}
      </symbol>
    </symbols>
  </renderer-v2>
  <labeling type="simple">
    <settings>
      <text-style fieldName={label} isExpression="1" fontSize="9" fontSizeUnit="Point" textColor="0,0,0,255">
        <text-buffer bufferDraw="1" bufferSize="0.8" bufferSizeUnits="MM" bufferColor="255,255,255,255"/>
      </text-style>
      <placement placement="0"/>
      <rendering drawLabels="1" obstacle="0"/>
    </settings>
  </labeling>
  <layerGeometryType>2</layerGeometryType>
</qgis>
"""

_LINE = """        <layer class="SimpleLine" enabled="1">
          <Option type="Map">
            <Option name="line_color" type="QString" value="{colour}"/>
            <Option name="line_width" type="QString" value="{width_mm}"/>
            <Option name="line_width_unit" type="QString" value="MM"/>
            <Option name="joinstyle" type="QString" value="round"/>
          </Option>
        </layer>"""

_LABEL = """format_number("area_ha", if("area_ha" < 100, 1, 0)) || ' ha'"""


def make_raster_style(labels: Sequence[str], colours: Sequence[str]) -> str:
    """Returns the style of a class raster: the classes alone, the first transparent.

    QGIS applies it to `name.tif` if it is stored as `name.qml` beside it. From the colour table of the raster QGIS
    makes one class for each of its 256 entries instead.

    Args:
        labels: One label per class, the first for unburned.
        colours: One `#rrggbb` per class.

    References:
        https://docs.qgis.org/3.22/en/docs/user_manual/appendices/qgis_file_formats.html
    """
    entries = [
        _ENTRY.format(value=value, colour=colour, alpha=255 if value else 0, label=quoteattr(label))
        for value, (label, colour) in enumerate(zip(labels, colours, strict=True))
    ]
    return _RASTER_STYLE.format(entries="\n".join(entries))


def make_polygon_style() -> str:
    """Returns the style of burned areas: a red outline on a white one, no fill, labelled with field `area_ha`."""
    lines = [
        _LINE.format(colour=colour, width_mm=width)
        for colour, width in (("255,255,255,255", 1.0), ("193,39,45,255", 0.5))
    ]
    return _POLYGON_STYLE.format(lines="\n".join(lines), label=quoteattr(_LABEL))
