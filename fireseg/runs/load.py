"""A trained model, wherever it is kept."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor

from fireseg.config import make
from fireseg.config.schema import find_target_fault
from fireseg.engine.checkpoint import BEST, FINAL, LAST
from fireseg.engine.device import DeviceName, get_device, set_threads
from fireseg.errors import FiresegError, did_you_mean
from fireseg.files import load_tensors
from fireseg.model import FireSegmentationModel
from fireseg.runs.calibration import Calibration, get_calibration
from fireseg.runs.folder import RunFolder
from fireseg.task import Task

CHECKPOINT_NAMES = (BEST, FINAL, LAST)
"""What of a run folder's checkpoints is taken, the first that is there."""


def find_checkpoint(path: Path) -> Path:
    """The file that a path names: itself, or the best checkpoint of a run folder.

    Args:
        path: A run folder, its `checkpoints`, or a file.

    Raises:
        FiresegError: If there is no such path, or it is something else; says what it is and what would be right.
    """
    if path.is_dir():
        for name in CHECKPOINT_NAMES:
            if (found := _checkpoints_of(path) / name).is_file():
                return found
        raise FiresegError(f"{path}: {_describe_folder(path)}")
    if not path.is_file():
        siblings = [beside.name for beside in path.parent.iterdir()] if path.parent.is_dir() else []
        near = did_you_mean(path.name, siblings)
        raise FiresegError(
            f"{path}: no such run folder or checkpoint{near}; outputs/ and multirun/ hold the runs, "
            "and what MLflow keeps is named runs:/… or models:/…"
        )
    return path


def find_run(checkpoint: Path) -> RunFolder | None:
    """The run folder around a checkpoint, unless the file lies on its own."""
    folder = RunFolder(checkpoint.parent.parent)
    return folder if checkpoint.parent.name == "checkpoints" and folder.config.exists() else None


def _checkpoints_of(path: Path) -> Path:
    return path if path.name == "checkpoints" else path / "checkpoints"


def _describe_folder(path: Path) -> str:
    if (path / "config.json").exists():
        return f"a run without any checkpoint; wait for its first epoch, or go on with resume={path}"
    runs = [
        run.parent for run in path.glob("*/checkpoints") if any((run / name).is_file() for name in CHECKPOINT_NAMES)
    ]
    if runs:
        return f"a folder of {len(runs)} runs, but one is wanted; name it, as {max(runs)}"
    if (path / "train").is_dir() or (path / "val").is_dir():
        return "a folder of patches or tiles, but a run is wanted; outputs/ and multirun/ hold the runs"
    return f"no run folder: it holds none of {', '.join(CHECKPOINT_NAMES)}; outputs/ and multirun/ hold the runs"


FORMAT = 1
"""The newest format of checkpoints that is understood."""

_CURE = f"take {BEST} of a run of this suite"

_DEEPEST, _MOST_VALUES, _MOST_FAULTS = 16, 10_000, 8

_BEGINNINGS = {
    b"II*\0": "a raster",
    b"MM\0*": "a raster",
    b"II+\0": "a raster",
    b"\x89PNG": "a picture",
    b"{": "a JSON file",
}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What of a checkpoint is needed to use its model.

    Attributes:
        format: Of the file.
        config: The settings of its run.
        class_names: One a class.
        bands: One a channel.
        fingerprint: Of the patches that it was trained on.
        epoch: After which it was kept.
        model: Its weights by name.
        mean: The running mean of the weights, in the state of a training that has one.
    """

    format: Annotated[int, Field(ge=1, le=FORMAT)]
    config: dict[str, Any]
    class_names: tuple[str, ...]
    bands: tuple[str, ...]
    fingerprint: str
    epoch: Annotated[int, Field(ge=0)]
    model: dict[str, Any]
    mean: dict[str, Any] | None = None

    @property
    def state(self) -> dict[str, Any]:
        """The weights that were validated: the running mean where the state of a training has one."""
        if self.mean is None:
            return self.model
        return {key.removeprefix("module."): value for key, value in self.mean.items() if key.startswith("module.")}


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint of ours; whatever else a file is, nothing in it runs.

    Args:
        path: An existing file.

    Raises:
        FiresegError: If it is something else, is cut short, or lacks what it takes to use the model.
    """
    with path.open("rb") as file:
        start = file.read(4)
    # Everything that the suite wrote is a zip; what is not need not be handed to torch at all.
    if not start.startswith(b"PK") and path.suffix != ".safetensors":
        kinds = [kind for beginning, kind in _BEGINNINGS.items() if start.startswith(beginning)]
        what = "empty" if not start else kinds[0] if kinds else "no checkpoint of fireseg"
        raise FiresegError(f"{path}: {what}, but a run folder is wanted, or a checkpoint in it, as {BEST}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch's remarks on files that the suite never writes
        content = load_tensors(path)
    if "config" not in content or "model" not in content:
        raise FiresegError(
            f"{path}: weights that nobody described, but a checkpoint of fireseg holds its settings, too; "
            f"take {BEST} of a run"
        )
    try:
        return TypeAdapter(Checkpoint).validate_python(content)
    except ValidationError as error:
        faults = (f"{path}: {'.'.join(map(str, one['loc']))}: {one['msg']}; {_CURE}" for one in error.errors())
        raise FiresegError(*faults) from error


def build_model(kept: Checkpoint, path: Path) -> tuple[Task, FireSegmentationModel]:
    """The model of a checkpoint with its weights, and what its classes mean.

    Args:
        kept: What the checkpoint holds.
        path: Where it was read from, for messages.

    Raises:
        FiresegError: If its settings are not those of a run of ours, or its weights are not those of its settings.
    """
    try:
        if faults := list(islice(_check_settings(kept.config), _MOST_FAULTS)):
            raise FiresegError(*faults)
        task = make(kept.config["task"], Task)
        # What the run began with is overwritten by what it learnt, and need not be there any more.
        model = make({**kept.config["model"], "weights": "none"}, FireSegmentationModel)
        if faults := list(_check_together(kept, task, model)):
            raise FiresegError(*faults)
    except FiresegError as error:
        raise FiresegError(*(f"{path}: {fault}; {_CURE}" for fault in error.faults)) from error
    try:
        model.load_state_dict(kept.state)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise FiresegError(f"{path}: not the weights of its own settings ({reason}); {_CURE}") from error
    return task, model


def _check_settings(settings: dict[str, Any]) -> Iterator[str]:
    """Faults of settings that come from who knows where: a checkpoint may be made up.

    Nothing but `task` and `model` is built, and these of plain values alone; but a run whose other settings
    name what conf/ does not offer was not made by this suite.
    """
    yield from (
        f"{key}: no settings of its own" for key in ("task", "model") if not isinstance(settings.get(key), dict)
    )
    places: list[tuple[str, Any, int]] = [("", settings, 0)]
    for _ in range(_MOST_VALUES):
        if not places:
            return
        place, value, depth = places.pop()
        if isinstance(value, dict | list | tuple) and depth < _DEEPEST:
            if isinstance(value, dict) and "_target_" in value and (fault := _find_target_fault(value, place)):
                yield fault
                continue
            items = value.items() if isinstance(value, dict) else enumerate(value)
            places += [(f"{place}.{key}".lstrip("."), child, depth + 1) for key, child in items]
        elif not isinstance(value, str | int | float | None) or (isinstance(value, int) and value.bit_length() > 64):
            yield f"{place}: a {type(value).__name__}, but settings are plain values"
    yield "settings: far more values than any run has"


def _find_target_fault(node: dict[str, Any], place: str) -> str | None:
    if place.startswith(("task.", "model.")):
        return f"{place}: builds something, but a plain value is wanted"
    return find_target_fault(node, place)


def _check_together(kept: Checkpoint, task: Task, model: FireSegmentationModel) -> Iterator[str]:
    pairs = [("class_names", kept.class_names, task.class_names), ("bands", kept.bands, model.bands)]
    for name, said, built in pairs:
        if said != built:
            yield f"{name}: {' '.join(said)}, but {' '.join(built)} in its settings"
    if strange := [key for key, value in kept.state.items() if not isinstance(value, Tensor)]:
        yield f"model.{strange[0]}: no tensor"


_MLFLOW = re.compile(r"(runs|models|mlflow-artifacts):/")


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A trained model with what one must know of it.

    Attributes:
        model: In eval mode, without gradients, on `device`.
        task: What its classes mean.
        bands: The Sentinel-2 bands of its channels, in order.
        settings: The settings of its run, as in config.json.
        device: Where it computes.
        checkpoint: The file that it was read from; inside the cache where that was an MLflow URI.
        sha256: Of that file, 64 hexadecimal digits.
        epoch: After which epoch it was kept.
        fingerprint: Of the patches that it was trained on.
        folder: The run folder that holds the checkpoint; None for a file on its own or from MLflow.
        calibration: What was chosen for this very checkpoint; None where nothing was.
    """

    model: FireSegmentationModel
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


def load_trained_model(path: Path | str, *, device: DeviceName = "auto", threads: int | None = None) -> TrainedModel:
    """Opens a run, a checkpoint, or a model that MLflow keeps.

    Everything comes from the checkpoint: it does not matter where a run has been moved, or what lies at the paths
    in its settings. A checkpoint is data, not code: nothing in it can run.

    Args:
        path: A run folder (its `best_model.pt`, else `final_model.pt`, else `last.pt`), a checkpoint file, or an
            address of MLflow: `runs:/<id>`, `runs:/<id>/checkpoints/best_model.pt`, `models:/name/3`,
            `models:/name@alias`, `mlflow-artifacts:/…`.
        device: `auto`, `cuda`, `mps` or `cpu`.
        threads: CPU threads for torch, for the whole process; None leaves them as they are.

    Raises:
        FiresegError: If there is no such thing, or it is no checkpoint of fireseg.
        SettingError: If the machine has no such device.

    Example:
        >>> trained = open_trained("outputs/del_unet_resnet34", device="cpu")  # doctest: +SKIP
    """
    if threads is not None:
        set_threads(threads)
    place = get_device(device)
    folder, beside = None, None
    if _MLFLOW.match(str(path)):
        from fireseg.tracker import download_artifact

        checkpoint = download_artifact(str(path))
        beside = RunFolder(checkpoint.parent.parent)
    else:
        checkpoint = find_checkpoint(Path(path).expanduser())
        folder = beside = find_run(checkpoint)
    kept = read_checkpoint(checkpoint)
    task, model = build_model(kept, checkpoint)
    with checkpoint.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return TrainedModel(
        model=model.requires_grad_(False).eval().to(place),
        task=task,
        bands=model.bands,
        settings=kept.config,
        device=place,
        checkpoint=checkpoint,
        sha256=sha256,
        epoch=kept.epoch,
        fingerprint=kept.fingerprint,
        folder=folder,
        calibration=get_calibration(beside, sha256) if beside else None,
    )
