"""Settings of the losses: checks, and class weights from class counts."""

from __future__ import annotations

import math
from typing import Any, get_type_hints

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from fireseg.errors import SettingError
from fireseg.loss import CombinedLoss, create_loss


def test_class_weights_are_copied_into_a_buffer() -> None:
    weights = torch.tensor([1.0, 2.0])
    loss = CombinedLoss(class_weights=weights)
    weights.zero_()
    assert {name: value.tolist() for name, value in loss.named_buffers()} == {"class_weights": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"ce_weight": 0.0, "dice_weight": 0.0}, "both 0"),
        ({"ce_weight": -1.0}, "loss.ce_weight: -1.0, want from 0"),
        ({"gamma": math.nan}, "loss.gamma: nan, want from 0"),
        ({"smooth": 0.0}, "loss.smooth: 0, want above 0"),
        ({"absent": "skiped"}, "did you mean 'skipped'"),
        ({"class_weights": [1.0, -1.0]}, "class_weights"),
        ({"class_weights": [0.0, 0.0]}, "not all 0"),
        ({"class_weights": [1.0, math.inf]}, "class_weights"),
    ],
)
def test_settings_out_of_range_are_rejected(arguments: dict[str, Any], fault: str) -> None:
    with pytest.raises(SettingError, match=fault):
        CombinedLoss(**arguments)


def test_all_faults_are_reported_at_once() -> None:
    with pytest.raises(SettingError) as caught:
        CombinedLoss(ce_weight=-1.0, gamma=-2.0)
    assert len(caught.value.faults) == 2


def test_a_configured_loss_weighs_classes_by_inverse_frequency() -> None:
    loss = create_loss(class_counts=(90, 30, 0), gamma=2.0, absent="skipped", ignore_index=9)
    assert loss.class_weights is not None
    assert loss.class_weights.tolist() == [0.5, 1.5, 1.0]
    assert (loss.gamma, loss.absent, loss.ignore_index) == (2.0, "skipped", 9)


def test_a_configured_loss_caps_the_ratio_of_the_weights() -> None:
    loss = create_loss(class_counts=(10**6, 1), weight_cap=3.0)
    assert loss.class_weights is not None
    assert loss.class_weights.tolist() == [0.5, 1.5]


def test_class_weights_can_be_turned_off() -> None:
    assert create_loss(class_counts=(90, 30), class_weights=False).class_weights is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("ce_weight", -0.1), ("dice_weight", math.inf), ("weight_cap", 0.9), ("gamma", math.nan), ("absent", "skip")],
)
def test_annotations_reject_values_out_of_range(name: str, value: Any) -> None:
    hints = get_type_hints(create_loss, include_extras=True)
    with pytest.raises(ValidationError):
        TypeAdapter(hints[name]).validate_python(value)
