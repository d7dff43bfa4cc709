"""Reads checkpoint files: settings, names and weights of a trained model, as data only."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from fireseg.console import format_count, format_name, format_share
from fireseg.errors import FiresegError
from fireseg.files import BEST_CHECKPOINT, check_regular_file, load_tensors

FORMAT = 1
"""Newest checkpoint format that this version reads."""

CURE = f"use {BEST_CHECKPOINT} of a run of fireseg"

_MAX_VALUES_BYTES = 2**24
"""Size of the plain values of a checkpoint above which torch reads it; those of fireseg have some 100 kB."""

_FILE_TYPES = {
    b"II*\0": "a raster",
    b"MM\0*": "a raster",
    b"II+\0": "a raster",
    b"\x89PNG": "a picture",
    b"{": "a JSON file",
}
"""File types by their first bytes, for messages."""


@dataclass(frozen=True, kw_only=True)
class SelfTraining:
    """The part of the training patches of a run that a teacher labelled.

    Attributes:
        teacher: Run, checkpoint file or MLflow URI of the teacher.
        teacher_sha256: SHA-256 of its checkpoint.
        confidence: Probability from which on its class was the label of a pixel.
        patches: Number of patches that it labelled.
        left_out: Number of unlabelled patches without any label.
        pixels: Number of labelled pixels; where patches overlap, in each of them.
        labelled_share: Share of them among the clear pixels, 0 to 1.
        burned_share: Share of burned among them, 0 to 1.
        fingerprint: SHA-256 over these patches and their labels.
        leaks: Unlabelled tiles that are one of val or test and were allowed, one line each.
    """

    teacher: str
    teacher_sha256: str
    confidence: float
    patches: int
    left_out: int
    pixels: int
    labelled_share: float
    burned_share: float
    fingerprint: str
    leaks: tuple[str, ...] = ()

    def __str__(self) -> str:
        left_out = f" ({self.left_out:,} left out)" if self.left_out else ""
        return (
            f"{format_count(self.patches, 'unlabelled patch', 'unlabelled patches')}{left_out} labelled by "
            f"{format_name(self.teacher)} (sha256 {self.teacher_sha256[:12]}) where its probability is at least "
            f"{self.confidence:g}: {format_share(self.labelled_share)} of their clear pixels, "
            f"{format_share(self.burned_share)} of these burned"
        )


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
        self_training: Origin of the pseudo-labels; None if the run had none.
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
    self_training: SelfTraining | None = None

    @property
    def state(self) -> dict[str, Any]:
        """Weights that were validated: the running mean if there is one, else those of the model."""
        if self.mean is None:
            return self.model
        return {key.removeprefix("module."): value for key, value in self.mean.items() if key.startswith("module.")}


def read_checkpoint(path: Path, *, with_weights: bool = True) -> Checkpoint:
    """Reads a checkpoint file without executing anything in it.

    Args:
        path: An existing file.
        with_weights: Read the tensors. Without them, torch is not imported, which takes seconds, and each tensor is an
            empty object; the checksums of the file are compared all the same.

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
    content = None if with_weights else _read_values(path)
    if content is None:
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
        faults = (f"{path}: {'.'.join(map(str, one['loc']))}: {one['msg']}; {CURE}" for one in error.errors())
        raise FiresegError(*faults) from error


class _UnreadTensor:
    """Stands for a tensor, and for what it is built from."""

    def __init__(self, *_: object) -> None: ...


class _ValuesUnpickler(pickle.Unpickler):
    """Reads the plain values of a file of `torch.save`; everything but dicts and tensors is refused."""

    def find_class(self, module: str, name: str) -> Callable[..., object]:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2") or (module == "torch" and name.endswith("Storage")):
            return _UnreadTensor
        raise pickle.UnpicklingError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> object:
        return _UnreadTensor()


def _read_values(path: Path) -> dict[str, Any] | None:
    """Returns the content of a checkpoint without its tensors; None if torch has to read it, or to say what it is."""
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            if archive.testzip() is not None or archive.getinfo(name).file_size > _MAX_VALUES_BYTES:
                return None
            content = _ValuesUnpickler(io.BytesIO(archive.read(name))).load()
    except Exception:  # a damaged pickle may raise any
        return None
    return content if isinstance(content, dict) and {"config", "model"} <= content.keys() else None
