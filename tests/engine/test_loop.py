"""Training loop: reproducible epochs, and what stops them."""

from __future__ import annotations

import copy
import math
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fireseg import hardware
from fireseg.batch import Batch
from fireseg.engine import Engine, Interrupted, Interrupts, TrainingState
from fireseg.engine.loop import derive_seed
from fireseg.engine.losses import CHECK_EVERY, FiniteLossCheck
from fireseg.engine.optimizer import adamw
from fireseg.engine.scheduler import cosine
from fireseg.errors import FiresegError
from fireseg.loss import CombinedLoss
from fireseg.metric import CombinedMetrics


class Loader:
    """Yields a few batches that are a function of the epoch."""

    def __init__(self, epoch: int, num_batches: int, offset: float = 0.0) -> None:
        self.epoch, self.num_batches, self.offset = epoch, num_batches, offset

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(self.epoch)
        for number in range(self.num_batches):
            mask = (torch.rand(2, 32, 32, generator=generator) > 0.5).to(torch.uint8)
            image = torch.rand(2, 3, 32, 32, generator=generator) * 0.1 + mask[:, None] * 0.3
            if number == 1:
                image[0, 0, 0, 0] += self.offset
            yield Batch(image, mask, (f"b{number}_0", f"b{number}_1"))


class Data:
    """Loaders of random batches."""

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset

    def train_dataloader(self, epoch: int) -> Loader:
        return Loader(epoch, 4, self.offset)

    def val_dataloader(self) -> Loader:
        return Loader(0, 2)


class Net(nn.Module):
    """Two convolutions with batch norm and dropout, which have state."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Conv2d(4, 2, 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


def create_state(engine: Engine) -> TrainingState:
    torch.manual_seed(0)
    model = engine.to_device(Net())
    optimizer = adamw(model.parameters(), lr=1e-2)
    return engine.create_state(model, optimizer, cosine(optimizer, epochs=engine.epochs))


def run(engine: Engine, state: TrainingState, data: Data | None = None, interrupts: Interrupts | None = None):
    metrics = CombinedMetrics(2)
    return engine.run(state, data or Data(), loss=CombinedLoss(), metrics=metrics, seed=7, interrupts=interrupts)


def weights(state: TrainingState) -> list[Tensor]:
    return [value.clone() for value in state.model.state_dict().values()]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_resuming_is_bit_equal_to_an_uninterrupted_run(ema_decay: float | None):
    engine = Engine(epochs=4, device="cpu", ema_decay=ema_decay)
    whole = create_state(engine)
    rows = [epoch.row() for epoch in run(engine, whole)]

    first = create_state(engine)
    epochs = run(engine, first)
    for _ in range(2):
        next(epochs)
    saved = dict(first.state_dict())
    torch.rand(1000)  # other use of the global generator
    second = create_state(engine)
    second.load_state_dict(saved)
    rest = [epoch.row() for epoch in run(engine, second)]

    assert equal(weights(whole), weights(second))
    clock = {"seconds", "images_per_second"}
    for one, other in zip(rows[2:], rest, strict=True):
        assert {k: v for k, v in one.items() if k not in clock} == {k: v for k, v in other.items() if k not in clock}


def test_a_run_in_bf16_is_resumed_in_bf16_bit_by_bit_on_a_cpu_that_would_choose_fp32(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hardware, "get_cpu_flags", lambda: frozenset({"amx_bf16"}))
    engine = Engine(epochs=2, device="cpu")
    assert engine.precision == "bf16"
    whole = create_state(engine)
    rows = [epoch.row() for epoch in run(engine, whole)]
    first = create_state(engine)
    next(run(engine, first))
    saved = dict(first.state_dict())

    monkeypatch.setattr(hardware, "get_cpu_flags", lambda: frozenset({"avx2"}))
    resumed = Engine(epochs=2, device="cpu")
    assert resumed.precision == "fp32"
    resumed.keep_precision("bf16")
    assert resumed.precision == "bf16"
    second = create_state(resumed)
    second.load_state_dict(saved)
    (row,) = [epoch.row() for epoch in run(resumed, second)]
    assert equal(weights(whole), weights(second))
    assert row["val/loss"] == rows[1]["val/loss"]

    in_fp32 = create_state(Engine(epochs=2, device="cpu"))
    in_fp32.load_state_dict(saved)
    list(run(Engine(epochs=2, device="cpu"), in_fp32))
    assert not equal(weights(whole), weights(in_fp32))


def test_a_run_of_an_earlier_version_goes_on_in_fp32_and_a_precision_of_the_settings_wins(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(hardware, "get_cpu_flags", lambda: frozenset({"amx_bf16"}))
    engine = Engine(device="cpu")
    engine.keep_precision(None)
    assert engine.precision == "fp32"
    engine = Engine(device="cpu", precision="fp32")
    engine.keep_precision("bf16")
    assert engine.precision == "fp32"


def test_training_learns_and_reports_losses_and_metrics():
    engine = Engine(epochs=20, device="cpu")

    epochs = list(run(engine, create_state(engine)))

    assert [epoch.number for epoch in epochs] == list(range(1, 21))
    assert epochs[-1].train["loss"] < epochs[0].train["loss"]
    assert epochs[-1].val["fire_iou"] > 0.9
    assert next(iter(epochs[0].row())) == "val/fire_iou"
    assert {"train/ce_loss", "train/dice_loss", "val/detection_f1", "lr", "images_per_second"} <= set(epochs[0].row())
    assert epochs[1].lr < epochs[0].lr == 1e-2


def test_a_loss_that_is_not_finite_names_epoch_step_and_patches():
    engine = Engine(epochs=2, device="cpu")

    with pytest.raises(FiresegError, match=r"epoch 1, step 2: .*b1_0, b1_1.*optimizer\.lr"):
        list(run(engine, create_state(engine), Data(offset=math.inf)))


def test_a_deferred_signal_stops_after_the_step_and_the_epoch_does_not_count():
    engine = Engine(epochs=2, device="cpu")
    state = create_state(engine)

    class SignallingData(Data):
        def train_dataloader(self, epoch: int) -> Loader:
            if epoch == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().train_dataloader(epoch)

    with Interrupts() as interrupts, interrupts.deferred(), pytest.raises(Interrupted) as caught:
        list(run(engine, state, SignallingData(), interrupts))

    assert caught.value.exit_code == 143
    assert state.epoch == 1


def test_limit_batches_limits_both_splits():
    seen: list[tuple[str, int]] = []
    engine = Engine(epochs=1, device="cpu", limit_batches=1)

    def progress_bar(batches, label):
        seen.append((label, len(batches)))
        return batches

    list(
        engine.run(
            create_state(engine),
            Data(),
            loss=CombinedLoss(),
            metrics=CombinedMetrics(2),
            seed=0,
            progress_bar=progress_bar,
        )
    )

    assert seen == [("epoch 1 train", 1), ("epoch 1 val", 1)]


def test_the_ema_of_the_weights_is_validated_and_saved():
    engine = Engine(epochs=1, device="cpu", ema_decay=0.5)
    state = create_state(engine)

    list(run(engine, state))

    assert state.eval_model is not state.model
    assert not equal(weights(state), list(state.eval_model.state_dict().values()))


def test_out_of_memory_names_the_batch_size_to_try():
    engine = Engine(epochs=1, device="cpu")
    state = create_state(engine)

    class LargeNet(Net):
        def forward(self, image: Tensor) -> Tensor:
            return super().forward(image) + torch.empty(2**50)

    state.model = LargeNet()

    with pytest.raises(FiresegError, match=r"data\.batch_size: 2 patches do not fit.*try data\.batch_size=1"):
        list(run(engine, state))


def test_fp16_scales_gradients_and_skips_a_step_on_overflow():
    engine = Engine(epochs=1, device="cpu", precision="fp16")
    state = create_state(engine)
    state.scaler.load_state_dict({**state.scaler.state_dict(), "scale": 2.0**120})
    before = weights(state)

    epochs = list(run(engine, state))

    assert math.isfinite(epochs[0].train["loss"])
    assert state.scaler.get_scale() < 2.0**120
    assert torch.equal(before[0], state.model.state_dict()["layers.0.weight"])


def test_derived_seeds_are_distinct():
    assert len({derive_seed(seed, epoch) for seed in range(20) for epoch in range(20)}) == 400


def test_losses_are_checked_every_fiftieth_step_and_the_first_bad_one_is_named():
    check = FiniteLossCheck(3, torch.device("cpu"))
    for number in range(1, CHECK_EVERY):
        loss = torch.tensor(math.nan if number in (7, 9) else 1.0)
        check.update(number, loss, (f"p{number}",))

    with pytest.raises(FiresegError, match=r"epoch 3, step 7: .*p7;"):
        check.update(CHECK_EVERY, torch.tensor(1.0), ("p50",))


def change_optimizer(state: dict[str, Any]) -> None:
    state["optimizer"] = torch.optim.SGD(Net().parameters(), lr=0.1).state_dict()


def change_shape(state: dict[str, Any]) -> None:
    state["optimizer"]["state"][0]["exp_avg"] = torch.zeros(3)


@pytest.mark.parametrize(
    "change",
    [
        change_optimizer,
        change_shape,
        lambda state: state["optimizer"].update(param_groups=[]),
        lambda state: state.update(epoch=-5),
        lambda state: state.update(epoch="two"),
        lambda state: state.update(optimizer="none"),
        lambda state: state.update(scheduler=None),
        lambda state: state.pop("model"),
        lambda state: state.pop("scaler"),
        lambda state: state["model"].popitem(),
    ],
)
def test_a_foreign_state_is_refused(change: Callable[[dict[str, Any]], object]):
    engine = Engine(epochs=1, device="cpu")
    trained = create_state(engine)
    list(run(engine, trained))
    state = copy.deepcopy(trained.state_dict())
    change(state)

    with pytest.raises(FiresegError, match="the state of another model, optimizer or scheduler"):
        create_state(engine).load_state_dict(state)
