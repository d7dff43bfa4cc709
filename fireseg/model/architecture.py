"""Encoder and decoder joined into a network, or a word about why they do not go together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from fireseg.errors import FiresegError, SettingError, did_you_mean
from fireseg.model.encoder_names import ENCODERS, TIMM_PREFIX
from fireseg.model.stem import adapt_stem
from fireseg.model.weights import WeightsFile, load_encoder

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
