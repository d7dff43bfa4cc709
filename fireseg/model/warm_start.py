"""A whole model that starts from a checkpoint of ours."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fireseg.errors import FiresegError, SettingError
from fireseg.model.network import FireSegmentationModel
from fireseg.model.weights import WeightsFile

CHECKPOINT_NAMES = ("best_model.pt", "final_model.pt", "last.pt")
"""What of a run folder's checkpoints is taken, the first that is there."""

_HEAD = "network.segmentation_head."

_log = logging.getLogger(__name__)


def find_file(path: Path) -> Path:
    """The file that a path names: itself, or the best checkpoint of a run folder.

    Args:
        path: A file or a run folder.

    Raises:
        SettingError: If there is no such path.
        FiresegError: If the folder holds no checkpoint.
    """
    if not path.exists():
        raise SettingError(
            f"model.weights: {path}: no such file or folder; set imagenet, none, a file of an encoder, or a run folder"
        )
    if not path.is_dir():
        return path
    folder = path if path.name == "checkpoints" else path / "checkpoints"
    for name in CHECKPOINT_NAMES:
        if (folder / name).is_file():
            return folder / name
    raise FiresegError(
        f"model.weights: {folder}: holds no checkpoint ({', '.join(CHECKPOINT_NAMES)}); name the folder of a run"
    )


def is_checkpoint(content: Mapping[str, Any]) -> bool:
    """Whether a file's content is a checkpoint of ours, not an encoder's weights."""
    return isinstance(content.get("model"), Mapping) and isinstance(content.get("config"), Mapping)


def check_checkpoint(weights: WeightsFile, wanted: Mapping[str, Any]) -> None:
    """Refuses a checkpoint of another kind of model.

    Args:
        weights: A checkpoint.
        wanted: What `arch`, `encoder` and `bands` shall be.

    Raises:
        FiresegError: If any of them differs; one fault each.
    """
    made_with = _get_settings(weights)
    faults = [
        f"model.weights: {weights.source} was made with {name}={_word(made_with[name])}, "
        f"but {name}={_word(value)} is asked for; set it alike, or take other weights"
        for name, value in wanted.items()
        if _word(made_with[name]) != _word(value)
    ]
    if faults:
        raise FiresegError(*faults)


def load_checkpoint(model: FireSegmentationModel, weights: WeightsFile, num_classes: int) -> None:
    """Loads a whole model, its normalisation included. A head for another number of classes stays new.

    Args:
        model: As built; changed in place.
        weights: A checkpoint that `check_checkpoint` let pass.
        num_classes: How many classes the model has.

    Raises:
        FiresegError: If the tensors are not those of such a model.
    """
    state, note = dict(weights.content["model"]), "warm start of the whole model"
    if (made_with := _get_settings(weights)["num_classes"]) != num_classes:
        note += f"; its head has {made_with} classes, so a new one for {num_classes} starts from random weights"
        head = {key: value for key, value in model.state_dict().items() if key.startswith(_HEAD)}
        state = {key: value for key, value in state.items() if not key.startswith(_HEAD)} | head
        _log.warning("%s: %s", weights.source, note)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise FiresegError(f"{weights.source}: not the weights of its own config ({reason[:300]})") from error
    model.provenance = weights.provenance | {"note": note}


def _get_settings(weights: WeightsFile) -> dict[str, Any]:
    config = weights.content["config"]
    try:
        model = config["model"]
        settings = {name: model[name] for name in ("arch", "encoder", "num_classes")}
        return settings | {"bands": model.get("bands") or config["data"]["bands"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise FiresegError(
            f"{weights.source}: its config says nothing of {error}, so nobody knows what it is; take another one"
        ) from error


def _word(value: Any) -> str:
    return str(value) if isinstance(value, str | int) else "[" + ",".join(value) + "]"
