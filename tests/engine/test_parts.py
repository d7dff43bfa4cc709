"""The parts of the engine one by one."""

from __future__ import annotations

import math
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from fireseg.engine import Checkpoints, EarlyStopping, Interrupted, Interrupts, get_device
from fireseg.engine import device as device_module
from fireseg.engine.device import get_autocast_dtype, set_threads
from fireseg.engine.loop import CHECK_EVERY, FiniteLossCheck
from fireseg.engine.optimizer import adamw, sgd
from fireseg.engine.scheduler import cosine, plateau, step
from fireseg.errors import FiresegError, SettingError

NAN = math.nan


def test_auto_takes_the_best_device_that_is_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert get_device("auto").type == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert get_device("auto").type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert get_device("auto").type == "cuda"


def test_a_device_that_is_not_there_is_refused_with_those_that_are(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingError, match=r"engine\.device: cuda .*use auto, or one of: .*cpu"):
        get_device("cuda")
    with pytest.raises(SettingError, match="one of auto, cuda, mps, cpu"):
        get_device("tpu")


def test_precision_follows_the_hardware(monkeypatch: pytest.MonkeyPatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert get_autocast_dtype(cpu, "auto") is None
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    assert get_autocast_dtype(cuda, "auto") is torch.float16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert get_autocast_dtype(cuda, "auto") is torch.bfloat16
    assert get_autocast_dtype(cuda, "fp32") is None


def test_bf16_on_a_cpu_wants_its_instructions(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(device_module, "_cpu_flags", lambda: {"avx2"})
    with pytest.raises(SettingError, match=r"engine\.precision: bf16 would be emulated"):
        get_autocast_dtype(torch.device("cpu"), "bf16")
    monkeypatch.setattr(device_module, "_cpu_flags", lambda: {"avx512_bf16"})
    assert get_autocast_dtype(torch.device("cpu"), "bf16") is torch.bfloat16


def test_threads_are_those_asked_for_else_those_of_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert (set_threads(2), set_threads(None)) == (2, 3)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert set_threads(None) >= 1


def test_stopping_counts_the_epochs_since_the_best():
    stopping = EarlyStopping(patience=2)

    assert [stopping.update(n, score) for n, score in enumerate([0.2, 0.5, 0.5, 0.4], 1)] == [True, True, False, False]
    assert (stopping.is_over, stopping.best_epoch, stopping.best_score) == (True, 2, 0.5)


def test_a_score_that_is_no_number_is_never_better_and_is_an_epoch_without_improvement():
    stopping = EarlyStopping(patience=3)

    assert [stopping.update(n, score) for n, score in enumerate([NAN, 0.1, NAN], 1)] == [False, True, False]
    assert (stopping.best_epoch, stopping.waited) == (2, 1)


def test_without_patience_training_is_never_over():
    stopping = EarlyStopping(patience=0)
    for epoch in range(100):
        stopping.update(epoch, 0.0)
    assert not stopping.is_over


def test_stopping_goes_on_where_it_was_with_the_patience_of_today():
    before = EarlyStopping(patience=1)
    before.update(1, 0.5)
    before.update(2, 0.4)
    after = EarlyStopping(patience=5)

    after.load_state_dict(before.state_dict())

    assert (before.is_over, after.is_over, after.best_score, after.waited) == (True, False, 0.5, 1)


def test_only_the_newest_numbered_checkpoints_stay(tmp_path: Path):
    checkpoints = Checkpoints(tmp_path / "c", every=5, keep=2)
    for epoch in range(1, 23):
        checkpoints.save_state(epoch, {"epoch": epoch})

    names = sorted(path.name for path in (tmp_path / "c").iterdir())

    assert names == ["checkpoint_epoch_15.pt", "checkpoint_epoch_20.pt", "last.pt"]
    assert torch.load(tmp_path / "c" / "last.pt", weights_only=True) == {"epoch": 22}


def test_the_finite_flag_is_read_every_fiftieth_step_and_names_the_first_bad_one():
    watch = FiniteLossCheck(3, torch.device("cpu"))
    for number in range(1, CHECK_EVERY):
        loss = torch.tensor(NAN if number in (7, 9) else 1.0)
        watch.see(number, loss, (f"p{number}",))

    with pytest.raises(FiresegError, match=r"epoch 3, step 7: .*the patches were p7;"):
        watch.see(CHECK_EVERY, torch.tensor(1.0), ("p50",))


def test_cosine_warms_up_then_falls_to_its_floor():
    optimizer = sgd([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = cosine(optimizer, epochs=6, warmup_epochs=2, min_lr=0.1)
    rates = []
    for _ in range(7):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        step(scheduler, 0.0)

    expected = [1 / 3, 2 / 3, *(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * n / 4)) for n in range(5))]
    assert rates == pytest.approx(expected)


def test_a_plateau_is_told_scores_and_is_not_told_what_is_no_number():
    optimizer = adamw([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = plateau(optimizer, factor=0.5, patience=1)
    for score in [0.5, NAN, NAN, NAN, 0.4]:
        step(scheduler, score)
    assert optimizer.param_groups[0]["lr"] == 1.0
    step(scheduler, 0.4)
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_without_a_scheduler_a_step_does_nothing():
    step(None, 0.5)


def test_a_signal_outside_a_step_is_obeyed_at_once():
    with Interrupts(), pytest.raises(Interrupted) as caught:
        signal.raise_signal(signal.SIGINT)
    assert caught.value.exit_code == 130


def test_a_second_signal_does_not_wait():
    with Interrupts() as interrupts, interrupts.deferred():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGTERM)


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
