"""A model for given bands and classes, with the weights that were asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from fireseg.errors import SettingError
from fireseg.model.architecture import build_network, build_pretrained, check_timm
from fireseg.model.encoder_names import check_encoder
from fireseg.model.network import FireSegmentationModel
from fireseg.model.warm_start import check_checkpoint, find_file, is_checkpoint, load_checkpoint
from fireseg.model.weights import fetch_imagenet, read_weights

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
