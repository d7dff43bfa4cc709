"""Exports a model: writes its files to a hidden folder, compares them with the run, and moves the folder in place."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata as packages
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fireseg.engine.device import set_threads
from fireseg.errors import FiresegError, SettingError
from fireseg.export.formats import MODEL_FILES, open_model, write_model
from fireseg.export.metadata import describe_for_deepness, describe_model
from fireseg.export.model_card import write_model_card
from fireseg.export.options import ExportOptions, Format
from fireseg.export.parity import MAX_DIFFERENCE, MAX_DIFFERENCE_MLFLOW, collect_images, compare_outputs
from fireseg.export.stac import write_stac_item
from fireseg.files import convert_disk_errors, hash_file
from fireseg.runs import TrainedModel, load_trained_model
from fireseg.runs.sync import describe_checkpoint
from fireseg.runtime.int8 import MAX_IOU_DROP, Int8Comparison, format_comparison, load_int8
from fireseg.tracker.mlflow_model import write_mlflow_model

log = logging.getLogger("fireseg")

PARITY, CARD, ITEM = "parity.json", "MODEL_CARD.md", "model.stac.json"

_PACKAGES: dict[Format, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "torch": (),
    "mlflow": ("mlflow",),
}
"""Packages that write and check a format, besides `stac_model`."""


def export_model(options: ExportOptions) -> Path:
    """Exports the model of a run and returns the folder.

    Args:
        options: Options of the command.

    Raises:
        FiresegError: If the run cannot be read, a package is missing, the folder exists, or the exported model differs
            from the run; then nothing is written.
    """
    _check_extra(options.to)
    set_threads(None)
    trained = load_trained_model(options.run, device="cpu")
    _check_ensemble(trained, options)
    if trained.is_scene_relative and options.to != "mlflow":
        raise SettingError(
            f"--to {options.to}: the model takes reflectance relative to the whole scene (data.normalisation=scene), "
            "which such a file cannot compute; use --to mlflow, or map scenes with fireseg predict"
        )
    out = options.out or _get_default_folder(trained, options)
    _check_folder(out, overwrite=options.overwrite)
    metadata = describe_model(trained, output=options.probabilities, size=options.static, precision=options.precision)
    if options.to == "mlflow":
        whole = "; each image a whole scene, relative to which the model sees it" if trained.is_scene_relative else ""
        metadata |= {"input": f"surface reflectance, 0 to 1, (batch, bands, height, width) float32 of any size{whole}"}
        metadata |= {"output": "classes and calibrated fire probabilities, (batch, height, width)"}
    temperature = {"calibrated": metadata["temperature"], "raw": 1.0, "none": None}[options.probabilities]
    int8, effect = _load_int8(trained, options.data) if options.precision == "int8" else (None, None)
    images = collect_images(trained, options.data, size=options.static)
    stored = {**metadata, **_describe_for_deepness(metadata, options)}
    with _staged_folder(out) as folder:
        if options.to == "mlflow":
            write_mlflow_model(folder / "model", describe_checkpoint(trained.checkpoint))
        else:
            size = options.static
            write_model(
                trained.model, folder, to=options.to, temperature=temperature, size=size, metadata=stored, int8=int8
            )
        parity = compare_outputs(
            trained,
            open_model(folder, options.to),
            images,
            temperature=temperature,
            threshold=metadata["threshold"],
            is_static=options.static is not None,
            limit=None if effect else MAX_DIFFERENCE_MLFLOW if options.to == "mlflow" else MAX_DIFFERENCE,
        )
        if effect:
            parity["int8"] = {**effect.as_dict(), "max_iou_drop": MAX_IOU_DROP}
        files = _list_files(folder, MODEL_FILES[options.to])
        report = {
            "format": options.to,
            "files": files,
            "parity": parity,
            "libraries": _get_versions(options.to),
            "model": metadata,
        }
        _write_json(folder / PARITY, report)
        write_model_card(folder / CARD, trained, report, licence=options.licence, data=options.data)
        write_stac_item(folder / ITEM, trained, report, licence=options.licence)
    for line in _describe_export(out, report):
        log.info("%s", line)
    return out


def _check_ensemble(trained: TrainedModel, options: ExportOptions) -> None:
    if not trained.members:
        return
    faults = []
    if options.to == "mlflow":
        faults.append("--to mlflow: holds the checkpoint of one run; use onnx, openvino or torch, or export one run")
    if options.precision == "int8":
        faults.append("--precision int8: not available for several runs as one model; use fp32, or export one run")
    if faults:
        raise SettingError(*faults)


def _load_int8(trained: TrainedModel, data: Path | None) -> tuple[Any, Int8Comparison]:
    int8, effect = load_int8(trained, data=data)
    if flags := effect.list_flags():
        raise FiresegError(f"{trained.checkpoint}: {flags[0]}; nothing was written")
    return int8, effect


def _list_files(folder: Path, first: str) -> list[dict[str, Any]]:
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {first}
    return [
        {"name": name, "bytes": (folder / name).stat().st_size, "sha256": hash_file(folder / name)}
        for name in (first, *sorted(names))
    ]


def _check_extra(to: Format) -> None:
    missing = [name for name in (*_PACKAGES[to], "stac_model") if not _is_installed(name)]
    if missing:
        raise FiresegError(f"export: {', '.join(missing)} not installed; install with pip install 'fireseg[export]'")


def _is_installed(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


def _get_default_folder(trained: TrainedModel, options: ExportOptions) -> Path:
    parent = trained.folder.path if trained.folder else Path()
    return parent / f"export_{options.to}{'_int8' if options.precision == 'int8' else ''}"


def _check_folder(out: Path, *, overwrite: bool) -> None:
    if not (out.exists() or out.is_symlink()):
        return
    if not out.is_dir() or (not (out / PARITY).is_file() and any(out.iterdir())):
        raise FiresegError(f"{out}: exists, but is no folder of this command; choose another folder with --out")
    if not overwrite and any(out.iterdir()):
        raise FiresegError(f"{out}: exists already; replace it with --overwrite, or choose another folder with --out")


def _describe_for_deepness(metadata: Mapping[str, Any], options: ExportOptions) -> dict[str, Any]:
    if options.to != "onnx" or options.static is None:
        return {}
    if options.probabilities == "none":
        log.warning("--probabilities none: the QGIS plugin Deepness expects probabilities")
    elif metadata["threshold"] < 0.5 and len(metadata["classes"]) == 2:
        log.warning(
            "threshold %.3g: the QGIS plugin Deepness takes the likeliest class, so it maps as with 0.5",
            metadata["threshold"],
        )
    return describe_for_deepness(metadata, size=options.static, scale=options.scale, offset=options.offset)


@contextmanager
def _staged_folder(out: Path) -> Iterator[Path]:
    """Yields an empty folder inside a hidden one beside the final one, and moves it in place at the end.

    After an error nothing is left; what a killed process leaves is removed by the next call.
    """
    target = Path(os.path.realpath(out))
    staging = target.with_name(f".{target.name}.staging")
    with convert_disk_errors(out):
        staging.mkdir(parents=True, exist_ok=True)
        lock = FileLock(staging / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise FiresegError(f"{staging}: another process is writing this export; wait for it or stop it") from error
        try:
            new, old = staging / "new", staging / "old"
            for folder in (new, old):
                shutil.rmtree(folder, ignore_errors=True)
            new.mkdir()
            yield new
            if target.exists():
                target.replace(old)
            new.replace(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            lock.release()


def _get_versions(to: Format) -> dict[str, str]:
    return {name: packages.version(name) for name in ("torch", *_PACKAGES[to])}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _describe_export(out: Path, report: Mapping[str, Any]) -> list[str]:
    parity, model = report["parity"], report["model"]
    first = report["files"][0]["name"]
    size_mb = sum(file["bytes"] for file in report["files"]) / 1e6
    return [
        f"{out / first}: {size_mb:.1f} MB, {model['output']}, {' '.join(model['bands'])}",
        f"  burned from a fire probability of {model['threshold']:.3g} ({model['threshold_origin']})",
        f"  differs from the run by at most {parity['max_difference']:.1e} in probability, on {parity['images']} "
        f"{parity['source']}; {100 * parity['changed_share']:.4f} % of the decisions differ",
        *([f"  {format_comparison(parity['int8'])}"] if "int8" in parity else []),
        f"  also {PARITY}, {CARD}, {ITEM}",
    ]
