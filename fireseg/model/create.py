"""A model for given bands and classes, with the weights that were asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import torch
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from torch import nn

from fireseg.errors import FiresegError, SettingError, did_you_mean
from fireseg.model.encoders import ENCODERS, TIMM_PREFIX, adapt_stem, check_encoder
from fireseg.model.network import FireSegmentationModel
from fireseg.model.weights import (
    WeightsFile,
    check_checkpoint,
    fetch_imagenet,
    find_file,
    is_checkpoint,
    load_checkpoint,
    load_encoder,
    read_weights,
)

_TRIAL_PX = 64

# What SMP and timm raise for an encoder that an architecture cannot take.
_BUILD_ERRORS = (ValueError, RuntimeError, TypeError, KeyError, AttributeError, AssertionError, NotImplementedError)


def build_network(arch: str, encoder: str, in_channels: int, num_classes: int, **timm_options: Any) -> nn.Module:
    """An SMP network with random weights.

    Args:
        arch: `unet`, `unetplusplus` or `deeplabv3plus`.
        encoder: A checked name.
        in_channels: Channels of the image.
        num_classes: Channels of the logits.
        **timm_options: For timm's own builder; with any, it loads weights.

    Raises:
        SettingError: If timm has no such encoder, or the architecture cannot take it.
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
            _try_out(network, in_channels)
    except _BUILD_ERRORS as error:
        raise SettingError(
            f"model.encoder: {arch} cannot take {encoder} ({_first_line(error)}); "
            "take another encoder, or model.arch=unet, which takes the most"
        ) from error
    return network


def _try_out(network: nn.Module, in_channels: int) -> None:
    """One small image through an encoder that is not tested here: some build well and fail later."""
    network.eval()
    with torch.no_grad():
        logits = network(torch.zeros(1, in_channels, _TRIAL_PX, _TRIAL_PX))
    network.train()
    if logits.shape[-2:] != (_TRIAL_PX, _TRIAL_PX):
        raise ValueError(f"of {_TRIAL_PX} x {_TRIAL_PX} px it makes {logits.shape[-2]} x {logits.shape[-1]}")


def check_timm(encoder: str) -> None:
    """Refuses a `tu-` name that timm does not know, with the nearest that it does.

    Raises:
        SettingError: If timm has no such model, or no such weights of it.
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
        name, wrong = f"{name}.{tag}", f"timm has no weights '{tag}' for {name}"
    near = did_you_mean(encoder, [TIMM_PREFIX + other for other in known])
    raise SettingError(f"model.encoder: {wrong}{near}; timm.list_models() names them all")


def build_pretrained(
    arch: str, encoder: str, num_classes: int, weights: WeightsFile, *, bands: Sequence[str], by_band: bool
) -> nn.Module:
    """A network whose encoder starts from weights for red, green and blue, made to read bands.

    Args:
        arch: As for `build_network`.
        encoder: As for `build_network`.
        num_classes: As for `build_network`.
        weights: The encoder's weights.
        bands: Names of the bands.
        by_band: Adapt the first convolution by `stem.spread_filters`, else in SMP's (or timm's) way.

    Raises:
        SettingError: If encoder and architecture do not go together.
        FiresegError: If the weights are not those of the encoder.
    """
    # A file of timm's own needs timm to read it; one that was saved from SMP's wrapper around timm does not.
    is_timms = encoder.startswith(TIMM_PREFIX) and not all(key.startswith("model.") for key in weights.content)
    if is_timms:
        options = _check_timm_weights(encoder, weights)
        network = build_network(arch, encoder, 3 if by_band else len(bands), num_classes, **options)
    else:
        network = build_network(arch, encoder, 3, num_classes)
        load_encoder(_get_encoder(network), weights)
    if by_band:
        adapt_stem(_get_encoder(network), bands)
    elif not is_timms:
        _get_encoder(network).set_in_channels(len(bands), pretrained=True)
    return network


def _check_timm_weights(encoder: str, weights: WeightsFile) -> dict[str, Any]:
    """How to tell timm to load a file, once it is known that the file fits.

    Without its classifier, as an encoder, timm takes any file and leaves random what it does not find in it.
    With it timm is strict: so the whole model is built once for the question alone.
    """
    import timm

    overlay = {"file": str(weights.path), "custom_load": False}
    try:
        timm.create_model(encoder.removeprefix(TIMM_PREFIX), pretrained=True, pretrained_cfg_overlay=overlay)
    except _BUILD_ERRORS as error:
        raise FiresegError(
            f"{weights.source}: not the weights of {encoder} ({_first_line(error)}); "
            "set model.encoder to the one it was made with, or take another file"
        ) from error
    return {"pretrained_cfg_overlay": overlay}


def _get_encoder(network: nn.Module) -> Any:
    return network.encoder


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


# The project's seven; a test holds them against fireseg.data, which rooms may not import from one another.
BANDS7 = ("B02", "B03", "B04", "B08", "B8A", "B11", "B12")

RANDOM = {"source": "none: random", "sha256": "", "note": ""}


def _check_bands(bands: tuple[str, ...]) -> tuple[str, ...]:
    wrong = [band for band in bands if not re.fullmatch("B(0[1-9]|1[0-2]|8A)", band)]
    if wrong or len(set(bands)) < len(bands):
        raise ValueError(f"not bands of Sentinel-2, each once ({' '.join(wrong) or 'one comes twice'})")
    return bands


def create_segmentation_model(
    arch: Literal["unet", "unetplusplus", "deeplabv3plus"] = "unet",
    encoder: Annotated[str, AfterValidator(check_encoder)] = "resnet34",
    *,
    weights: str | Path = "imagenet",
    in_channels: Annotated[int, Field(ge=1, le=13)] = 7,
    num_classes: Annotated[int, Field(ge=2, le=254)] = 2,
    bands: Annotated[tuple[str, ...], AfterValidator(_check_bands)] = BANDS7,
    stem: Literal["by_band", "smp"] = "by_band",
) -> FireSegmentationModel:
    """Builds the model of a run.

    Args:
        arch: The decoder around the encoder.
        encoder: One of the seven, another of SMP's, or a timm model as `tu-<name>`.
        weights: `imagenet` (from the hub's cache, or the hub), `none` (random), a file of an encoder's weights for red,
            green and blue, or a run folder or checkpoint of ours: then the whole model starts from it.
        in_channels: How many bands; said twice so that a slip does not pass.
        num_classes: Classes of the mask, unburned included.
        bands: Which Sentinel-2 bands the channels are.
        stem: How weights for three colours become weights for bands: `by_band` (see `stem.spread_filters`), or
            `smp`, its own way, which repeats red, green, blue in order.

    Returns:
        A model in training mode, on the CPU, that knows its bands and where its weights come from.

    Raises:
        SettingError: If a value cannot be, or encoder and architecture do not go together.
        FiresegError: If the weights cannot be had or do not fit. Never random in silence.

    Example:
        >>> model = create_segmentation_model("unet", "resnet18", weights="none", num_classes=5)  # doctest: +SKIP
    """
    bands = tuple(bands)
    _check_values(locals())
    if weights == "none":
        network = build_network(arch, encoder, in_channels, num_classes)
        return FireSegmentationModel(network, bands=bands, provenance=RANDOM)
    if weights == "imagenet":
        check_timm(encoder)
        file = fetch_imagenet(encoder)
    else:
        file = read_weights(find_file(Path(weights).expanduser()))
    if is_checkpoint(file.content):
        check_checkpoint(file, {"arch": arch, "encoder": encoder, "bands": bands})
        model = FireSegmentationModel(build_network(arch, encoder, in_channels, num_classes), bands=bands)
        load_checkpoint(model, file, num_classes)
        return model
    network = build_pretrained(arch, encoder, num_classes, file, bands=bands, by_band=stem == "by_band")
    return FireSegmentationModel(network, bands=bands, provenance=file.provenance)


def _check_values(values: Mapping[str, Any]) -> None:
    """Holds what came against the signature above: the same check for callers who do not come through conf/."""
    faults = []
    hints = get_type_hints(create_segmentation_model, include_extras=True)
    for name, value in values.items():
        try:
            TypeAdapter(hints[name]).validate_python(value, strict=True)
        except ValidationError as error:
            reasons = "; ".join(each["msg"].removeprefix("Value error, ") for each in error.errors())
            faults.append(f"model.{name}: {value!r}: {reasons}")
    bands, in_channels = values["bands"], values["in_channels"]
    if not faults and in_channels != len(bands):
        faults.append(
            f"model.in_channels: {in_channels}, but there are {len(bands)} bands ({' '.join(bands)}); "
            "name in bands just the bands that the channels are"
        )
    if faults:
        raise SettingError(*faults)
