"""Initial weights: of an encoder from a file or the Hugging Face hub, or of a whole model from a checkpoint."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from torch import Tensor, nn

from fireseg.console import format_count
from fireseg.errors import FiresegError, SettingError, did_you_mean, join_names
from fireseg.files import CHECKPOINT_NAMES, check_regular_file, find_checkpoint, hash_file, load_tensors, read_error
from fireseg.model.encoders import TIMM_PREFIX
from fireseg.model.network import HEAD_PREFIX, FireSegmentationModel, drop_auxiliary_head

# Set before huggingface_hub is first imported: its telemetry costs three seconds without a network.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

ANSWER_SECONDS = 4.0
"""Timeout for the first answer of the hub; the library alone retries for 24 to 47 s."""


class HubFile(NamedTuple):
    """A file on the Hugging Face hub."""

    repo: str
    revision: str
    name: str

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}/{self.name}"


def fetch(file: HubFile) -> Path:
    """Returns the local path of a file on the hub, downloading it if it is not in the cache.

    Args:
        file: File on the hub.

    Returns:
        Path in the cache folder of the hub.

    Raises:
        FiresegError: If it is neither in the cache nor available; within 5 seconds.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(file.repo, file.name, revision=file.revision)
    if isinstance(cached, str):
        return Path(cached)
    try:
        _check_available(file)
        return Path(hf_hub_download(file.repo, file.name, revision=file.revision))
    # The libraries in between have an exception class for every failure, and the remedy is always the same.
    except Exception as error:
        raise _not_available(file, error) from error


def _check_available(file: HubFile) -> None:
    """Requests the headers of the file once, with a timeout of `ANSWER_SECONDS`.

    Raises:
        TimeoutError: If there was no answer in time.
    """
    from huggingface_hub import constants, get_hf_file_metadata, get_session, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        raise ConnectionError("HF_HUB_OFFLINE is set")
    url = hf_hub_url(file.repo, file.name, revision=file.revision)

    def request_headers() -> None:
        location = get_hf_file_metadata(url, timeout=ANSWER_SECONDS).location
        if urlsplit(location).netloc != urlsplit(url).netloc:
            # The hub redirects large files to another host, which a firewall may block. Any answer is sufficient:
            # the signed URL accepts GET only.
            get_session().head(location, timeout=ANSWER_SECONDS)

    _call_with_timeout(ANSWER_SECONDS, request_headers)


def _call_with_timeout(seconds: float, call: Callable[[], object]) -> None:
    """Calls a function in a thread, because name resolution and connecting to several addresses have no timeout."""
    errors: list[Exception] = []

    def run() -> None:
        try:
            call()
        except Exception as error:  # raised in the waiting thread below
            errors.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {seconds:g} seconds")
    if errors:
        raise errors[0]


def _not_available(file: HubFile, error: Exception) -> FiresegError:
    from huggingface_hub import constants

    lines = str(error).strip().splitlines()
    folder = "models--" + file.repo.replace("/", "--")
    return FiresegError(
        f"model.weights: {file.name} of {file.repo} (revision {file.revision}) is neither in the cache "
        f"{constants.HF_HUB_CACHE} nor available from {constants.ENDPOINT} "
        f"({type(error).__name__}: {lines[0][:200] if lines else 'no reason given'}); "
        f"copy the folder {folder} into that cache from another machine (HF_HOME sets another cache), "
        "or set model.weights=/path/to/an/encoder/file, or model.weights=none for random weights"
    )


HUB_FILE_NAME = "model.safetensors"


class WeightsFile(NamedTuple):
    """The content of a weights file.

    Attributes:
        path: Local path.
        source: Origin: `repo@revision/file`, or the path.
        content: Tensors by name, or the dict of a checkpoint.
    """

    path: Path
    source: str
    content: dict[str, Any]

    @property
    def provenance(self) -> dict[str, str]:
        """Source and SHA-256 of the file."""
        return {"source": self.source, "sha256": hash_file(self.path), "note": ""}


def read_weights(path: Path, source: str = "") -> WeightsFile:
    """Reads a safetensors file, or a file written by `torch.save`, whatever its extension.

    Args:
        path: Weights file.
        source: Origin of the file; the path if empty.

    Raises:
        FiresegError: If it cannot be read.
    """
    source = source or str(path)
    check_regular_file(path)
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise read_error(path, error) from error
    # A safetensors file starts with the length of its header in 8 bytes, followed by the JSON header.
    is_safetensors = path.suffix == ".safetensors" or start[8:] == b"{"
    return WeightsFile(path, source, _load_safetensors(path) if is_safetensors else load_tensors(path))


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise FiresegError(f"{path}: not a readable safetensors file ({error}); use another file") from error


def fetch_imagenet(encoder: str) -> WeightsFile:
    """Reads the ImageNet weights of an encoder from the cache of the hub, or the hub.

    Args:
        encoder: Encoder of SMP, or `tu-` and the name of a timm model.

    Raises:
        SettingError: If no ImageNet weights are published for it.
        FiresegError: If they are not available; within 5 seconds.
    """
    file = _find_timm(encoder) if encoder.startswith(TIMM_PREFIX) else _find_smp(encoder)
    return read_weights(fetch(file), str(file))


def _find_smp(encoder: str) -> HubFile:
    import segmentation_models_pytorch as smp

    published: Mapping[str, Any] = smp.encoders.encoders[encoder]["pretrained_settings"]
    if "imagenet" not in published:
        others = f"only {', '.join(published)}" if published else "nor any others"
        raise SettingError(
            f"model.weights: no ImageNet weights are published for {encoder}, {others}; "
            "set model.weights=none or a file, or use another encoder"
        )
    return HubFile(published["imagenet"]["repo_id"], published["imagenet"]["revision"], HUB_FILE_NAME)


def _find_timm(encoder: str) -> HubFile:
    import timm

    published = timm.get_pretrained_cfg(encoder.removeprefix(TIMM_PREFIX))
    if published is None or not published.hf_hub_id:
        url = getattr(published, "url", None)
        elsewhere = f" (only at {url})" if url else ""
        raise SettingError(
            f"model.weights: the hub has no weights for {encoder}{elsewhere}; "
            "set model.weights=none or a file, or use another encoder"
        )
    repo, _, revision = published.hf_hub_id.partition("@")
    return HubFile(repo, revision or "main", published.hf_hub_filename or HUB_FILE_NAME)


def load_encoder(encoder: nn.Module, weights: WeightsFile) -> None:
    """Loads all weights of an encoder, strictly.

    Args:
        encoder: Encoder with three input channels; changed in place.
        weights: Tensors of the encoder. The classifier of ImageNet files is dropped by SMP.

    Raises:
        FiresegError: If tensors are missing, unexpected, or of another shape; with their names.
    """
    faults = [f"{key} is not a tensor" for key, value in weights.content.items() if not isinstance(value, Tensor)]
    if not faults:
        try:
            # A copy, because SMP removes the classifier from the dict.
            encoder.load_state_dict(dict(weights.content))
            return
        except RuntimeError:
            faults = compare_tensors(encoder.state_dict(), weights.content)
    raise FiresegError(
        f"{weights.source}: {'; '.join(faults)}; not the weights of this encoder for three channels: "
        "set model.encoder to the encoder of the file, or use another file; of weights over Sentinel-2 bands, "
        "name the bands with model.weights_bands"
    )


def compare_tensors(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Compares the names and shapes of tensors.

    Args:
        expected: Tensors of a module.
        given: Tensors of a file.

    Returns:
        One clause each for missing tensors, unexpected ones, and those of another shape.
    """
    shapes = [
        f"{key} {tuple(given[key].shape)} for {tuple(expected[key].shape)}"
        for key in expected
        if key in given and given[key].shape != expected[key].shape
    ]
    differences = {
        "missing": [key for key in expected if key not in given],
        "unexpected": [key for key in given if key not in expected],
        "of another shape": shapes,
    }
    return [
        f"{format_count(len(keys), 'tensor')} {problem} ({join_names(keys, 5)})"
        for problem, keys in differences.items()
        if keys
    ]


_log = logging.getLogger(__name__)


def find_weights(path: Path, names: Sequence[str]) -> Path:
    """Returns the file that `model.weights` stands for: the file itself, or the best checkpoint of a run folder.

    Args:
        path: Weights file, checkpoint file or run folder.
        names: Values that name no path, for the message.

    Raises:
        SettingError: If the path does not exist.
        FiresegError: If the folder contains no checkpoint.
    """
    if not path.exists():
        raise SettingError(
            f"model.weights: {path}: no such file or folder{did_you_mean(str(path), names)}; "
            f"set {', '.join(names)}, an encoder file, or a run folder"
        )
    if file := find_checkpoint(path):
        return file
    raise FiresegError(
        f"model.weights: {path}: contains no checkpoint ({', '.join(CHECKPOINT_NAMES)}); name a run folder"
    )


def is_checkpoint(content: Mapping[str, Any]) -> bool:
    """Returns True if the content is a checkpoint of fireseg, not the weights of an encoder."""
    return isinstance(content.get("model"), Mapping) and isinstance(content.get("config"), Mapping)


def check_checkpoint(weights: WeightsFile, expected: Mapping[str, Any]) -> None:
    """Checks that a checkpoint was made with the same kind of model.

    Args:
        weights: Checkpoint.
        expected: Expected `arch`, `encoder`, `bands` and `indices`.

    Raises:
        FiresegError: If any of them differs; one fault for each.
    """
    saved = _get_settings(weights)
    faults = [
        f"model.weights: {weights.source} has {name}={_format_value(saved[name])}, but the model has "
        f"{name}={_format_value(value)}; set the same, or use other weights"
        for name, value in expected.items()
        if _format_value(saved[name]) != _format_value(value)
    ]
    if faults:
        raise FiresegError(*faults)


def load_checkpoint(model: FireSegmentationModel, weights: WeightsFile, num_classes: int) -> None:
    """Loads a whole model with its normalisation; the head keeps its random weights if the number of classes differs.

    Args:
        model: Model to change in place.
        weights: Checkpoint that passed `check_checkpoint`.
        num_classes: Number of classes of the model.

    Raises:
        FiresegError: If the tensors do not match the model.
    """
    saved_classes, note = _get_settings(weights)["num_classes"], "warm start of the whole model"
    state = drop_auxiliary_head(weights.content["model"], saved_classes)
    if saved_classes != num_classes:
        note += f"; its head has {saved_classes} classes, so the head for {num_classes} classes has random weights"
        head = {key: value for key, value in model.state_dict().items() if key.startswith(HEAD_PREFIX)}
        state |= head
        _log.warning("%s: %s", weights.source, note)
    try:
        model.load_task_state(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise FiresegError(
            f"{weights.source}: weights that do not match its settings ({reason[:300]}); use another checkpoint"
        ) from error
    model.set_normalisation(model.mean.tolist(), model.std.tolist())  # also if they are 0 and 1
    fingerprint = weights.content.get("fingerprint")
    trained_on = {"fingerprint": fingerprint} if isinstance(fingerprint, str) else {}
    model.provenance = weights.provenance | {"note": note} | trained_on


def _get_settings(weights: WeightsFile) -> dict[str, Any]:
    config = weights.content["config"]
    try:
        model = config["model"]
        settings = {name: model[name] for name in ("arch", "encoder", "num_classes")}
        settings |= {"bands": model.get("bands") or config["data"]["bands"]}
        return settings | {"indices": model.get("indices", ())}  # earlier versions had none
    except (KeyError, TypeError, AttributeError) as error:
        raise FiresegError(
            f"{weights.source}: its settings lack {error}, so its model is unknown; use another checkpoint"
        ) from error


def _format_value(value: Any) -> str:
    return str(value) if isinstance(value, str | int) else "[" + ",".join(value) + "]"
