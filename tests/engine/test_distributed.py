"""Training in shards, by one process and by several."""

from __future__ import annotations

import copy
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fireseg.batch import Batch, Sharding
from fireseg.engine import Engine, Processes, TrainingState
from fireseg.engine.distributed import sum_tree
from fireseg.engine.shards import ShardedStep
from fireseg.errors import SettingError
from fireseg.loss import CombinedLoss
from tests.engine.builders import Net, create_state, run_in_shards, start_processes
from tests.processes import ForkedProcess

CLOCK = {"seconds", "images_per_second"}

PROGRAM = """
import os, sys, signal, torch
from fireseg.engine import Engine, Interrupts, Processes
from fireseg.engine.distributed import connect, disconnect
from tests.engine.builders import create_state, run_in_shards
torch.set_num_threads(1)
connect()
processes = Processes.current()
engine = Engine(device="cpu", threads=1, **eval(sys.argv[1]))
state = create_state(engine)
{before}
with Interrupts() as interrupts, interrupts.deferred():
    rows = [epoch.row() for epoch in run_in_shards(engine, state, interrupts)]
torch.save([rows, state.state_dict()], f"{{sys.argv[2]}}/{{processes.rank}}.pt")
disconnect()
"""


def train_alone(**settings: Any) -> tuple[list[dict[str, float]], dict[str, Any]]:
    engine = Engine(device="cpu", threads=1, **settings)
    state = create_state(engine)
    return [epoch.row() for epoch in run_in_shards(engine, state)], state.state_dict()


def start(folder: Path, size: int, before: str = "", **settings: Any) -> list[ForkedProcess]:
    return start_processes(PROGRAM.format(before=before), size, [repr(settings), str(folder)])


def join(processes: list[ForkedProcess]) -> list[tuple[int | None, str]]:
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    return [(process.returncode, output) for process, output in zip(processes, outputs, strict=True)]


def without_clock(rows: list[dict[str, float]]) -> list[dict[str, str]]:
    # As texts: undefined scores are NaN, which equals nothing.
    return [{name: repr(value) for name, value in row.items() if name not in CLOCK} for row in rows]


def are_equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(are_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(are_equal, one, other))
    return one == other


@pytest.mark.parametrize("size", [2, 4])
def test_a_training_is_the_same_to_the_bit_on_one_and_on_several_processes(size: int, tmp_path: Path):
    settings = {"epochs": 3, "shards": 4, "ema_decay": 0.9}
    rows, state = train_alone(**settings)

    assert [code for code, _ in join(start(tmp_path, size, **settings))] == [0] * size

    for rank in range(size):
        other_rows, other_state = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert without_clock(other_rows) == without_clock(rows)
        assert are_equal(other_state, state)


def test_a_limit_of_batches_counts_those_of_all_processes(tmp_path: Path):
    settings: dict[str, Any] = {"epochs": 1, "shards": 2, "limit_batches": 1}
    rows, _ = train_alone(**settings)

    join(start(tmp_path, 2, **settings))

    assert without_clock(torch.load(tmp_path / "1.pt", weights_only=True)[0]) == without_clock(rows)


def test_the_fast_reduction_differs_by_rounding_only(tmp_path: Path):
    _, state = train_alone(epochs=1, shards=4)

    join(start(tmp_path, 4, epochs=1, shards=4, reduce="fast"))

    for name, values in torch.load(tmp_path / "3.pt", weights_only=True)[1]["model"].items():
        torch.testing.assert_close(values, state["model"][name], rtol=1e-3, atol=1e-4)


def test_a_signal_to_one_process_stops_all_in_the_same_step(tmp_path: Path):
    before = """
original, steps = type(state).apply_gradients, []
def apply_gradients(self, *, clip_norm):
    original(self, clip_norm=clip_norm)
    steps.append(1)
    print("step", len(steps), flush=True)
    if processes.rank == 1 and len(steps) == 3: os.kill(os.getpid(), signal.SIGTERM)
type(state).apply_gradients = apply_gradients
"""
    for _, output in join(start(tmp_path, 2, before, epochs=5, shards=2)):
        assert re.findall(r"step \d", output) == ["step 1", "step 2", "step 3"]
        assert output.endswith("Interrupted: SIGTERM\n")


def test_a_killed_process_ends_the_others_with_one_error(tmp_path: Path):
    before = """
if processes.rank == 1:
    type(state).apply_gradients = lambda self, *, clip_norm: os.kill(os.getpid(), signal.SIGKILL)
"""
    (code, output), (killed, _) = join(start(tmp_path, 2, before, epochs=5, shards=2))

    assert killed == -signal.SIGKILL
    assert code == 1
    assert re.search(r"LostProcessError: torchrun: a process of this run has ended.*resume=RUN_FOLDER", output)


def test_a_loss_that_is_not_finite_names_the_patches_of_all_processes(tmp_path: Path):
    before = """
from fireseg.loss import CombinedLoss
CombinedLoss.combine = lambda self, sums: (sums.sum() * float("nan"), {"ce_loss": sums[0].detach()})
"""
    for code, output in join(start(tmp_path, 2, before, epochs=1, shards=2)):
        assert code == 1
        assert len(re.findall(r"\bp\d+\b", output.splitlines()[-1])) == 8


def test_shards_are_added_pairwise():
    small = 2.0**-24  # half a unit in the last place of 1: lost if it is added to 1 alone
    assert sum_tree(torch.tensor([1.0, 0.0, small, small]).unbind()).item() == 1.0 + 2.0**-23
    assert sum_tree(torch.tensor([small, 1.0, small, 0.0]).unbind()).item() == 1.0


@pytest.mark.parametrize(
    ("size", "cure"), [(2, r"engine\.shards=2, or start"), (3, "must divide it; start 1, 2, 4, 8")]
)
def test_processes_that_do_not_divide_the_shards_are_refused(size: int, cure: str):
    with pytest.raises(SettingError, match=rf"engine\.shards: 1, but torchrun started {size} .*{cure}"):
        Processes(0, size).check_shards(1)


LOSSES: list[Callable[[], CombinedLoss]] = [
    CombinedLoss,
    lambda: CombinedLoss(0.3, 2.0, class_weights=[1.0, 5.0], gamma=2.0, absent="skipped"),
    lambda: CombinedLoss(tversky_weight=1.0, ordinal_weight=1.0, boundary_weight=0.1, label_smoothing=0.1),
]


@pytest.mark.parametrize("create_loss", LOSSES)
def test_shards_have_the_loss_and_the_gradient_of_the_whole_batch(create_loss: Callable[[], CombinedLoss]):
    torch.manual_seed(0)
    loss, model = create_loss().double(), torch.nn.Conv2d(3, 2, 3, padding=1).double()
    image, mask = torch.rand(7, 3, 16, 16, dtype=torch.float64), torch.randint(0, 2, (7, 16, 16))
    mask[0] = 0
    mask[1] = mask[2, :8] = 255
    total, parts = loss(model(image), mask)
    expected = torch.autograd.grad(total, list(model.parameters()))
    state = TrainingState(copy.deepcopy(model), torch.optim.SGD(model.parameters(), lr=0.0))
    step = ShardedStep(state.model, loss, Sharding(4), Processes(), is_exact=True)

    result = step.take(
        state,
        Batch(image, mask, tuple("abcdefg"), (2, 2, 3, 0)),
        predict=lambda model, batch: (model(batch.image), batch.mask),
        derive_seed=lambda shard: shard,
        clip_norm=None,
    )

    assert result.loss.item() == pytest.approx(total.item(), rel=1e-12)
    assert {name: part.item() for name, part in result.parts.items()} == pytest.approx(
        {name: part.item() for name, part in parts.items()}, rel=1e-12
    )
    for parameter, gradient in zip(state.model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=1e-14)


def test_running_statistics_change_by_the_mean_of_the_changes_of_the_shards():
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(1, momentum=0.5), torch.nn.Conv2d(1, 2, 1))
    state = TrainingState(model, torch.optim.SGD(model.parameters(), lr=0.0))
    image = torch.tensor([1.0, 3.0, 5.0, 7.0]).view(4, 1, 1, 1).expand(4, 1, 4, 4)
    step = ShardedStep(model, CombinedLoss(), Sharding(2), Processes(), is_exact=True)

    step.take(
        state,
        Batch(image, torch.ones(4, 4, 4, dtype=torch.uint8), tuple("abcd"), (2, 2)),
        predict=lambda model, batch: (model(batch.image), batch.mask),
        derive_seed=lambda shard: shard,
        clip_norm=None,
    )

    buffers = dict(model.named_buffers())
    assert buffers["0.running_mean"].item() == 2.0  # half of 2 and half of 6, averaged
    assert buffers["0.running_var"].item() == pytest.approx(0.5 + 0.5 * 32 / 31)
    assert buffers["0.num_batches_tracked"].item() == 1


def test_parameters_that_take_no_part_are_not_changed():
    engine = Engine(device="cpu", epochs=1, shards=2)
    state = create_state(engine)
    model = state.model
    assert isinstance(model, Net)
    before = model.unused.weight.detach().clone()

    list(run_in_shards(engine, state))

    assert torch.equal(model.unused.weight, before)


@pytest.mark.parametrize("shards", [0, 3, 6])
def test_a_number_of_shards_that_is_no_power_of_two_is_refused(shards: int):
    from fireseg import config

    with pytest.raises(SettingError, match=rf"engine\.shards: {shards}, but it must be 1 or a power of two"):
        config.compose_settings([f"engine.shards={shards}"])


@pytest.mark.parametrize(("batch_size", "cure"), [(6, "use 8 or 12"), (4, "use 8 or 12"), (18, "use 16 or 20")])
def test_a_batch_that_the_shards_do_not_divide_is_refused(batch_size: int, cure: str):
    from fireseg import config

    with pytest.raises(SettingError, match=rf"data\.batch_size: {batch_size}, but engine\.shards=4 .*{cure}"):
        config.compose_settings(["engine.shards=4", f"data.batch_size={batch_size}"])
