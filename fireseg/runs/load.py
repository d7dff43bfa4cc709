"""Loads a trained model from a run folder, a checkpoint file or MLflow, or several as one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fireseg.config import make
from fireseg.config.schema import find_target_fault
from fireseg.console import format_command, format_count
from fireseg.errors import FiresegError, SettingError, did_you_mean
from fireseg.files import CHECKPOINT_NAMES, find_checkpoint, find_run_folder, hash_file
from fireseg.hardware import has_gpu_driver
from fireseg.runs.calibration import Calibration, get_calibration
from fireseg.runs.checkpoint import CURE, Checkpoint, SelfTraining, read_checkpoint
from fireseg.runs.ensemble import load_ensemble, split_runs
from fireseg.runs.folder import RunFolder
from fireseg.task import Task

if TYPE_CHECKING:
    from torch import Tensor

    from fireseg.engine.device import DeviceName, PrecisionName
    from fireseg.model import FireSegmentationModel
    from fireseg.model.ensemble import SegmentationModel

_MLFLOW_URI = re.compile(r"(runs|models|mlflow-artifacts):/")

_MAX_DEPTH, _MAX_VALUES, _MAX_FAULTS = 16, 10_000, 8

_MAX_MEMBERS_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A trained model with its task, bands, settings and calibration.

    Attributes:
        build_model: Builds the network in eval mode, without gradients, on `device`.
        task: Classes of the model.
        bands: Sentinel-2 bands of the channels, in order.
        settings: Settings of the run, as in config.json; of an ensemble those of its first member.
        device: Device of the model: `cuda`, `mps` or `cpu`.
        checkpoint: File that the model was read from; inside the cache for an MLflow URI; of an ensemble the first.
        sha256: SHA-256 of that file, 64 hexadecimal digits; of an ensemble, of those of its members.
        epoch: Epoch after which the checkpoint was saved; of an ensemble the last one.
        fingerprint: Fingerprint of the training patches; of an ensemble whose members were trained on different ones, a
            digest that no patches have.
        folder: Run folder of the checkpoint; None for a file outside of a run or from MLflow. That of an ensemble is
            one of its own, which need not exist.
        calibration: Threshold and temperature selected for this checkpoint; None if there are none.
        val_fire_iou: Fire IoU on the validation split, 0 to 1; None or NaN if it is not known.
        pixel_m: Pixel size of the training tiles in metres; None if unknown.
        level: Their processing level, `1C` or `2A`; None if unknown.
        self_training: Origin of the pseudo-labels; None if the run had none.
        members: Models of an ensemble, see `ensemble.load_ensemble`; empty for a single model.
    """

    build_model: Callable[[], SegmentationModel]
    task: Task
    bands: tuple[str, ...]
    settings: dict[str, Any]
    device: str
    checkpoint: Path
    sha256: str
    epoch: int
    fingerprint: str
    folder: RunFolder | None
    calibration: Calibration | None
    val_fire_iou: float | None = None
    pixel_m: float | None = None
    level: str | None = None
    self_training: SelfTraining | None = None
    members: tuple[TrainedModel, ...] = ()

    @cached_property
    def model(self) -> SegmentationModel:
        """The network, which is built when it is first used."""
        return self.build_model()

    @property
    def name(self) -> str:
        """Name of the run folder, or of the checkpoint file if there is no run folder."""
        if self.members and not self.folder:
            return f"ensemble of {', '.join(member.name for member in self.members)}"
        return (self.folder.path.resolve() if self.folder else self.checkpoint).name

    @property
    def is_scene_relative(self) -> bool:
        """True if the model takes reflectance relative to its scene, see `data.scene_normalisation`."""
        return self.settings.get("data", {}).get("normalisation") == "scene"

    @property
    def argument(self) -> str:
        """RUN of a command that loads the model."""
        if self.members:
            return ",".join(member.argument for member in self.members)
        return str(self.folder.path if self.folder else self.checkpoint)

    @property
    def provenance(self) -> dict[str, Any]:
        """Contents of run.json, of an ensemble that of its first member; empty without a run folder."""
        if self.members:
            return self.members[0].provenance
        return self.folder.read_provenance() if self.folder else {}

    def describe(self) -> dict[str, Any]:
        """Returns origin, task and architecture as plain values, as the results of evaluation and prediction store."""
        members = self.members or (self,)
        named = [member.settings.get("model", {}) for member in members]
        origins = [
            {"name": one.name, "checkpoint": one.checkpoint.name, "sha256": one.sha256, "epoch": one.epoch}
            for one in self.members
        ]
        return {
            "folder": str(self.folder.path.resolve()) if self.folder else None,
            "checkpoint": _join_different(member.checkpoint.name for member in members),
            "sha256": self.sha256,
            "epoch": self.epoch,
            "fingerprint": self.fingerprint,
            "task": self.task.name,
            "class_names": list(self.task.class_names),
            "arch": _join_different(one.get("arch") for one in named),
            "encoder": _join_different(one.get("encoder") for one in named),
            "bands": list(self.bands),
            **({"self_training": asdict(self.self_training)} if self.self_training else {}),
            **({"members": origins} if origins else {}),
        }

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
        import torch

        from fireseg.engine.device import autocast, get_autocast_dtype, get_memory_format, out_of_memory_as

        size, _, height, width = image.shape
        error = SettingError(
            f"--batch-size: {size} images of {height} x {width} pixels do not fit in the memory of {self.device}; "
            "use half as many, or --device cpu"
        )
        device = torch.device(self.device)
        if precision is None:
            precision = "fp32" if device.type == "cpu" else "auto"
        with torch.inference_mode(), out_of_memory_as(error), autocast(device, get_autocast_dtype(device, precision)):
            return self.model(image.to(device).contiguous(memory_format=get_memory_format(device)))


def load_trained_model(
    path: Path | str, *, device: DeviceName = "auto", threads: int | None = None, build: bool = True
) -> TrainedModel:
    """Loads the model of a run, a checkpoint file or MLflow, or several as one.

    Everything is read from the checkpoint, so the run may have been moved and the paths in its settings need not
    exist. A checkpoint is data: nothing in it is executed.

    Args:
        path: Run folder (its `best_model.pt`, else `final_model.pt`, else `last.pt`), checkpoint file, or MLflow
            URI: `runs:/<id>`, `runs:/<id>/checkpoints/best_model.pt`, `models:/name/3`, `models:/name@alias`,
            `mlflow-artifacts:/…`. Several, separated by commas, are one model: see `ensemble.load_ensemble`.
        device: `auto`, `cuda`, `mps` or `cpu`.
        threads: CPU threads of torch, for the whole process; None changes nothing.
        build: Build the network at once. Otherwise it is built, and its weights are read, when it is first used: never
            if the model was converted for another engine before. That saves the import of torch and the libraries of
            architectures, most of the start of a command.

    Raises:
        FiresegError: If the path does not exist, or is not a checkpoint of fireseg, or the runs do not fit together.
        SettingError: If the device is not available.

    Example:
        >>> trained = load_trained_model("outputs/del_unet_resnet34", device="cpu")  # doctest: +SKIP
    """
    if threads is not None:
        from fireseg.engine.device import set_threads

        set_threads(threads)
    load = partial(_load_run, device=_find_device(device), build=build)
    names = split_runs(str(path))
    trained = load_ensemble(names, load) if len(names) > 1 else load(path)
    if build:
        _ = trained.model
    return trained


def _load_run(path: Path | str, *, device: str, build: bool) -> TrainedModel:
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
    checkpoint = read_checkpoint(file, with_weights=build)
    task = _make_task(checkpoint, file)
    sha256 = hash_file(file)
    return TrainedModel(
        build_model=lambda: _build_model(checkpoint if build else _read_again(file, sha256), file, device),
        task=task,
        bands=checkpoint.bands,
        settings=checkpoint.config,
        device=device,
        checkpoint=file,
        sha256=sha256,
        epoch=checkpoint.epoch,
        fingerprint=checkpoint.fingerprint,
        folder=folder,
        calibration=get_calibration(calibrated, sha256) if calibrated else None,
        val_fire_iou=checkpoint.val_fire_iou,
        pixel_m=checkpoint.pixel_m,
        level=checkpoint.level,
        self_training=checkpoint.self_training,
    )


def _join_different(values: Iterable[str | None]) -> str | None:
    """Returns the values that differ, separated by commas; None if there are none."""
    return ", ".join(dict.fromkeys(value for value in values if value is not None)) or None


def _find_device(name: DeviceName) -> str:
    if name == "cpu" or (name == "auto" and not has_gpu_driver()):
        return "cpu"
    from fireseg.engine.device import get_device

    return get_device(name, "--device").type


def _read_again(path: Path, sha256: str) -> Checkpoint:
    checkpoint = read_checkpoint(path)
    if hash_file(path) != sha256:
        raise FiresegError(f"{path}: was replaced while it was used, as by training; start again")
    return checkpoint


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
        together = ",".join(map(str, runs)) if len(runs) <= _MAX_MEMBERS_NAMED else "RUN1,RUN2,…"
        several = f"use them as one model with {together}, or " if len(runs) > 1 else ""
        number = format_count(len(runs), "run")
        return f"a folder of {number}, but one run is expected; {several}name one, such as {runs[-1]}"
    if (path / "train").is_dir() or (path / "val").is_dir():
        return "a folder of patches or tiles, but a run is expected; runs are in outputs/ and multirun/"
    return f"not a run folder: it contains none of {', '.join(CHECKPOINT_NAMES)}; runs are in outputs/ and multirun/"


def _make_task(checkpoint: Checkpoint, path: Path) -> Task:
    with _faults_of(path):
        if faults := list(islice(_check_settings(checkpoint.config), _MAX_FAULTS)):
            raise FiresegError(*faults)
        task = make(checkpoint.config["task"], Task)
        if faults := list(_compare("class_names", checkpoint.class_names, task.class_names)):
            raise FiresegError(*faults)
        return task


def _build_model(checkpoint: Checkpoint, path: Path, device: str) -> FireSegmentationModel:
    from torch import Tensor

    from fireseg.model import FireSegmentationModel, drop_auxiliary_head

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
        raise FiresegError(f"{path}: weights that do not match its settings ({reason}); {CURE}") from error
    return model.requires_grad_(False).eval().to(device)


@contextmanager
def _faults_of(path: Path) -> Iterator[None]:
    try:
        yield
    except FiresegError as error:
        raise FiresegError(*(f"{path}: {fault}; {CURE}" for fault in error.faults)) from error


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
