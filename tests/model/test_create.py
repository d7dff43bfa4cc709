"""What may be asked of a model, and what is refused before anything is built."""

from __future__ import annotations

from typing import Any

import pytest

from fireseg.data.bands import BAND_NAMES, SENTINEL2_BANDS
from fireseg.errors import SettingError
from fireseg.model import create_segmentation_model
from fireseg.model.create import BANDS7


def test_the_default_bands_are_those_of_the_data() -> None:
    assert BANDS7 == BAND_NAMES


def test_a_model_carries_its_bands() -> None:
    model = create_segmentation_model(
        encoder="resnet18",
        weights="none",
        in_channels=13,
        bands=list(SENTINEL2_BANDS),  # type: ignore[arg-type]
    )
    assert model.bands == SENTINEL2_BANDS


def test_all_faults_are_told_at_once() -> None:
    request: dict[str, Any] = {"arch": "unet++", "encoder": "resnet43", "in_channels": 14, "num_classes": 1}
    with pytest.raises(SettingError) as caught:
        create_segmentation_model(**request, bands=("B2", "B03"))
    starts = ("model.arch: 'unet++'", "model.encoder: 'resnet43'", "model.in_channels: 14", "model.num_classes: 1")
    assert [fault for fault in caught.value.faults if fault.startswith(starts)] == list(caught.value.faults[:4])
    assert "did you mean 'resnet34'?" in str(caught.value)
    assert "not bands of Sentinel-2, each once (B2)" in caught.value.faults[4]


def test_channels_that_are_not_as_many_as_the_bands_are_refused() -> None:
    with pytest.raises(SettingError, match=r"model\.in_channels: 5, but there are 7 bands"):
        create_segmentation_model(weights="none", in_channels=5)


def test_a_band_that_comes_twice_is_refused() -> None:
    with pytest.raises(SettingError, match="one comes twice"):
        create_segmentation_model(weights="none", in_channels=2, bands=("B08", "B08"))
