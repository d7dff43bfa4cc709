"""Learning-rate schedulers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fireseg.engine.optimizer import adamw, sgd
from fireseg.engine.scheduler import cosine, plateau, step

NAN = math.nan


def test_cosine_warms_up_then_falls_to_min_lr():
    optimizer = sgd([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = cosine(optimizer, epochs=6, warmup_epochs=2, min_lr=0.1)
    rates = []
    for _ in range(7):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        step(scheduler, 0.0)

    expected = [1 / 3, 2 / 3, *(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * n / 4)) for n in range(5))]
    assert rates == pytest.approx(expected)


def test_plateau_ignores_nan_scores():
    optimizer = adamw([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = plateau(optimizer, factor=0.5, patience=1)
    for score in [0.5, NAN, NAN, NAN, 0.4]:
        step(scheduler, score)
    assert optimizer.param_groups[0]["lr"] == 1.0
    step(scheduler, 0.4)
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_a_step_without_a_scheduler_does_nothing():
    step(None, 0.5)
