"""The mean of the weights after the last epochs (stochastic weight averaging)."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fireseg.engine import Engine, TrainingState
from fireseg.errors import SettingError
from fireseg.loss import CombinedLoss
from fireseg.metric import CombinedMetrics
from tests.engine.test_loop import Data, Net, create_state, run


def make_engine(**options: Any) -> Engine:
    return Engine(**{"epochs": 4, "swa_epochs": 3, "device": "cpu", "precision": "fp32", **options})


def judge(engine: Engine, state: TrainingState) -> dict[str, float]:
    return engine.validate_average(state, Data(), loss=CombinedLoss(), metrics=CombinedMetrics(2), seed=7)


def get_weights(state: TrainingState) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in state.model.parameters()]


def test_the_weights_are_the_mean_of_those_after_the_last_epochs() -> None:
    engine = make_engine()
    state = create_state(engine)
    after = [get_weights(state) for _ in run(engine, state)]
    assert state.swa_model is not None
    assert (state.swa_start, int(state.swa_model.n_averaged)) == (2, 3)
    for mean, *values in zip(state.swa_model.module.parameters(), *after[1:], strict=True):
        torch.testing.assert_close(mean, sum(values[1:], values[0]) / 3)
        assert not torch.equal(mean, values[-1])


def test_batch_norm_has_the_statistics_of_all_training_batches_and_val_is_scored_with_them() -> None:
    engine = make_engine()
    state = create_state(engine)
    for _ in run(engine, state):
        pass
    last = copy.deepcopy(state.model.state_dict())
    scores = judge(engine, state)

    assert state.swa_model is not None
    assert isinstance(state.swa_model.module, Net)
    convolution, norm = state.swa_model.module.layers[:2]
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        outputs = [convolution(batch.image) for batch in Data().train_dataloader(4)]
    expected = torch.stack([output.mean((0, 2, 3)) for output in outputs]).mean(0)
    torch.testing.assert_close(norm.running_mean, expected)
    expected = torch.stack([output.var((0, 2, 3)) for output in outputs]).mean(0)
    torch.testing.assert_close(norm.running_var, expected)
    assert norm.momentum == 0.1

    loss, metrics, total = CombinedLoss(), CombinedMetrics(2), 0.0
    with torch.no_grad():
        for batch in Data().val_dataloader():
            logits = state.swa_model.module.eval()(batch.image)
            total += float(loss(logits, batch.mask)[0]) / 2
            metrics.update(logits, batch.mask)
    assert scores["loss"] == pytest.approx(total, rel=1e-5)
    assert scores["fire_iou"] == pytest.approx(metrics.compute()["fire_iou"])
    assert all(torch.equal(value, state.model.state_dict()[name]) for name, value in last.items())


@pytest.mark.parametrize("epoch", [1, 2, 4])
def test_a_resumed_training_has_the_same_mean_to_the_bit(epoch: int) -> None:
    engine = make_engine()
    whole = create_state(engine)
    saved: dict[str, Any] = {}
    for each in run(engine, whole):
        if each.number == epoch:
            saved = copy.deepcopy(whole.state_dict())
    resumed = create_state(engine)
    resumed.load_state_dict(saved)
    for _ in run(engine, resumed):
        pass
    assert judge(engine, resumed) == judge(engine, whole)
    assert whole.swa_model is not None
    assert resumed.swa_model is not None
    state = resumed.swa_model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in whole.swa_model.state_dict().items())


def test_without_it_the_state_is_what_it_was() -> None:
    engine = make_engine(epochs=1, swa_epochs=0)
    state = create_state(engine)
    for _ in run(engine, state):
        pass
    assert "swa" not in state.state_dict()


def test_other_epochs_are_refused_once_the_mean_has_begun() -> None:
    engine = make_engine()
    state = create_state(engine)
    for epoch in run(engine, state):
        if epoch.number == 2:
            break
    with pytest.raises(SettingError, match=r"engine\.epochs: 9, .*begun with epoch 2; use engine\.epochs=4"):
        next(iter(run(make_engine(epochs=9), state)))
    state = create_state(engine)
    next(iter(run(make_engine(epochs=9), state)))
    with pytest.raises(SettingError, match=r"not begun after epoch 1; use engine\.epochs=4 or more"):
        next(iter(run(make_engine(epochs=3), state)))


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"swa_epochs": 5}, r"engine\.swa_epochs: 5, but engine\.epochs is 4; use at most as many"),
        ({"ema_decay": 0.9}, r"engine\.swa_epochs: 3 averages what engine\.ema_decay=0\.9 has averaged"),
        ({"shards": 2}, r"engine\.swa_epochs: 3 recomputes batch norm in one process, .*engine\.shards=2"),
    ],
)
def test_what_excludes_the_mean_is_told(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(SettingError, match=fault):
        make_engine(**options)
