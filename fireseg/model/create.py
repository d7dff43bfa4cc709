"""Creates segmentation models for given bands, indices and classes, with random or pretrained weights."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import torch
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from torch import nn

from fireseg.errors import FiresegError, SettingError, did_you_mean
from fireseg.indices import check_indices, find_missing_bands
from fireseg.model.encoders import ENCODERS, TIMM_PREFIX, adapt_stem, check_encoder
from fireseg.model.multispectral import PUBLISHED, SSL4EO_BANDS, fetch_published, load_multispectral
from fireseg.model.network import FireSegmentationModel
from fireseg.model.weights import (
    WeightsFile,
    check_checkpoint,
    fetch_imagenet,
    find_weights,
    is_checkpoint,
    load_checkpoint,
    load_encoder,
    read_weights,
)
from fireseg.pairs import describe_wrong_pair, get_band
from fireseg.task import NUM_AUXILIARY

_TRIAL_PX = 64

# Exceptions of SMP and timm for an encoder that an architecture does not support.
_BUILD_ERRORS = (ValueError, RuntimeError, TypeError, KeyError, AttributeError, AssertionError, NotImplementedError)


def build_network(arch: str, encoder: str, in_channels: int, num_classes: int, **timm_options: Any) -> nn.Module:
    """Builds an SMP network with random weights.

    Args:
        arch: `unet`, `unetplusplus` or `deeplabv3plus`.
        encoder: Encoder name that passed `check_encoder`.
        in_channels: Channels of the image.
        num_classes: Channels of the logits.
        **timm_options: Options for `timm.create_model`; if there are any, it loads weights.

    Raises:
        SettingError: If timm has no such encoder, or the architecture does not support it.
    """
    import segmentation_models_pytorch as smp

    check_timm(encoder)
    build = {"unet": smp.Unet, "unetplusplus": smp.UnetPlusPlus, "deeplabv3plus": smp.DeepLabV3Plus}[arch]
    try:
        network = build(
            encoder_name=encoder,
            encoder_weights=True if timm_options else None,
            in_channels=in_channels,
            classes=num_classes,
            **timm_options,
        )
        if encoder not in ENCODERS:
            _check_output_size(network, in_channels)
    except _BUILD_ERRORS as error:
        raise SettingError(
            f"model.encoder: {arch} does not support {encoder} ({_first_line(error)}); "
            "use another encoder, or model.arch=unet, which supports the most"
        ) from error
    return network


def _check_output_size(network: nn.Module, in_channels: int) -> None:
    """Runs a small image through the network, because some untested encoders can be built but not run."""
    network.eval()
    with torch.no_grad():
        logits = network(torch.zeros(1, in_channels, _TRIAL_PX, _TRIAL_PX))
    network.train()
    if logits.shape[-2:] != (_TRIAL_PX, _TRIAL_PX):
        raise ValueError(f"{_TRIAL_PX} x {_TRIAL_PX} px become {logits.shape[-2]} x {logits.shape[-1]}")


def check_timm(encoder: str) -> None:
    """Checks that timm has the model, and the weights, that a `tu-` name stands for.

    Raises:
        SettingError: If timm has no such model, or no such weights of it; with the nearest name.
    """
    if not encoder.startswith(TIMM_PREFIX):
        return
    import timm

    name, _, tag = encoder.removeprefix(TIMM_PREFIX).partition(".")
    if not timm.is_model(name):
        known = timm.list_models()
        wrong = f"timm has no model '{name}'"
    else:
        known = timm.list_pretrained(f"{name}.*")
        if not tag or f"{name}.{tag}" in known:
            return
        wrong = f"timm has no weights '{tag}' for {name}"
    near = did_you_mean(encoder, [TIMM_PREFIX + other for other in known])
    raise SettingError(f"model.encoder: {wrong}{near}; timm.list_models() lists all models")


def build_pretrained(
    arch: str, encoder: str, num_classes: int, weights: WeightsFile, *, channels: Sequence[str], by_band: bool
) -> nn.Module:
    """Builds a network whose encoder starts from RGB weights that are adapted to its input channels.

    Args:
        arch: As in `build_network`.
        encoder: As in `build_network`.
        num_classes: As in `build_network`.
        weights: Weights of the encoder.
        channels: Bands and indices that the network reads.
        by_band: Adapt the first convolution with `encoders.spread_filters`, else as SMP (or timm) does.

    Raises:
        SettingError: If the architecture does not support the encoder.
        FiresegError: If the weights are not those of the encoder.
    """
    # timm must load its own files; files saved from SMP's wrapper of timm load directly.
    is_timm_file = encoder.startswith(TIMM_PREFIX) and not all(key.startswith("model.") for key in weights.content)
    if is_timm_file:
        options = _check_timm_weights(encoder, weights)
        network = build_network(arch, encoder, 3 if by_band else len(channels), num_classes, **options)
    else:
        network = build_network(arch, encoder, 3, num_classes)
        load_encoder(_get_encoder(network), weights)
    if by_band:
        adapt_stem(_get_encoder(network), channels)
    elif not is_timm_file:
        _get_encoder(network).set_in_channels(len(channels), pretrained=True)
    return network


def build_multispectral(
    arch: str,
    encoder: str,
    num_classes: int,
    weights: WeightsFile,
    weights_bands: Sequence[str],
    *,
    channels: Sequence[str],
) -> tuple[nn.Module, str]:
    """Builds a network whose encoder starts from weights over Sentinel-2 bands.

    Args:
        arch: As in `build_network`.
        encoder: As in `build_network`.
        num_classes: As in `build_network`.
        weights: Weights of the encoder.
        weights_bands: Bands of its first layer, in order.
        channels: Bands and indices that the network reads.

    Returns:
        The network, and a note on how its first layer was adapted.

    Raises:
        SettingError: If the architecture does not support the encoder, or the bands do not fit.
        FiresegError: If the weights are not those of the encoder.
    """
    check_timm(encoder)
    network = build_network(arch, encoder, 3, num_classes)
    return network, load_multispectral(_get_encoder(network), weights, weights_bands, channels=channels)


def _check_timm_weights(encoder: str, weights: WeightsFile) -> dict[str, Any]:
    """Returns the timm options that load a file, after checking that the file matches the model.

    For an encoder without classifier timm accepts any file and leaves missing tensors random. It is strict with the
    classifier, so the whole model is built once for this check.
    """
    import timm

    overlay = {"file": str(weights.path), "custom_load": False}
    try:
        timm.create_model(encoder.removeprefix(TIMM_PREFIX), pretrained=True, pretrained_cfg_overlay=overlay)
    except _BUILD_ERRORS as error:
        raise FiresegError(
            f"{weights.source}: not the weights of {encoder} ({_first_line(error)}); "
            "set model.encoder to the encoder of the file, or use another file"
        ) from error
    return {"pretrained_cfg_overlay": overlay}


def _get_encoder(network: nn.Module) -> Any:
    return network.encoder


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


# Equal to fireseg.data.bands.BAND_NAMES (tested), which this package may not import.
BANDS7 = ("B02", "B03", "B04", "B08", "B8A", "B11", "B12")

RANDOM = {"source": "none: random", "sha256": "", "note": ""}


def _check_bands(bands: tuple[str, ...]) -> tuple[str, ...]:
    wrong = [band for band in bands if not re.fullmatch("B(0[1-9]|1[0-2]|8A)", get_band(band))]
    if wrong or len(set(bands)) < len(bands):
        raise ValueError(f"must be distinct Sentinel-2 bands ({' '.join(wrong) or 'one is repeated'})")
    if fault := describe_wrong_pair(bands):
        raise ValueError(fault)
    return bands


def create_segmentation_model(
    arch: Literal["unet", "unetplusplus", "deeplabv3plus"] = "unet",
    encoder: Annotated[str, AfterValidator(check_encoder)] = "resnet34",
    *,
    weights: str | Path = "imagenet",
    weights_bands: Annotated[tuple[str, ...], AfterValidator(_check_bands)] = (),
    in_channels: Annotated[int, Field(ge=1, le=26)] = 7,
    num_classes: Annotated[int, Field(ge=2, le=254)] = 2,
    auxiliary: Literal["landcover"] | None = None,
    bands: Annotated[tuple[str, ...], AfterValidator(_check_bands)] = BANDS7,
    indices: Annotated[tuple[str, ...], AfterValidator(check_indices)] = (),
    stem: Literal["by_band", "smp"] = "by_band",
) -> FireSegmentationModel:
    """Creates a segmentation model.

    Args:
        arch: Architecture.
        encoder: One of `ENCODERS`, another encoder of SMP, or a timm model as `tu-<name>`.
        weights: `imagenet` or a name of `multispectral.PUBLISHED` (from the cache of the Hugging Face hub, or the hub),
            `none` (random), a file with RGB weights of the encoder, or a run folder or checkpoint of fireseg, which
            initialises the whole model.
        weights_bands: Sentinel-2 bands that the first layer of a weights file reads, in order, as reflectance; none
            for a file with RGB weights. See `multispectral.load_multispectral`.
        in_channels: Number of input bands; must equal `len(bands)` (checked).
        num_classes: Number of classes, unburned included.
        auxiliary: Second task with a head of its own, whose logits only training sees.
        bands: Sentinel-2 bands of the channels, in order; those of a scene before the fire, such as `B12_PRE`, last.
        indices: Spectral indices of `fireseg.indices.INDICES` that are computed inside and appended to the bands.
        stem: Adaptation of RGB weights to the bands: `by_band` (see `encoders.spread_filters`), or `smp`, which
            repeats the filters of red, green and blue in order.

    Returns:
        A model in training mode on the CPU, with its bands and the provenance of its weights.

    Raises:
        SettingError: If a value is not valid, or the architecture does not support the encoder.
        FiresegError: If the weights are not available or do not match; they are never replaced by random ones.

    Example:
        >>> model = create_segmentation_model("unet", "resnet18", weights="none", num_classes=5)  # doctest: +SKIP
    """
    bands, indices, weights_bands = tuple(bands), tuple(indices), tuple(weights_bands)
    _check_values(locals())
    channels, num_auxiliary = (*bands, *indices), NUM_AUXILIARY if auxiliary else 0
    num_logits = num_classes + num_auxiliary
    options: dict[str, Any] = {"bands": bands, "indices": indices, "num_auxiliary": num_auxiliary}
    if weights == "none":
        network = build_network(arch, encoder, len(channels), num_logits)
        return FireSegmentationModel(network, **options, provenance=RANDOM)
    if weights in PUBLISHED:
        file, weights_bands = fetch_published(str(weights), encoder), SSL4EO_BANDS
    elif weights == "imagenet":
        check_timm(encoder)
        file = fetch_imagenet(encoder)
    else:
        file = read_weights(find_weights(Path(weights).expanduser(), ("imagenet", *PUBLISHED, "none")))
    if is_checkpoint(file.content):
        if weights_bands:
            raise SettingError(
                f"model.weights_bands: {file.source} is a run of fireseg, which knows its bands; leave it out"
            )
        check_checkpoint(file, {"arch": arch, "encoder": encoder, "bands": bands, "indices": indices})
        network = build_network(arch, encoder, len(channels), num_logits)
        model = FireSegmentationModel(network, **options)
        load_checkpoint(model, file, num_classes)
        return model
    if weights_bands:
        network, note = build_multispectral(arch, encoder, num_logits, file, weights_bands, channels=channels)
        model = FireSegmentationModel(network, **options, provenance=file.provenance | {"note": note})
        model.set_normalisation([0.0] * len(bands), [1.0] * len(bands))
        return model
    network = build_pretrained(arch, encoder, num_logits, file, channels=channels, by_band=stem == "by_band")
    return FireSegmentationModel(network, **options, provenance=file.provenance)


def _check_values(values: Mapping[str, Any]) -> None:
    """Checks the arguments against the signature, for calls that do not come from conf/."""
    faults = []
    hints = get_type_hints(create_segmentation_model, include_extras=True)
    for name, value in values.items():
        try:
            TypeAdapter(hints[name]).validate_python(value, strict=True)
        except ValidationError as error:
            reasons = "; ".join(detail["msg"].removeprefix("Value error, ") for detail in error.errors())
            faults.append(f"model.{name}: {value!r}: {reasons}")
    bands, in_channels = values["bands"], values["in_channels"]
    if not faults and in_channels != len(bands):
        faults.append(
            f"model.in_channels: {in_channels}, but there are {len(bands)} bands ({' '.join(bands)}); "
            "name one band per channel"
        )
    if not faults and (missing := find_missing_bands(values["indices"], bands)):
        faults.append(f"model.indices: {'; '.join(missing)}, but the bands are {' '.join(bands)}; add the bands")
    weights, has_bands = values["weights"], bool(values["weights_bands"])
    if has_bands and weights in ("imagenet", *PUBLISHED):  # "none" replaces the file where a trained model is loaded
        faults.append(f"model.weights_bands: only for a weights file, but model.weights={weights}; leave it out")
    if (has_bands or weights in PUBLISHED) and values["stem"] != "by_band":
        faults.append("model.stem: weights over Sentinel-2 bands go to the bands by name; set model.stem=by_band")
    if faults:
        raise SettingError(*faults)
