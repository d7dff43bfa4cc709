"""Encoder weights over Sentinel-2 bands: those published, and their adaptation to the bands of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fireseg.console import format_count
from fireseg.errors import FiresegError, SettingError, join_names
from fireseg.model.encoders import TIMM_PREFIX, find_stem
from fireseg.model.weights import HubFile, WeightsFile, compare_tensors, fetch, read_weights

SSL4EO_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
"""Bands of level 1C in the order in which SSL4EO-S12 stores them."""

PUBLISHED = {
    "ssl4eo-s12-moco": {
        "resnet18": HubFile(
            "torchgeo/resnet18_sentinel2_all_moco",
            "5b8cddc9a14f3844350b7f40b85bcd32aed75918",
            "resnet18_sentinel2_all_moco-59bfdff9.pth",
        ),
        "resnet50": HubFile(
            "torchgeo/resnet50_sentinel2_all_moco",
            "da4f3c9dbe09272eb902f3b37f46635fa4726879",
            "resnet50_sentinel2_all_moco-df8b932e.pth",
        ),
    },
    "ssl4eo-s12-dino": {
        "resnet50": HubFile(
            "torchgeo/resnet50_sentinel2_all_dino",
            "d7f14bf5530d70ac69d763e58e77e44dbecfec7c",
            "resnet50_sentinel2_all_dino-d6c330e9.pth",
        ),
    },
    "ssl4eo-s12-decur": {
        "resnet50": HubFile(
            "torchgeo/decur",
            "eba7ae5945d482a4319be046d34b552db5dd9950",
            "rn50_ssl4eo-s12_ms_decur_ep100-fc6b09ff.pth",
        ),
    },
}
"""Published weights by name and encoder, over `SSL4EO_BANDS` of digital numbers / 10000.

Files, revisions, bands and scale are those of TorchGeo (`torchgeo/models/resnet.py`). Sources: Wang et al. (2023),
SSL4EO-S12, IEEE GRSM (MoCo and DINO, CC-BY-4.0); Wang et al. (2024), DeCUR, ECCV (Apache-2.0).
"""


def fetch_published(name: str, encoder: str) -> WeightsFile:
    """Reads published weights from the cache of the hub, or the hub.

    Args:
        name: One of `PUBLISHED`.
        encoder: Encoder of SMP, or `tu-` and the name of a timm model.

    Raises:
        SettingError: If these weights are not published for the encoder.
        FiresegError: If they are not available; within 5 seconds.
    """
    files = PUBLISHED[name]
    file = files.get(encoder.removeprefix(TIMM_PREFIX))
    if file is None:
        raise SettingError(
            f"model.weights: {name} is published for {' and '.join(files)}, not for {encoder}; "
            f"set model.encoder={min(files)}, or model.weights=imagenet"
        )
    return read_weights(fetch(file), str(file))


def load_multispectral(
    encoder: nn.Module, weights: WeightsFile, file_bands: Sequence[str], *, channels: Sequence[str]
) -> str:
    """Loads an encoder from weights over Sentinel-2 bands, and adapts its first layer.

    Each band keeps its filters. Bands of the file that the model does not have are left out, which is as if they were
    0. Bands and indices that the file does not have start with filters of 0, so that the features are those of the
    pretrained encoder until training changes them.

    Keys may have a prefix, such as `module.encoder_q.`, `backbone.` or `encoder.`, and may be in a dict `state_dict`.
    Modules that the encoder does not have, such as a classifier or a second encoder, are left out.

    Args:
        encoder: Encoder with three input channels; changed in place.
        weights: Tensors of the encoder.
        file_bands: Bands of the channels of its first layer, in order.
        channels: The C bands and indices of the model, in order.

    Returns:
        A note on what was left out, and what starts at 0.

    Raises:
        SettingError: If the first layer has another number of channels, or the model has none of the bands.
        FiresegError: If tensors are missing, unexpected, or of another shape; with their names.
    """
    if not set(channels) & set(file_bands):
        raise SettingError(
            f"model.weights_bands: {weights.source} has {' '.join(file_bands)}, and the model none of them; "
            "add bands to data.bands, or use other weights"
        )
    inner = weights.content.get("state_dict")
    content = inner if isinstance(inner, Mapping) else weights.content
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    state = encoder.state_dict()
    wrapper = "model." if all(key.startswith("model.") for key in state) else ""  # SMP wraps encoders of timm
    stem = {f"{name}.weight": conv for name, conv in _find_stem_names(encoder).items()}
    prefix = _find_prefix(tensors, [key.removeprefix(wrapper) for key in state], next(iter(stem)).removeprefix(wrapper))
    loaded = {wrapper + key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    modules = {_top_module(key, wrapper) for key in state}
    loaded = {key: value for key, value in loaded.items() if _top_module(key, wrapper) in modules}
    for key, conv in stem.items():
        if key in loaded:
            loaded[key] = _select_filters(loaded[key], weights.source, file_bands, channels)
        conv.weight = nn.Parameter(conv.weight.new_zeros(conv.out_channels, len(channels), *conv.kernel_size))
        conv.in_channels = len(channels)
    try:
        encoder.load_state_dict(dict(loaded))
    except RuntimeError as error:
        faults = compare_tensors(encoder.state_dict(), loaded)
        raise FiresegError(
            f"{weights.source}: {'; '.join(faults)}; not the weights of this encoder: "
            "set model.encoder to the encoder of the file, or use another file"
        ) from error
    used = {prefix + key.removeprefix(wrapper) for key in loaded}
    return _describe(file_bands, channels, [key for key in content if key not in used])


def _find_stem_names(encoder: nn.Module) -> dict[str, nn.Conv2d]:
    stem = find_stem(encoder)
    return {
        name: module
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Conv2d) and any(module is conv for conv in stem)
    }


def _find_prefix(tensors: Mapping[str, Tensor], keys: Sequence[str], first: str) -> str:
    """Returns the prefix under which most keys are found; among equals the first, MoCo's query encoder."""
    prefixes = [key.removesuffix(first) for key in tensors if key.endswith(first)]
    prefixes = [prefix for prefix in prefixes if prefix == "" or prefix.endswith(".")]
    return max(prefixes, key=lambda prefix: sum(prefix + key in tensors for key in keys), default="")


def _top_module(key: str, wrapper: str) -> str:
    return key.removeprefix(wrapper).split(".")[0]


def _select_filters(weight: Tensor, source: str, file_bands: Sequence[str], channels: Sequence[str]) -> Tensor:
    if weight.ndim != 4 or weight.shape[1] != len(file_bands):
        raise SettingError(
            f"model.weights_bands: {format_count(len(file_bands), 'band')} ({' '.join(file_bands)}), but the first "
            f"layer of {source} has the shape {tuple(weight.shape)}; name one band for each input channel, in order"
        )
    absent = torch.zeros_like(weight[:, 0])
    return torch.stack([weight[:, file_bands.index(name)] if name in file_bands else absent for name in channels], 1)


def _describe(file_bands: Sequence[str], channels: Sequence[str], unused: Sequence[str]) -> str:
    parts = ["input: reflectance without normalisation"]
    if left_out := [band for band in file_bands if band not in channels]:
        parts.append(f"without the filters of {' '.join(left_out)}")
    if new := [name for name in channels if name not in file_bands]:
        parts.append(f"filters of {' '.join(new)} start at 0")
    if unused:
        parts.append(f"{format_count(len(unused), 'entry', 'entries')} of the file left out ({join_names(unused, 3)})")
    return "; ".join(parts)
