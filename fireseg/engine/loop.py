"""One epoch after the other: train, validate, hand over what came of it."""

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


class FiniteLossCheck:
    """Remembers on the device the first step whose loss was not finite; the host looks now and then.

    Reading a value makes the host wait for the device, so it is read every fiftieth step and
    before a checkpoint is written: no checkpoint ever holds weights that a NaN went through.

    Args:
        epoch: Number of the epoch, for the message.
        device: Where the losses live.
    """

    def __init__(self, epoch: int, device: torch.device) -> None:
        self._epoch = epoch
        self._first = torch.zeros((), dtype=torch.int64, device=device)
        self._names: dict[int, tuple[str, ...]] = {}

    def see(self, step: int, loss: Tensor, names: tuple[str, ...]) -> None:
        """Takes in the loss of a step (from 1) and the patches that it came from."""
        is_first = ~torch.isfinite(loss.detach()) & (self._first == 0)
        self._first = torch.where(is_first, step, self._first)
        self._names[step] = names
        if step % CHECK_EVERY == 0:
            self.look()

    def look(self) -> None:
        """Reads the flag.

        Raises:
            FiresegError: If a loss was not finite.
        """
        if step := int(self._first):
            names = self._names[step]
            shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
            raise FiresegError(
                f"epoch {self._epoch}, step {step}: the loss is not a finite number; the patches were {shown}; "
                "lower optimizer.lr, keep engine.clip_norm on, or take engine.precision=fp32; "
                "last.pt is still that of the epoch before"
            )
        self._names.clear()


Loss = Callable[[Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]


class SizedIterable(Protocol):
    """Batches that can be counted beforehand."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


ProgressBar = Callable[[SizedIterable, str], Iterable[Batch]]


class Epoch(NamedTuple):
    """What came of one epoch.

    Attributes:
        number: From 1.
        train: Loss, its parts and the metrics over the training batches, as they went by.
        val: The same over the validation split, after the epoch.
        lr: Learning rate of the epoch.
        seconds: Wall time, validation included.
        images_per_second: Training images by training seconds.
    """

    number: int
    train: dict[str, float]
    val: dict[str, float]
    lr: float
    seconds: float
    images_per_second: float

    def row(self) -> dict[str, float]:
        """One flat row; the score that decides comes first, for trackers show first what came first."""
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
        """Forgets all batches."""
        ...

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Counts one batch: logits (B, K, H, W) against classes (B, H, W)."""
        ...

    def compute(self) -> dict[str, float]:
        """Returns the metrics of the batches since the last reset."""
        ...


class Loaders(Protocol):
    """Where batches come from."""

    def train_dataloader(self, epoch: int) -> SizedIterable:
        """The batches of a training epoch: a function of its number alone."""
        ...

    def val_dataloader(self) -> SizedIterable:
        """The validation batches, always the same."""
        ...


class Engine:
    """Trains and validates, an epoch at a time.

    Args:
        epochs: Epochs in all.
        precision: `fp32`, `bf16`, `fp16`, or `auto` for what the device does best.
        clip_norm: Largest norm of the gradient, or None for no limit.
        ema_decay: Decay of a running mean of the weights, per step, or None for no mean.
        limit_batches: Batches an epoch, of either split, for a quick try; None for all.
        threads: CPU threads of torch; None for the cores that the process may use.
        device: `auto`, `cuda`, `mps` or `cpu`.

    Attributes:
        device: The device itself.
    """

    def __init__(
        self,
        *,
        epochs: PositiveInt = 50,
        precision: PrecisionName = "auto",
        clip_norm: PositiveFloat | None = 1.0,
        ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None,
        limit_batches: PositiveInt | None = None,
        threads: PositiveInt | None = None,
        device: DeviceName = "auto",
    ) -> None:
        self.epochs = epochs
        self.clip_norm = clip_norm
        self.limit_batches = limit_batches
        self.device = get_device(device)
        self.threads = set_threads(threads)
        self._ema_decay = ema_decay
        self._precision: PrecisionName = precision
        self._is_scaled = get_autocast_dtype(self.device, precision) is torch.float16

    def place(self, model: nn.Module) -> nn.Module:
        """Moves a model to the device, in the memory layout that convolutions there like best."""
        return model.to(self.device, memory_format=get_memory_format(self.device))  # pyright: ignore[reportCallIssue] - torch's stub lacks it

    def begin(self, model: nn.Module, optimizer: Any, scheduler: Any = None) -> TrainingState:
        """The state before the first epoch."""
        return TrainingState(
            model, optimizer, scheduler=scheduler, is_scaled=self._is_scaled, ema_decay=self._ema_decay
        )

    def run(
        self,
        state: TrainingState,
        data: Loaders,
        *,
        loss: Loss,
        metrics: Metrics,
        seed: int,
        interrupts: Interrupts | None = None,
        watch: ProgressBar = lambda batches, label: batches,
    ) -> Iterator[Epoch]:
        """Yields every epoch from the one after `state.epoch` on.

        An epoch is a function of the state, the seed and its number; nothing is carried over in
        random generators, so that going on from a saved state is the same as never having stopped.

        Args:
            state: What is trained, changed in place. When an epoch is yielded, the state is that after it.
            data: Where batches come from.
            loss: Logits and masks in, total and named parts out.
            metrics: Counts the decisions; begun anew for each split.
            seed: Of everything random.
            interrupts: Asked after each step.
            watch: Wraps the batches of a split, as a progress bar does.

        Raises:
            FiresegError: If a loss is not finite, or memory runs out.
            Interrupted: If a signal came.
        """
        interrupts = interrupts or Interrupts()
        for number in range(state.epoch + 1, self.epochs + 1):
            torch.manual_seed(derive_seed(seed, number))
            begin, lr = time.perf_counter(), current_lr(state.optimizer)
            batches = watch(self._limited(data.train_dataloader(number)), f"epoch {number} train")
            train, num_images = self._train(state, batches, loss, metrics, interrupts, number)
            between = time.perf_counter()
            batches = watch(self._limited(data.val_dataloader()), f"epoch {number} val")
            val = self._validate(state.eval_model, batches, loss, metrics, interrupts)
            scheduler.step(state.scheduler, val["fire_iou"])
            state.epoch = number
            end = time.perf_counter()
            yield Epoch(number, train, val, lr, end - begin, num_images / (between - begin))

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
        means, finite = _Means(), FiniteLossCheck(number, self.device)
        for step, batch in enumerate(batches, start=1):
            with out_of_memory_as(_out_of_memory_error(len(batch.names), self.device)):
                logits, total, parts, mask = self._forward(state.model, batch, loss)
                state.step(total, clip_norm=self.clip_norm)
            finite.see(step, total, batch.names)
            means.add(len(batch.names), total, parts)
            metrics.update(logits.detach(), mask)
            interrupts.check()
        finite.look()
        return {**means.read(), **metrics.compute()}, means.num_images

    @torch.inference_mode()
    def _validate(
        self, model: nn.Module, batches: Iterable[Batch], loss: Loss, metrics: Metrics, interrupts: Interrupts
    ) -> dict[str, float]:
        model.eval()
        metrics.reset()
        means = _Means()
        for batch in batches:
            with out_of_memory_as(_out_of_memory_error(len(batch.names), self.device)):
                logits, total, parts, mask = self._forward(model, batch, loss)
            means.add(len(batch.names), total, parts)
            metrics.update(logits, mask)
            interrupts.check()
        return {**means.read(), **metrics.compute()}

    def _forward(self, model: nn.Module, batch: Batch, loss: Loss) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor]:
        batch = batch.to(self.device)
        image = batch.image.contiguous(memory_format=get_memory_format(self.device))
        with autocast(self.device, self._precision):
            logits = model(image)
        return logits, *loss(logits, batch.mask), batch.mask

    def _limited(self, batches: SizedIterable) -> SizedIterable:
        return batches if self.limit_batches is None else _Limited(batches, self.limit_batches)


class _Limited:
    """The first few batches of a split."""

    def __init__(self, batches: SizedIterable, limit: int) -> None:
        self._batches, self._limit = batches, limit

    def __len__(self) -> int:
        return min(len(self._batches), self._limit)

    def __iter__(self) -> Iterator[Batch]:
        return itertools.islice(self._batches, self._limit)


class _Means:
    """Means over images of losses, added up on the device."""

    def __init__(self) -> None:
        self.num_images = 0
        self._names: list[str] = []
        self._sums: Tensor | None = None

    def add(self, num_images: int, total: Tensor, parts: dict[str, Tensor]) -> None:
        values = torch.stack([total.detach(), *(part.detach() for part in parts.values())]).float() * num_images
        self._names = ["loss", *parts]
        self._sums = values if self._sums is None else self._sums + values
        self.num_images += num_images

    def read(self) -> dict[str, float]:
        if self._sums is None:
            return {"loss": float("nan")}
        return dict(zip(self._names, (self._sums / self.num_images).tolist(), strict=True))


def _out_of_memory_error(batch_size: int, device: torch.device) -> FiresegError:
    cure = f"try data.batch_size={batch_size // 2}" if batch_size > 1 else "use smaller patches or a smaller encoder"
    return FiresegError(f"data.batch_size: {batch_size} patches do not fit in the memory of {device}; {cure}")


def derive_seed(seed: int, epoch: int) -> int:
    """A seed for torch's generators that epochs and runs with neighbouring seeds do not share."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))
