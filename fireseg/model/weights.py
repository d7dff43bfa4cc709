"""Weights of an encoder: from a file here, or ImageNet's from the hub."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from fireseg.disk import load_tensors
from fireseg.errors import FiresegError, SettingError
from fireseg.model.encoder_names import TIMM_PREFIX
from fireseg.model.hub import HubFile, fetch

HUB_FILE_NAME = "model.safetensors"


class WeightsFile(NamedTuple):
    """A file of weights that was read.

    Attributes:
        path: Where it lies.
        source: Where it comes from: `repo@revision/file` or the path.
        content: The tensors by name, or a checkpoint's dict.
    """

    path: Path
    source: str
    content: dict[str, Any]

    @property
    def provenance(self) -> dict[str, str]:
        """Source and sha256, for the record."""
        with self.path.open("rb") as file:
            return {"source": self.source, "sha256": hashlib.file_digest(file, "sha256").hexdigest(), "note": ""}


def read_weights(path: Path, source: str = "") -> WeightsFile:
    """Reads tensors from a safetensors file or one that `torch.save` wrote, whatever the second is called.

    Args:
        path: The file.
        source: What to call it in the record; the path by default.

    Raises:
        FiresegError: If it cannot be read.
    """
    source = source or str(path)
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise FiresegError(f"{path}: cannot be read ({error.strerror}); name another file") from error
    # A safetensors file begins with the length of its header, 8 bytes, and then the header's JSON.
    is_safetensors = path.suffix == ".safetensors" or start[8:] == b"{"
    return WeightsFile(path, source, _load_safetensors(path) if is_safetensors else load_tensors(path))


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise FiresegError(f"{path}: not a readable safetensors file ({error}); take another one") from error


def fetch_imagenet(encoder: str) -> WeightsFile:
    """The weights that an encoder learnt on ImageNet, from the hub's cache or the hub.

    Args:
        encoder: A name that SMP or (`tu-`) timm knows.

    Raises:
        SettingError: If nobody published any.
        FiresegError: If they cannot be had; within 5 seconds.
    """
    file = _find_timm(encoder) if encoder.startswith(TIMM_PREFIX) else _find_smp(encoder)
    return read_weights(fetch(file), str(file))


def _find_smp(encoder: str) -> HubFile:
    import segmentation_models_pytorch as smp

    published: Mapping[str, Any] = smp.encoders.encoders[encoder]["pretrained_settings"]
    if "imagenet" not in published:
        others = f"only {', '.join(published)}" if published else "none at all"
        raise SettingError(
            f"model.weights: there are no ImageNet weights for {encoder}, {others}; "
            "set model.weights=none or a file, or take another encoder"
        )
    return HubFile(published["imagenet"]["repo_id"], published["imagenet"]["revision"], HUB_FILE_NAME)


def _find_timm(encoder: str) -> HubFile:
    import timm

    published = timm.get_pretrained_cfg(encoder.removeprefix(TIMM_PREFIX))
    if published is None or not published.hf_hub_id:
        url = getattr(published, "url", None)
        where = f"only {url}" if url else "none at all"
        raise SettingError(
            f"model.weights: there are no weights for {encoder} on the hub, {where}; "
            "set model.weights=none or a file, or take another encoder"
        )
    repo, _, revision = published.hf_hub_id.partition("@")
    return HubFile(repo, revision or "main", published.hf_hub_filename or HUB_FILE_NAME)


def load_encoder(encoder: nn.Module, weights: WeightsFile) -> None:
    """Loads an encoder's weights, all of them or none.

    Args:
        encoder: An encoder for three channels; changed in place.
        weights: Its tensors by name. A classifier on top, as ImageNet files have it, is left out by SMP itself.

    Raises:
        FiresegError: If any tensor is missing, too many, or of another shape; names them.
    """
    faults = [f"{key} is no tensor" for key, value in weights.content.items() if not isinstance(value, Tensor)]
    if not faults:
        try:
            # A copy, because SMP takes the classifier out of the dict that it is given.
            encoder.load_state_dict(dict(weights.content))
            return
        except RuntimeError:
            faults = _compare(encoder.state_dict(), weights.content)
    raise FiresegError(
        f"{weights.source}: {'; '.join(faults)}; the file holds no weights of this encoder for three channels: "
        "set model.encoder to the one it was made with, or take another file"
    )


def _compare(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    shapes = [
        f"{key} {tuple(given[key].shape)} for {tuple(wanted[key].shape)}"
        for key in wanted
        if key in given and given[key].shape != wanted[key].shape
    ]
    differences = {
        "missing": [key for key in wanted if key not in given],
        "unexpected": [key for key in given if key not in wanted],
        "of another shape": shapes,
    }
    return [f"{len(keys)} tensors {what} ({_first(keys)})" for what, keys in differences.items() if keys]


def _first(keys: Iterable[str], limit: int = 5) -> str:
    keys = list(keys)
    return ", ".join(keys[:limit]) + (", …" if len(keys) > limit else "")
