"""Styles of maps in QGIS, as their files say them; they were opened once in QGIS 3.22."""

from __future__ import annotations

from xml.etree import ElementTree

from fireseg.geo.qgis import make_polygon_style, make_raster_style


def read_options(layer: ElementTree.Element) -> dict[str, str]:
    return {option.attrib["name"]: option.attrib["value"] for option in layer.iterfind("Option/Option")}


def test_a_class_raster_has_its_classes_alone_and_the_first_is_transparent() -> None:
    style = ElementTree.fromstring(make_raster_style(["unburned", '<high> & "grün"'], ["#d9d9d9", "#c1272d"]))
    assert [renderer.attrib["type"] for renderer in style.iterfind("pipe/rasterrenderer")] == ["paletted"]
    assert [entry.attrib for entry in style.iterfind(".//colorPalette/*")] == [
        {"value": "0", "color": "#d9d9d9", "alpha": "0", "label": "unburned"},
        {"value": "1", "color": "#c1272d", "alpha": "255", "label": '<high> & "grün"'},
    ]


def test_polygons_have_an_outline_no_fill_and_their_hectares_as_label() -> None:
    style = ElementTree.fromstring(make_polygon_style())
    layers = list(style.iterfind("renderer-v2/symbols/symbol/layer"))
    assert [layer.attrib["class"] for layer in layers] == ["SimpleLine", "SimpleLine"]
    assert [read_options(layer)["line_color"] for layer in layers] == ["255,255,255,255", "193,39,45,255"]
    assert style.attrib["labelsEnabled"] == "1"
    (text,) = style.iterfind("labeling/settings/text-style")
    assert text.attrib["isExpression"] == "1"
    assert text.attrib["fieldName"] == """format_number("area_ha", if("area_ha" < 100, 1, 0)) || ' ha'"""
