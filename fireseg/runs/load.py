"""Loads a trained model from a run folder, a checkpoint file or MLflow."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor

from fireseg.config import make
from fireseg.config.schema import find_target_fault
from fireseg.console import format_command, format_count
from fireseg.engine.device import (
    DeviceName,
    PrecisionName,
    autocast,
    get_autocast_dtype,
    get_device,
    get_memory_format,
    out_of_memory_as,
    set_threads,
)
from fireseg.errors import FiresegError, SettingError, did_you_mean
from fireseg.files import (
    BEST_CHECKPOINT,
    CHECKPOINT_NAMES,
    check_regular_file,
    find_checkpoint,
    find_run_folder,
    hash_file,
    load_tensors,
)
from fireseg.model import FireSegmentationModel, drop_auxiliary_head
from fireseg.runs.calibration import Calibration, get_calibration
from fireseg.runs.folder import RunFolder
from fireseg.task import Task

FORMAT = 1
"""Newest checkpoint format that this version reads."""

_MLFLOW_URI = re.compile(r"(runs|models|mlflow-artifacts):/")

_CURE = f"use {BEST_CHECKPOINT} of a run of fireseg"

_MAX_DEPTH, _MAX_VALUES, _MAX_FAULTS = 16, 10_000, 8

_FILE_TYPES = {
    b"II*\0": "a raster",
    b"MM\0*": "a raster",
    b"II+\0": "a raster",
    b"\x89PNG": "a picture",
    b"{": "a JSON file",
}
"""File types by their first bytes, for messages."""


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A trained model with its task, bands, settings and calibration.

    Attributes:
        build_model: Builds the network in eval mode, without gradients, on `device`.
        task: Classes of the model.
        bands: Sentinel-2 bands of the channels, in order.
        settings: Settings of the run, as in config.json.
        device: Device of the model.
        checkpoint: File that the model was read from; inside the cache for an MLflow URI.
        sha256: SHA-256 of that file, 64 hexadecimal digits.
        epoch: Epoch after which the checkpoint was saved.
        fingerprint: Fingerprint of the training patches.
        folder: Run folder of the checkpoint; None for a file outside of a run or from MLflow.
        calibration: Threshold and temperature selected for this checkpoint; None if there are none.
        val_fire_iou: Fire IoU on the validation split, 0 to 1; None or NaN if it is not known.
        pixel_m: Pixel size of the training tiles in metres; None if unknown.
        level: Their processing level, `1C` or `2A`; None if unknown.
    """

    build_model: Callable[[], FireSegmentationModel]
    task: Task
    bands: tuple[str, ...]
    settings: dict[str, Any]
    device: torch.device
    checkpoint: Path
    sha256: str
    epoch: int
    fingerprint: str
    folder: RunFolder | None
    calibration: Calibration | None
    val_fire_iou: float | None = None
    pixel_m: float | None = None
    level: str | None = None

    @cached_property
    def model(self) -> FireSegmentationModel:
        """The network, which is built when it is first used."""
        return self.build_model()

    @property
    def name(self) -> str:
        """Name of the run folder, or of the checkpoint file if there is no run folder."""
        return (self.folder.path.resolve() if self.folder else self.checkpoint).name

    def describe(self) -> dict[str, Any]:
        """Returns origin, task and architecture as plain values, as the results of evaluation and prediction store."""
        settings = self.settings.get("model", {})
        return {
            "folder": str(self.folder.path.resolve()) if self.folder else None,
            "checkpoint": self.checkpoint.name,
            "sha256": self.sha256,
            "epoch": self.epoch,
            "fingerprint": self.fingerprint,
            "task": self.task.name,
            "class_names": list(self.task.class_names),
            "arch": settings.get("arch"),
            "encoder": settings.get("encoder"),
            "bands": list(self.bands),
        }

    @torch.inference_mode()
    def predict_logits(self, image: Tensor, *, precision: PrecisionName | None = None) -> Tensor:
        """Runs the model over a batch.

        Args:
            image: Reflectance, `(B, C, H, W)` float32, on any device.
            precision: As in `engine.device.get_autocast_dtype`; None for float32 on a CPU, whatever it supports, and
                the fastest elsewhere.

        Returns:
            Logits, `(B, K, H, W)`, on the device of the model.

        Raises:
            SettingError: If the batch does not fit in memory.
        """
        size, _, height, width = image.shape
        error = SettingError(
            f"--batch-size: {size} images of {height} x {width} pixels do not fit in the memory of {self.device}; "
            "use half as many, or --device cpu"
        )
        if precision is None:
            precision = "fp32" if self.device.type == "cpu" else "auto"
        with out_of_memory_as(error), autocast(self.device, get_autocast_dtype(self.device, precision)):
            return self.model(image.to(self.device).contiguous(memory_format=get_memory_format(self.device)))


def load_trained_model(
    path: Path | str, *, device: DeviceName = "auto", threads: int | None = None, build: bool = True
) -> TrainedModel:
    """Loads the model of a run, a checkpoint file or MLflow.

    Everything is read from the checkpoint, so the run may have been moved and the paths in its settings need not
    exist. A checkpoint is data: nothing in it is executed.

    Args:
        path: Run folder (its `best_model.pt`, else `final_model.pt`, else `last.pt`), checkpoint file, or MLflow
            URI: `runs:/<id>`, `runs:/<id>/checkpoints/best_model.pt`, `models:/name/3`, `models:/name@alias`,
            `mlflow-artifacts:/…`.
        device: `auto`, `cuda`, `mps` or `cpu`.
        threads: CPU threads of torch, for the whole process; None changes nothing.
        build: Build the network at once. Otherwise it is built, and its weights are checked, when it is first used:
            never if the model was converted for another engine before. That saves the import of the libraries of
            architectures, more than half of the start of a command.

    Raises:
        FiresegError: If the path does not exist, or is not a checkpoint of fireseg.
        SettingError: If the device is not available.

    Example:
        >>> trained = load_trained_model("outputs/del_unet_resnet34", device="cpu")  # doctest: +SKIP
    """
    if threads is not None:
        set_threads(threads)
    torch_device = get_device(device, "--device")
    folder = None
    if _MLFLOW_URI.match(str(path)):
        from fireseg.tracker import download_artifact

        file = download_artifact(str(path))
        calibrated = RunFolder(file.parent.parent)
    else:
        try:
            file = _find_checkpoint(Path(path).expanduser())
            run = find_run_folder(file)
        except OSError as error:
            raise FiresegError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error
        folder = calibrated = RunFolder(run) if run else None
    checkpoint = read_checkpoint(file)
    task = _make_task(checkpoint, file)
    sha256 = hash_file(file)
    trained = TrainedModel(
        build_model=lambda: _build_model(checkpoint, file).requires_grad_(False).eval().to(torch_device),
        task=task,
        bands=checkpoint.bands,
        settings=checkpoint.config,
        device=torch_device,
        checkpoint=file,
        sha256=sha256,
        epoch=checkpoint.epoch,
        fingerprint=checkpoint.fingerprint,
        folder=folder,
        calibration=get_calibration(calibrated, sha256) if calibrated else None,
        val_fire_iou=checkpoint.val_fire_iou,
        pixel_m=checkpoint.pixel_m,
        level=checkpoint.level,
    )
    if build:
        _ = trained.model
    return trained


def _find_checkpoint(path: Path) -> Path:
    if file := find_checkpoint(path):
        return file
    if path.is_dir():
        raise FiresegError(f"{path}: {_describe_folder(path)}")
    siblings = [sibling.name for sibling in path.parent.iterdir()] if path.parent.is_dir() else []
    raise FiresegError(
        f"{path}: no such run folder or checkpoint{did_you_mean(path.name, siblings)}; runs are in outputs/ and "
        "multirun/, and runs in MLflow are named runs:/… or models:/…"
    )


def _describe_folder(path: Path) -> str:
    if (path / "config.json").exists():
        continued = format_command("train", settings={"resume": path})
        return f"a run without a checkpoint; wait for its first epoch, or continue it: {continued}"
    if runs := sorted(run for run in path.iterdir() if run.is_dir() and not run.is_symlink() and find_checkpoint(run)):
        return f"a folder of {format_count(len(runs), 'run')}, but one run is expected; name one, such as {runs[-1]}"
    if (path / "train").is_dir() or (path / "val").is_dir():
        return "a folder of patches or tiles, but a run is expected; runs are in outputs/ and multirun/"
    return f"not a run folder: it contains none of {', '.join(CHECKPOINT_NAMES)}; runs are in outputs/ and multirun/"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The part of a checkpoint file that is needed to use its model.

    Attributes:
        format: Format number of the file.
        config: Settings of the run.
        class_names: One name per class.
        bands: One band per channel.
        fingerprint: Fingerprint of the training patches.
        epoch: Epoch after which the checkpoint was saved.
        model: Weights by name.
        mean: Running mean of the weights (EMA), if the training state has one.
        val_fire_iou: Fire IoU on the validation split, which the file names `val/fire_iou`.
        pixel_m: Pixel size of the training tiles in metres; None if unknown, as in files of earlier versions.
        level: Their processing level.
    """

    format: Annotated[int, Field(ge=1, le=FORMAT)]
    config: dict[str, Any]
    class_names: tuple[str, ...]
    bands: tuple[str, ...]
    fingerprint: str
    epoch: Annotated[int, Field(ge=0)]
    model: dict[str, Any]
    mean: dict[str, Any] | None = None
    val_fire_iou: Annotated[float | None, Field(alias="val/fire_iou")] = None
    pixel_m: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    level: str | None = None

    @property
    def state(self) -> dict[str, Any]:
        """Weights that were validated: the running mean if there is one, else those of the model."""
        if self.mean is None:
            return self.model
        return {key.removeprefix("module."): value for key, value in self.mean.items() if key.startswith("module.")}


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint file without executing anything in it.

    Args:
        path: An existing file.

    Raises:
        FiresegError: If it is another kind of file, is truncated, or lacks what is needed to use the model.
    """
    check_regular_file(path)
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise FiresegError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error
    # Every checkpoint of fireseg is a zip; other files need not be passed to torch at all.
    if not start.startswith(b"PK") and path.suffix != ".safetensors":
        types = [name for prefix, name in _FILE_TYPES.items() if start.startswith(prefix)]
        kind = "empty" if not start else types[0] if types else "not a checkpoint of fireseg"
        raise FiresegError(
            f"{path}: {kind}, but a run folder or a checkpoint is expected; use a run folder, or its {BEST_CHECKPOINT}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch's remarks on archives that fireseg never writes
        content = load_tensors(path)
    if "config" not in content or "model" not in content:
        raise FiresegError(
            f"{path}: weights without settings, but a checkpoint of fireseg has both; use {BEST_CHECKPOINT} of a run"
        )
    try:
        return TypeAdapter(Checkpoint).validate_python(content)
    except ValidationError as error:
        faults = (f"{path}: {'.'.join(map(str, one['loc']))}: {one['msg']}; {_CURE}" for one in error.errors())
        raise FiresegError(*faults) from error


def _make_task(checkpoint: Checkpoint, path: Path) -> Task:
    with _faults_of(path):
        if faults := list(islice(_check_settings(checkpoint.config), _MAX_FAULTS)):
            raise FiresegError(*faults)
        task = make(checkpoint.config["task"], Task)
        if faults := list(_compare("class_names", checkpoint.class_names, task.class_names)):
            raise FiresegError(*faults)
        return task


def _build_model(checkpoint: Checkpoint, path: Path) -> FireSegmentationModel:
    with _faults_of(path):
        # The initial weights of the run are replaced below and need not exist any more.
        # An auxiliary task is of no use for predictions, and only a state of the training has its head.
        model = make({**checkpoint.config["model"], "weights": "none", "auxiliary": None}, FireSegmentationModel)
        faults = list(_compare("bands", checkpoint.bands, model.bands))
        if names := [key for key, value in checkpoint.state.items() if not isinstance(value, Tensor)]:
            faults.append(f"model.{names[0]}: not a tensor")
        if faults:
            raise FiresegError(*faults)
    try:
        model.load_state_dict(drop_auxiliary_head(checkpoint.state, checkpoint.config["model"].get("num_classes", 2)))
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise FiresegError(f"{path}: weights that do not match its settings ({reason}); {_CURE}") from error
    return model


@contextmanager
def _faults_of(path: Path) -> Iterator[None]:
    try:
        yield
    except FiresegError as error:
        raise FiresegError(*(f"{path}: {fault}; {_CURE}" for fault in error.faults)) from error


def _compare(name: str, saved: Sequence[str], built: Sequence[str]) -> Iterator[str]:
    if tuple(saved) != tuple(built):
        yield f"{name}: {' '.join(saved)}, but {' '.join(built)} in its settings"


def _check_settings(settings: dict[str, Any]) -> Iterator[str]:
    """Yields the faults of settings from an untrusted checkpoint.

    Only `task` and `model` are built, so only their `_target_`s are checked: runs of other versions may name other
    datasets or trackers. All settings must be plain values of bounded number and depth.
    """
    built = {key: settings.get(key) for key in ("task", "model")}
    yield from (f"{key}: missing from the settings" for key, node in built.items() if not isinstance(node, dict))
    for key, node in built.items():
        if isinstance(node, dict) and (fault := find_target_fault(node, key)):
            yield fault
            return
    nodes: list[tuple[str, Any, int]] = [("", settings, 0)]
    for _ in range(_MAX_VALUES):
        if not nodes:
            return
        name, value, depth = nodes.pop()
        if isinstance(value, dict | list | tuple) and depth < _MAX_DEPTH:
            if isinstance(value, dict) and "_target_" in value and name.startswith(("task.", "model.")):
                yield f"{name}: builds something, but a plain value is expected"
                continue
            items = value.items() if isinstance(value, dict) else enumerate(value)
            nodes += [(f"{name}.{key}".lstrip("."), child, depth + 1) for key, child in items]
        elif not isinstance(value, str | int | float | None) or (isinstance(value, int) and value.bit_length() > 64):
            yield f"{name}: a {type(value).__name__}, but settings are plain values"
    yield f"settings: more than {_MAX_VALUES} values"
