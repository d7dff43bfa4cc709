"""Training loop: trains and validates epoch by epoch."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, NamedTuple, Protocol

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from fireseg.batch import Batch
from fireseg.engine import scheduler
from fireseg.engine.accumulate import forward_in_parts, group_batches
from fireseg.engine.device import (
    DeviceName,
    PrecisionName,
    autocast,
    get_autocast_dtype,
    get_device,
    get_memory_format,
    out_of_memory_as,
    set_threads,
)
from fireseg.engine.optimizer import current_lr
from fireseg.engine.signals import Interrupts
from fireseg.engine.state import TrainingState
from fireseg.errors import FiresegError

CHECK_EVERY = 50
"""Number of steps between two checks of the loss: reading a value makes the host wait for the device."""

Loss = Callable[[Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]


class SizedIterable(Protocol):
    """An iterable of batches with a length."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


ProgressBar = Callable[[SizedIterable, str], Iterable[Batch]]


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

    Attributes:
        device: Device of the model.
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
    ) -> None:
        self.epochs = epochs
        self.clip_norm = clip_norm
        self.accumulate = accumulate
        self.limit_batches = limit_batches
        self.device = get_device(device)
        set_threads(threads)
        self._ema_decay = ema_decay
        self._precision: PrecisionName = precision
        self._is_scaled = get_autocast_dtype(self.device, precision) is torch.float16

    def to_device(self, model: nn.Module) -> nn.Module:
        """Moves a model to the device, in the memory layout in which convolutions run fastest."""
        return model.to(self.device, memory_format=get_memory_format(self.device))  # pyright: ignore[reportCallIssue] - missing in torch's stubs

    def create_state(self, model: nn.Module, optimizer: Any, scheduler: Any = None) -> TrainingState:
        """Returns the state before the first epoch."""
        return TrainingState(
            model, optimizer, scheduler=scheduler, is_scaled=self._is_scaled, ema_decay=self._ema_decay
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
            progress_bar: Wraps the batches of a split in a progress bar, given its label.

        Raises:
            FiresegError: If a loss is not finite, or memory runs out.
            Interrupted: If a signal was received.
        """
        interrupts = interrupts or Interrupts()
        for number in range(state.epoch + 1, self.epochs + 1):
            torch.manual_seed(derive_seed(seed, number))
            start, lr = time.perf_counter(), current_lr(state.optimizer)
            batches = progress_bar(self._limited(data.train_dataloader(number)), f"epoch {number} train")
            train, num_images = self._train(state, batches, loss, metrics, interrupts, number)
            trained = time.perf_counter()
            batches = progress_bar(self._limited(data.val_dataloader()), f"epoch {number} val")
            val = self._validate(state.eval_model, batches, loss, metrics, interrupts)
            scheduler.step(state.scheduler, val["fire_iou"])
            state.epoch = number
            end = time.perf_counter()
            yield Epoch(number, train, val, lr, end - start, num_images / (trained - start))

    def _train(
        self,
        state: TrainingState,
        batches: Iterable[Batch],
        loss: Loss,
        metrics: Metrics,
        interrupts: Interrupts,
        number: int,
    ) -> tuple[dict[str, float], int]:
        state.model.train()
        metrics.reset()
        means, loss_check = _LossMeans(), FiniteLossCheck(number, self.device)
        for step, group in enumerate(group_batches(batches, self.accumulate), start=1):
            names = tuple(name for batch in group for name in batch.names)
            with out_of_memory_as(_out_of_memory_error(len(group[0].names), self.device)):
                logits, total, parts, mask = self._step(state, group, loss)
            loss_check.update(step, total, names)
            means.add(len(names), total, parts)
            metrics.update(logits.detach(), mask)
            interrupts.check()
        loss_check.check()
        return {**means.compute(), **metrics.compute()}, means.num_images

    @torch.inference_mode()
    def _validate(
        self, model: nn.Module, batches: Iterable[Batch], loss: Loss, metrics: Metrics, interrupts: Interrupts
    ) -> dict[str, float]:
        model.eval()
        metrics.reset()
        means = _LossMeans()
        for batch in batches:
            with out_of_memory_as(_out_of_memory_error(len(batch.names), self.device)):
                logits, total, parts, mask = self._forward(model, batch, loss)
            means.add(len(batch.names), total, parts)
            metrics.update(logits, mask)
            interrupts.check()
        return {**means.compute(), **metrics.compute()}

    def _step(
        self, state: TrainingState, group: list[Batch], loss: Loss
    ) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor]:
        """Takes one optimizer step on the batches of a group, as if they were one."""
        if len(group) == 1:
            logits, total, parts, mask = self._forward(state.model, group[0], loss)
            state.step(total, clip_norm=self.clip_norm)
            return logits, total, parts, mask
        moved = [batch.to(self.device) for batch in group]
        mask = torch.cat([batch.mask for batch in moved])
        logits, propagate = forward_in_parts(
            state.model, lambda image: self._compute_logits(state.model, image), [batch.image for batch in moved]
        )
        total, parts = loss(logits, mask)
        state.step(total, clip_norm=self.clip_norm, propagate=propagate)
        return logits, total, parts, mask

    def _forward(self, model: nn.Module, batch: Batch, loss: Loss) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor]:
        batch = batch.to(self.device)
        logits = self._compute_logits(model, batch.image)
        return logits, *loss(logits, batch.mask), batch.mask

    def _compute_logits(self, model: nn.Module, image: Tensor) -> Tensor:
        with autocast(self.device, self._precision):
            return model(image.contiguous(memory_format=get_memory_format(self.device)))

    def _limited(self, batches: SizedIterable) -> SizedIterable:
        return batches if self.limit_batches is None else _LimitedBatches(batches, self.limit_batches)


class FiniteLossCheck:
    """Records on the device the first step whose loss was not finite, and raises an error later.

    The record is read every `CHECK_EVERY` steps and at the end of the epoch, before a checkpoint is written,
    so that no checkpoint holds weights from a NaN loss.

    Args:
        epoch: Epoch number, for the message.
        device: Device of the losses.
    """

    def __init__(self, epoch: int, device: torch.device) -> None:
        self._epoch = epoch
        self._first_step = torch.zeros((), dtype=torch.int64, device=device)
        self._patch_names: dict[int, tuple[str, ...]] = {}

    def update(self, step: int, loss: Tensor, names: tuple[str, ...]) -> None:
        """Records the loss of a step (from 1) and the names of its patches."""
        is_first = ~torch.isfinite(loss.detach()) & (self._first_step == 0)
        self._first_step = torch.where(is_first, step, self._first_step)
        self._patch_names[step] = names
        if step % CHECK_EVERY == 0:
            self.check()

    def check(self) -> None:
        """Reads the record.

        Raises:
            FiresegError: If a loss was not finite.
        """
        if step := int(self._first_step):
            names = self._patch_names[step]
            shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            raise FiresegError(
                f"epoch {self._epoch}, step {step}: the loss is not a finite number; patches: {shown}; "
                "lower optimizer.lr, set engine.clip_norm, or use engine.precision=fp32; "
                "last.pt holds the previous epoch"
            )
        self._patch_names.clear()


class _LimitedBatches:
    """The first batches of a split."""

    def __init__(self, batches: SizedIterable, limit: int) -> None:
        self._batches, self._limit = batches, limit

    def __len__(self) -> int:
        return min(len(self._batches), self._limit)

    def __iter__(self) -> Iterator[Batch]:
        return itertools.islice(self._batches, self._limit)


class _LossMeans:
    """Means of the losses over images, accumulated on the device."""

    def __init__(self) -> None:
        self.num_images = 0
        self._loss_names: list[str] = []
        self._sums: Tensor | None = None

    def add(self, num_images: int, total: Tensor, parts: dict[str, Tensor]) -> None:
        values = torch.stack([total.detach(), *(part.detach() for part in parts.values())]).float() * num_images
        self._loss_names = ["loss", *parts]
        self._sums = values if self._sums is None else self._sums + values
        self.num_images += num_images

    def compute(self) -> dict[str, float]:
        if self._sums is None:
            return {"loss": float("nan")}
        return dict(zip(self._loss_names, (self._sums / self.num_images).tolist(), strict=True))


def _out_of_memory_error(batch_size: int, device: torch.device) -> FiresegError:
    cure = f"try data.batch_size={batch_size // 2}" if batch_size > 1 else "use smaller patches or a smaller encoder"
    return FiresegError(f"data.batch_size: {batch_size} patches do not fit in the memory of {device}; {cure}")


def derive_seed(seed: int, epoch: int) -> int:
    """Returns a seed for torch's generators, distinct for epochs and for runs with neighbouring seeds."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))
