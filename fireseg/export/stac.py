"""Describes an exported model as a STAC item with the machine-learning-model extension (MLM)."""

# The classes of stac_model take fields that their annotations do not name.
# pyright: reportCallIssue=false

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fireseg.export.options import Format
from fireseg.runs import TrainedModel
from fireseg.runtime.cache import INPUT_NAME

_RASTER = "https://stac-extensions.github.io/raster/v1.1.0/schema.json"
_FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"

_FRAMEWORKS: dict[Format, str] = {"onnx": "ONNX", "openvino": "OpenVINO", "torch": "PyTorch", "mlflow": "MLflow"}

_ARTIFACTS: dict[Format, tuple[str, str]] = {
    "onnx": ("onnx", "application/octet-stream; application=onnx"),
    "openvino": ("openvino.save_model", "application/xml"),
    "torch": ("torch.export.save", "application/octet-stream; application=pytorch"),
    "mlflow": ("mlflow.pyfunc.save_model", "application/yaml"),
}
"""Artifact type and media type of the file to open."""

_WEIGHTS = (".bin", ".pt")
"""Suffixes of files of weights beside the file to open."""

_FREE = -1
"""Size of a dimension that is not fixed."""


def write_stac_item(path: Path, trained: TrainedModel, report: Mapping[str, Any], *, licence: str | None) -> None:
    """Writes a STAC item that describes an exported model, with the files beside it as assets.

    Args:
        path: JSON file to write.
        trained: Model of the run.
        report: Content of parity.json.
        licence: Licence of the weights; `other` in the item if None.
    """
    item = build_stac_item(trained, report, licence=licence)
    path.write_text(json.dumps(item, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def build_stac_item(trained: TrainedModel, report: Mapping[str, Any], *, licence: str | None) -> dict[str, Any]:
    """Builds the STAC item as a dict.

    It has no geometry, because a run does not record the outlines of its training data.

    Args:
        trained: Model of the run.
        report: Content of parity.json.
        licence: Licence of the weights; `other` if None.
    """
    import pystac
    from stac_model.schema import MLModelExtension

    model = report["model"]
    item = pystac.Item(
        id=_make_identifier(f"{trained.name}-{trained.sha256[:12]}"),
        geometry=None,
        bbox=None,
        datetime=_get_training_end(trained),
        properties={
            "title": f"Burned-area segmentation, {model['architecture']} {model['encoder']}",
            "license": licence or "other",
            "description": "Segments burned areas in Sentinel-2 reflectance; exported with "
            f"{model['software']} in {model['precision']} from a checkpoint with the SHA-256 "
            f"{model['checkpoint_sha256']}.",
        },
        stac_extensions=[_RASTER, _FILE],
    )
    MLModelExtension.ext(item, add_if_missing=True).apply(_build_properties(trained, report))
    # Null means from scratch; stac_model leaves it out.
    item.properties.setdefault("mlm:pretrained_source", _get_initial_weights(trained))
    for number, file in enumerate(report["files"]):
        item.add_asset("model" if number == 0 else file["name"], _build_asset(file, report, is_first=number == 0))
    for name, file, title, media_type in (
        ("card", "MODEL_CARD.md", "Model card", "text/markdown"),
        ("parity", "parity.json", "Comparison with the run", "application/json"),
    ):
        item.add_asset(name, pystac.Asset(file, title=title, media_type=media_type, roles=["metadata"]))
    return item.to_dict(include_self_link=False)


def _build_properties(trained: TrainedModel, report: Mapping[str, Any]) -> Any:
    from stac_model.base import ModelHyperParameters
    from stac_model.input import InputStructure, ModelInput
    from stac_model.output import MLMClassification, ModelOutput, ModelResult
    from stac_model.schema import MLModelProperties

    model, to = report["model"], report["format"]
    size = model["static_px"] or _FREE
    batch, num_bands, num_classes = 1 if model["static_px"] else _FREE, len(model["bands"]), len(model["classes"])
    is_map = to == "mlflow"
    classes = [
        MLMClassification(value=value, name=name, description=label, color_hint=colour.removeprefix("#").upper())
        for value, (name, label, colour) in enumerate(
            zip(model["classes"], model["labels"], model["colours"], strict=True)
        )
    ]
    values = {
        "name": _make_identifier(trained.name),
        "architecture": f"{model['architecture']} {model['encoder']}",
        "tasks": {"semantic-segmentation"},
        "framework": _FRAMEWORKS[to],
        "framework_version": _format_version(report["libraries"][to]),
        "total_parameters": sum(parameter.numel() for parameter in trained.model.parameters()),
        "pretrained": _get_initial_weights(trained) is not None,
        "pretrained_source": _get_initial_weights(trained),
        "input": [
            ModelInput(
                name=INPUT_NAME,
                bands=model["bands"],
                input=InputStructure(
                    shape=[batch, num_bands, size, size],
                    dim_order=["batch", "bands", "height", "width"],
                    data_type="float32",
                ),
                description=model["input"],
            )
        ],
        "output": [
            ModelOutput(
                name="fire" if is_map else "logits" if model["output"] == "logits" else "probabilities",
                tasks={"semantic-segmentation"},
                bands=[],
                result=ModelResult(
                    shape=[batch, size, size] if is_map else [batch, num_classes, size, size],
                    dim_order=["batch", *([] if is_map else ["class"]), "height", "width"],
                    data_type="float32",
                ),
                classes=classes,
                description=f"{model['output']}; burned where that of fire, 1 minus that of class 0, is at least "
                f"{model['threshold']:.6g}",
            )
        ],
        "hyperparameters": ModelHyperParameters(
            threshold=model["threshold"],
            temperature=model["temperature"],
            epoch=model["epoch"],
            precision=model["precision"],
        ),
    }
    return MLModelProperties(**values)


def _build_asset(file: Mapping[str, Any], report: Mapping[str, Any], *, is_first: bool) -> Any:
    import pystac

    # Multihash of SHA-256: its code and its length in bytes before the digest.
    extra: dict[str, Any] = {"file:size": file["bytes"], "file:checksum": f"1220{file['sha256']}"}
    if not is_first:
        roles = ["mlm:weights", "data"] if file["name"].endswith(_WEIGHTS) else ["data"]
        return pystac.Asset(file["name"], roles=roles, extra_fields=extra)
    artifact, media_type = _ARTIFACTS[report["format"]]
    extra |= {
        "mlm:artifact_type": artifact,
        "raster:bands": [{"name": band, "data_type": "float32"} for band in report["model"]["bands"]],
    }
    roles = ["mlm:model", *(["mlm:weights"] if len(report["files"]) == 1 else []), "data"]
    return pystac.Asset(file["name"], title="Model", media_type=media_type, roles=roles, extra_fields=extra)


def _get_training_end(trained: TrainedModel) -> datetime:
    """Returns the end of the training if it is known, else the time of the checkpoint."""
    ended_ms = trained.provenance.get("tracked", {}).get("ended_ms")
    seconds = trained.checkpoint.stat().st_mtime if ended_ms is None else ended_ms / 1000
    return datetime.fromtimestamp(int(seconds), UTC)


def _get_initial_weights(trained: TrainedModel) -> str | None:
    """Returns the source of the initial weights; None for random ones."""
    source = trained.provenance.get("weights", {}).get("source") or str(
        trained.settings["model"].get("weights", "unknown")
    )
    return None if source.startswith("none") else source


def _make_identifier(name: str) -> str:
    """Returns a name of letters, digits, points and hyphens that starts and ends as the extension demands."""
    text = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")
    return text if re.match("[A-Za-z]..", text) else f"model-{text or 'run'}"


def _format_version(version: str) -> str:
    """Returns the first three numbers of a version, because the extension demands a semantic version."""
    numbers = re.findall(r"\d+", version)[:3]
    return ".".join([*numbers, "0", "0"][:3])
