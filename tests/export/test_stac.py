"""Tests of the STAC item, validated without a network."""

from __future__ import annotations

import re
from pathlib import Path

import pystac
from jsonschema import Draft7Validator
from pystac.validation.local_validator import get_local_schema_cache
from referencing import Registry, Resource
from stac_model.schema import MLModelExtension, MLModelProperties

from fireseg.export.metadata import describe_model
from fireseg.export.stac import build_stac_item
from tests.export.builders import load, write_run


def make_item(tmp_path: Path, *, licence: str | None = None) -> dict:
    trained = load(write_run(tmp_path / "1_arch=unet,seed=0"))
    report = {
        "format": "openvino",
        "files": [{"name": name, "bytes": 10, "sha256": "ab" * 32} for name in ("model.xml", "model.bin")],
        "libraries": {"torch": "2.14.1", "openvino": "2026.4.0-20000-abc"},
        "model": describe_model(trained, output="calibrated", size=None),
    }
    return build_stac_item(trained, report, licence=licence)


def test_the_item_is_valid_by_the_schema_of_stac_and_the_model_of_the_extension(tmp_path: Path) -> None:
    item = make_item(tmp_path)
    schemas = get_local_schema_cache()
    registry = Registry().with_resources((uri, Resource.from_contents(schema)) for uri, schema in schemas.items())
    (schema,) = (schema for uri, schema in schemas.items() if uri.endswith("/item.json"))
    assert [error.message for error in Draft7Validator(schema, registry=registry).iter_errors(item)] == []
    fields = {name: value for name, value in item["properties"].items() if name.startswith("mlm:")}
    MLModelProperties.model_validate(fields)
    assert MLModelExtension.has_extension(pystac.Item.from_dict(item))


def test_the_item_keeps_the_rules_of_the_extension_that_its_python_model_does_not_check(tmp_path: Path) -> None:
    item = make_item(tmp_path)
    properties, assets = item["properties"], item["assets"]
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]", properties["mlm:name"])
    assert properties["mlm:framework_version"] == "2026.4.0"
    models = [asset for asset in assets.values() if "mlm:model" in asset["roles"]]
    assert [asset["mlm:artifact_type"] for asset in models] == ["openvino.save_model"]
    assert [band["name"] for band in models[0]["raster:bands"]] == properties["mlm:input"][0]["bands"]
    assert not any("mlm:artifact_type" in asset for asset in assets.values() if asset not in models)


def test_the_licence_is_in_the_item_and_other_stands_for_one_that_is_not_stated(tmp_path: Path) -> None:
    assert make_item(tmp_path)["properties"]["license"] == "other"
    assert make_item(tmp_path / "b", licence="CC-BY-4.0")["properties"]["license"] == "CC-BY-4.0"
