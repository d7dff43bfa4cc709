"""Training loop: trains and validates epoch by epoch."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from fireseg.batch import EMPTY_BATCH, Batch, Sharding
from fireseg.engine import scheduler
from fireseg.engine.accumulate import forward_in_parts, group_batches
from fireseg.engine.device import (
    PRECISION_DTYPES,
    DeviceName,
    PrecisionName,
    autocast,
    get_autocast_dtype,
    get_device,
    get_memory_format,
    out_of_memory_as,
    set_threads,
)
from fireseg.engine.distributed import SINGLE_PROCESS, Processes
from fireseg.engine.losses import FiniteLossCheck, LossMeans
from fireseg.engine.optimizer import current_lr
from fireseg.engine.shards import Loss, ShardedStep, StepResult
from fireseg.engine.signals import Interrupts
from fireseg.engine.state import TrainingState
from fireseg.errors import FiresegError, SettingError
from fireseg.task import select_main_task

log = logging.getLogger("fireseg")


class SizedIterable(Protocol):
    """An iterable of batches with a length."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


ProgressBar = Callable[[SizedIterable, str], Iterable[Batch]]

Step = Callable[[Sequence[Batch], int, int], StepResult]


class Epoch(NamedTuple):
    """Results of one epoch.

    Attributes:
        number: Epoch number, from 1.
        train: Loss, its parts and the metrics over the training batches, accumulated during the epoch.
        val: Loss, its parts and the metrics over the validation split, after the epoch.
        lr: Learning rate of the epoch.
        seconds: Wall time including validation.
        images_per_second: Training throughput.
    """

    number: int
    train: dict[str, float]
    val: dict[str, float]
    lr: float
    seconds: float
    images_per_second: float

    def row(self) -> dict[str, float]:
        """Returns one flat row. The selection score is first, because trackers show metrics in this order."""
        return {
            "val/fire_iou": self.val["fire_iou"],
            **{f"val/{name}": value for name, value in self.val.items()},
            **{f"train/{name}": value for name, value in self.train.items()},
            "lr": self.lr,
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
        }


class Metrics(Protocol):
    """Running metrics of one split."""

    def reset(self) -> None:
        """Discards all batches."""
        ...

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Adds one batch: logits (B, K, H, W) and classes (B, H, W)."""
        ...

    def sync(self, add: Callable[[Tensor], Tensor]) -> None:
        """Adds the counts of several processes, each by `add`."""
        ...

    def compute(self) -> dict[str, float]:
        """Returns the metrics of the batches since the last reset."""
        ...


class EpochData(Protocol):
    """Training and validation batches."""

    def train_dataloader(self, epoch: int) -> SizedIterable:
        """Returns the batches of a training epoch, a function of its number."""
        ...

    def val_dataloader(self) -> SizedIterable:
        """Returns the validation batches, always the same."""
        ...


def check_power_of_two(number: int) -> int:
    """Returns the number.

    Raises:
        ValueError: If it is not a power of two.
    """
    if number < 1 or number & (number - 1):
        raise ValueError(f"{number}, but it must be 1 or a power of two, such as {1 << max(number, 1).bit_length()}")
    return number


class Engine:
    """Trains and validates a model epoch by epoch.

    Args:
        epochs: Total number of epochs.
        precision: `fp32`, `bf16`, `fp16`, or `auto` for the fastest that the device supports.
        clip_norm: Largest norm of the gradient, or None for no clipping.
        ema_decay: Decay per step of the exponential moving average of the weights, or None for no average.
        accumulate: Number of batches per optimizer step, see `fireseg.engine.accumulate`.
        limit_batches: Number of batches per epoch of each split, for quick runs; None for all.
        threads: CPU threads of torch; None for the cores available to the process.
        device: `auto`, `cuda`, `mps` or `cpu`.
        shards: Number of parts of each training batch that one or several processes compute, a power of two; with 1
            a batch is not divided. The result depends on it, but not on the number of processes.
        swa_epochs: Number of last epochs after each of which the weights are averaged (SWA), see `validate_average`; 0
            for no average.
        reduce: `exact` adds the gradients of the shards in a fixed order, which gives the same result to the bit for
            any number of processes; `fast` leaves the order to the backend.

    Attributes:
        device: Device of the model.
        shards: Number of shards.
        swa_epochs: Number of last epochs whose weights are averaged.

    Raises:
        SettingError: If settings exclude one another; with all faults.
    """

    def __init__(
        self,
        *,
        epochs: PositiveInt = 50,
        precision: PrecisionName = "auto",
        clip_norm: PositiveFloat | None = 1.0,
        ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None,
        accumulate: PositiveInt = 1,
        limit_batches: PositiveInt | None = None,
        threads: PositiveInt | None = None,
        device: DeviceName = "auto",
        shards: Annotated[int, AfterValidator(check_power_of_two)] = 1,
        reduce: Literal["exact", "fast"] = "exact",
        swa_epochs: NonNegativeInt = 0,
    ) -> None:
        faults = []
        if accumulate > 1 and shards > 1:
            faults.append(
                f"engine.accumulate: {accumulate} batches cannot be divided into engine.shards={shards}; "
                "use one of them, and a smaller data.batch_size if memory is short"
            )
        if swa_epochs > epochs:
            faults.append(f"engine.swa_epochs: {swa_epochs}, but engine.epochs is {epochs}; use at most as many")
        if swa_epochs and ema_decay is not None:
            faults.append(
                f"engine.swa_epochs: {swa_epochs} averages what engine.ema_decay={ema_decay:g} has averaged; use one"
            )
        if swa_epochs and shards > 1:
            faults.append(
                f"engine.swa_epochs: {swa_epochs} recomputes batch norm in one process, without "
                f"engine.shards={shards}; use one of them"
            )
        if faults:
            raise SettingError(*faults)
        self.swa_epochs = swa_epochs
        self.epochs = epochs
        self.shards = shards
        self.clip_norm = clip_norm
        self.accumulate = accumulate
        self.limit_batches = limit_batches
        self.device = get_device(device)
        set_threads(threads)
        self._is_exact = reduce == "exact"
        self._ema_decay = ema_decay
        self._is_automatic = precision == "auto"
        self._dtype = get_autocast_dtype(self.device, precision)

    @property
    def precision(self) -> str:
        """Precision of forward passes, `fp32`, `bf16` or `fp16`."""
        return next(name for name, dtype in PRECISION_DTYPES.items() if dtype is self._dtype)

    def keep_precision(self, precision: str | None) -> None:
        """Continues with the precision with which a run was begun, unless the settings name one.

        A run that was begun with float16, or on another kind of device, is continued with the precision of the device.

        Args:
            precision: Precision that the checkpoint of the run names; None for a checkpoint of earlier versions, which
                used float32 on every CPU.
        """
        is_cpu = self.device.type == "cpu"
        kept = precision or ("fp32" if is_cpu else None)
        if not self._is_automatic or kept not in ("fp32", "bf16") or (kept == "fp32" and not is_cpu):
            return
        if kept == "bf16" and is_cpu:
            log.warning("the run was begun in bf16, which is slow on this CPU; engine.precision=fp32 is not")
        self._dtype = PRECISION_DTYPES[kept]

    def to_device(self, model: nn.Module) -> nn.Module:
        """Moves a model to the device, in the memory layout in which convolutions run fastest."""
        return model.to(self.device, memory_format=get_memory_format(self.device))  # pyright: ignore[reportCallIssue] - missing in torch's stubs

    def create_state(self, model: nn.Module, optimizer: Any, scheduler: Any = None) -> TrainingState:
        """Returns the state before the first epoch."""
        return TrainingState(
            model, optimizer, scheduler=scheduler, is_scaled=self._dtype is torch.float16, ema_decay=self._ema_decay
        )

    def run(
        self,
        state: TrainingState,
        data: EpochData,
        *,
        loss: Loss,
        metrics: Metrics,
        seed: int,
        interrupts: Interrupts | None = None,
        processes: Processes = SINGLE_PROCESS,
        progress_bar: ProgressBar = lambda batches, label: batches,
    ) -> Iterator[Epoch]:
        """Trains from the epoch after `state.epoch` on and yields the results of each epoch.

        An epoch is a function of the state, the seed and its number. Random generators carry no state from
        epoch to epoch, so that resuming gives the same result as an uninterrupted run.

        Args:
            state: Training state, modified in place; when an epoch is yielded, it is the state after that epoch.
            data: Training and validation batches.
            loss: Function of logits and masks that returns the total and its named parts.
            metrics: Running metrics; reset for each split.
            seed: Seed of all random numbers.
            interrupts: Signals, checked after each step.
            processes: Processes that train together, each on its part of the batches; all yield the same results.
            progress_bar: Wraps the batches of a split in a progress bar, given its label.

        Raises:
            FiresegError: If a loss is not finite, or memory runs out.
            SettingError: If a mean of the weights has begun that is not that of the last epochs.
            Interrupted: If a signal was received.
            LostProcessError: If another process has ended.
        """
        interrupts = interrupts or Interrupts()
        self._check_average(state)
        step = self._create_step(state, loss, processes, seed)
        for number in range(state.epoch + 1, self.epochs + 1):
            torch.manual_seed(derive_seed(seed, number))
            start, lr = time.perf_counter(), current_lr(state.optimizer)
            batches = progress_bar(self._limited(data.train_dataloader(number)), f"epoch {number} train")
            train, num_images = self._train(state, batches, step, metrics, interrupts, processes, number)
            trained = time.perf_counter()
            batches = progress_bar(self._limited(data.val_dataloader(), processes), f"epoch {number} val")
            val = self._validate(state.eval_model, batches, loss, metrics, interrupts, processes)
            scheduler.step(state.scheduler, val["fire_iou"])
            state.epoch = number
            if number > self.epochs - self.swa_epochs:
                state.average_weights()
            end = time.perf_counter()
            yield Epoch(number, train, val, lr, end - start, num_images / (trained - start))

    def validate_average(
        self,
        state: TrainingState,
        data: EpochData,
        *,
        loss: Loss,
        metrics: Metrics,
        seed: int,
        interrupts: Interrupts | None = None,
        progress_bar: ProgressBar = lambda batches, label: batches,
    ) -> dict[str, float]:
        """Validates the mean of the weights after each of the last epochs (stochastic weight averaging).

        Its batch norm has the statistics of all training batches of the last epoch, augmented as in training; those of
        the last model would not fit other weights. The result is a function of the state and the seed.

        Args:
            state: State after the last epoch; the buffers of its `swa_model` are replaced.
            data: Training and validation batches.
            loss: As in `run`.
            metrics: Running metrics; reset.
            seed: Seed of all random numbers.
            interrupts: Signals, checked after each batch.
            progress_bar: As in `run`.

        Returns:
            Loss, its parts and the metrics over the validation split.

        Raises:
            FiresegError: If memory runs out.
            Interrupted: If a signal was received.
        """
        assert state.swa_model is not None
        interrupts = interrupts or Interrupts()
        model: nn.Module = state.swa_model.module
        torch.manual_seed(derive_seed(seed, self.epochs + 1))  # of dropout

        def read_images() -> Iterator[Tensor]:
            for batch in progress_bar(self._limited(data.train_dataloader(state.epoch)), "mean of weights, train"):
                yield batch.image.contiguous(memory_format=get_memory_format(self.device))
                SINGLE_PROCESS.check_interrupts(interrupts)

        with autocast(self.device, self._dtype):
            update_bn(read_images(), model, self.device)
        batches = progress_bar(self._limited(data.val_dataloader()), "mean of weights, val")
        return self._validate(model, batches, loss, metrics, interrupts, SINGLE_PROCESS)

    def _check_average(self, state: TrainingState) -> None:
        """Checks that the mean of the weights in a state is that of the last epochs, so far."""
        start = self.epochs - self.swa_epochs + 1 if self.swa_epochs else 0
        if self.swa_epochs == 0 or state.swa_start == start or (state.swa_start == 0 and state.epoch < start):
            return
        if state.swa_start:
            begun, epochs = f"begun with epoch {state.swa_start}", str(state.swa_start + self.swa_epochs - 1)
        else:
            begun, epochs = f"not begun after epoch {state.epoch}", f"{state.epoch + self.swa_epochs} or more"
        raise SettingError(
            f"engine.epochs: {self.epochs}, so that the mean of the weights of the last {self.swa_epochs} epochs "
            f"begins with epoch {start}, but it was {begun}; use engine.epochs={epochs}"
        )

    def _create_step(self, state: TrainingState, loss: Loss, processes: Processes, seed: int) -> Step:
        """Returns the function that takes one optimizer step, given its batches, the epoch and the step in it."""

        def take_step(group: Sequence[Batch], number: int, step: int) -> StepResult:
            (batch,) = group
            logits, mask = self._predict(state.model, batch)
            total, parts = loss(logits, mask)
            state.step(total, clip_norm=self.clip_norm)
            return StepResult(total.detach(), parts, [(logits.detach(), mask)])

        def take_accumulated_step(group: Sequence[Batch], number: int, step: int) -> StepResult:
            if len(group) == 1:
                return take_step(group, number, step)
            moved = [batch.to(self.device) for batch in group]
            mask = torch.cat([batch.mask for batch in moved])
            logits, propagate = forward_in_parts(
                state.model, lambda image: self._compute_logits(state.model, image), [batch.image for batch in moved]
            )
            total, parts = loss(logits, mask)
            state.step(total, clip_norm=self.clip_norm, propagate=propagate)
            return StepResult(total.detach(), parts, [(logits.detach(), mask)])

        def take_sharded_step(group: Sequence[Batch], number: int, step: int) -> StepResult:
            (batch,) = group
            return sharded.take(
                state,
                batch,
                predict=self._predict,
                derive_seed=lambda shard: derive_seed(seed, number, step, shard),
                clip_norm=self.clip_norm,
            )

        if self.shards == 1:
            return take_step if self.accumulate == 1 else take_accumulated_step
        sharding = Sharding(self.shards, processes.rank, processes.size)
        sharded = ShardedStep(state.model, loss, sharding, processes, is_exact=self._is_exact)
        return take_sharded_step

    def _train(
        self,
        state: TrainingState,
        batches: Iterable[Batch],
        take_step: Step,
        metrics: Metrics,
        interrupts: Interrupts,
        processes: Processes,
        number: int,
    ) -> tuple[dict[str, float], int]:
        state.model.train()
        metrics.reset()
        means, loss_check = LossMeans(), FiniteLossCheck(number, self.device, processes)
        for step, group in enumerate(group_batches(batches, self.accumulate), start=1):
            with out_of_memory_as(_out_of_memory_error(group[0].num_patches, self.device)):
                total, parts, outputs = take_step(group, number, step)
            loss_check.update(step, total, tuple(name for batch in group for name in batch.names))
            means.add(sum(batch.num_patches for batch in group), total, parts)
            for logits, mask in outputs:
                metrics.update(*select_main_task(logits, mask))
            processes.check_interrupts(interrupts)
        loss_check.check()
        metrics.sync(processes.sum_counts)
        return {**means.compute(), **metrics.compute()}, means.num_images

    @torch.inference_mode()
    def _validate(
        self,
        model: nn.Module,
        batches: Iterable[Batch],
        loss: Loss,
        metrics: Metrics,
        interrupts: Interrupts,
        processes: Processes,
    ) -> dict[str, float]:
        model.eval()
        metrics.reset()
        means = LossMeans()
        for batch in batches:
            if batch.names:
                with out_of_memory_as(_out_of_memory_error(len(batch.names), self.device)):
                    logits, mask = self._predict(model, batch)
                    total, parts = loss(logits, mask)
                means.add(len(batch.names), total, parts)
                metrics.update(logits, mask)
            processes.check_interrupts(interrupts)
        metrics.sync(processes.sum_counts)
        return {**means.interleave(processes).compute(), **metrics.compute()}

    def _predict(self, model: Callable[[Tensor], Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        batch = batch.to(self.device)
        return self._compute_logits(model, batch.image), batch.mask

    def _compute_logits(self, model: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
        with autocast(self.device, self._dtype):
            return model(image.contiguous(memory_format=get_memory_format(self.device)))

    def _limited(self, batches: SizedIterable, processes: Processes = SINGLE_PROCESS) -> SizedIterable:
        return batches if self.limit_batches is None else _LimitedBatches(batches, self.limit_batches, processes)


class _LimitedBatches:
    """The first batches of a split, which are dealt to the processes in turn."""

    def __init__(self, batches: SizedIterable, limit: int, processes: Processes) -> None:
        self._batches, self._limit, self._processes = batches, limit, processes

    def __len__(self) -> int:
        return min(len(self._batches), -(-self._limit // self._processes.size))

    def __iter__(self) -> Iterator[Batch]:
        for turn, batch in enumerate(itertools.islice(self._batches, len(self))):
            number = turn * self._processes.size + self._processes.rank
            yield batch if number < self._limit else EMPTY_BATCH


def _out_of_memory_error(batch_size: int, device: torch.device) -> FiresegError:
    cure = f"try data.batch_size={batch_size // 2}" if batch_size > 1 else "use smaller patches or a smaller encoder"
    return FiresegError(f"data.batch_size: {batch_size} patches do not fit in the memory of {device}; {cure}")


def derive_seed(seed: int, *numbers: int) -> int:
    """Returns a seed for torch's generators, distinct for runs with neighbouring seeds.

    Args:
        seed: Seed of the run.
        *numbers: Epoch; or epoch, step and shard.
    """
    return int(np.random.SeedSequence([seed, *numbers]).generate_state(1, np.uint64)[0] >> np.uint64(1))
