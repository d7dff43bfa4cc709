"""Weights of an encoder: from a file here, or ImageNet's from the hub."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from torch import Tensor, nn

from fireseg.errors import FiresegError, SettingError
from fireseg.files import load_tensors
from fireseg.model.encoders import TIMM_PREFIX
from fireseg.model.network import FireSegmentationModel

# Before huggingface_hub is imported by anybody: it would else ask the hub which agent runs it, which costs three
# more seconds where nothing answers.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

ANSWER_SECONDS = 4.0
"""How long the hub may take to say that it has the file. The library alone would try for 24 to 47 s."""


class HubFile(NamedTuple):
    """A file on the hub."""

    repo: str
    revision: str
    name: str

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}/{self.name}"


def fetch(file: HubFile) -> Path:
    """The file on this disk.

    Args:
        file: Which one.

    Returns:
        Its path in the hub's cache folder.

    Raises:
        FiresegError: If it is not in the cache and cannot be had; says so within 5 seconds of asking.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(file.repo, file.name, revision=file.revision)
    if isinstance(cached, str):
        return Path(cached)
    try:
        _ask(file)
        return Path(hf_hub_download(file.repo, file.name, revision=file.revision))
    # Whatever goes wrong between here and the hub, and the libraries in between have a class for each, the user is
    # told the same: what was wanted, where it was looked for, and the ways out.
    except Exception as error:
        raise _refusal(file, error) from error


def _ask(file: HubFile) -> None:
    """Asks the hub for the file's headers, once, and gives up after `ANSWER_SECONDS`.

    Raises:
        TimeoutError: If there was no answer in time.
    """
    from huggingface_hub import constants, get_hf_file_metadata, get_session, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        raise ConnectionError("HF_HUB_OFFLINE forbids to ask")
    url = hf_hub_url(file.repo, file.name, revision=file.revision)

    def ask() -> None:
        location = get_hf_file_metadata(url, timeout=ANSWER_SECONDS).location
        if urlsplit(location).netloc != urlsplit(url).netloc:
            # The hub hands large files over to another host, which a firewall may well forbid. Any answer will do:
            # that address is signed for GET alone.
            get_session().head(location, timeout=ANSWER_SECONDS)

    _within(ANSWER_SECONDS, ask)


def _within(seconds: float, call: Callable[[], object]) -> None:
    """Calls in a thread of its own: name resolution and connecting to several addresses take no time limit."""
    errors: list[Exception] = []

    def run() -> None:
        try:
            call()
        except Exception as error:  # handed over to the thread that waits
            errors.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer within {seconds:g} seconds")
    if errors:
        raise errors[0]


def _refusal(file: HubFile, error: Exception) -> FiresegError:
    from huggingface_hub import constants

    lines = str(error).strip().splitlines()
    folder = "models--" + file.repo.replace("/", "--")
    return FiresegError(
        f"model.weights: {file.name} of {file.repo} (revision {file.revision}) is wanted, but it is neither in the "
        f"cache {constants.HF_HUB_CACHE} nor to be had from {constants.ENDPOINT} "
        f"({type(error).__name__}: {lines[0][:200] if lines else 'no reason given'}); "
        f"copy the folder {folder} into that cache from a machine that has it (HF_HOME names another cache), "
        "or set model.weights=/path/to/an/encoder/file, or model.weights=none to start from random weights"
    )


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
