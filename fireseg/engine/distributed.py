"""The processes that train one run together, and what they exchange."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fireseg.engine.signals import Interrupted, Interrupts
from fireseg.errors import FiresegError, SettingError

T = TypeVar("T")


class LostProcessError(FiresegError):
    """Another process of the run has ended, so that this one cannot go on."""


@dataclass(frozen=True)
class Processes:
    """The processes of a run; a single one by default, for which nothing is exchanged.

    Collective methods have to be called by all processes in the same order. They raise `LostProcessError` if another
    process has ended.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> Self:
        """Returns the processes that `connect` has joined, or this single one."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else cls()

    @property
    def is_main(self) -> bool:
        """True for the process that writes the run folder."""
        return self.rank == 0

    def check_shards(self, num_shards: int) -> None:
        """Checks that every process gets the same number of shards.

        Raises:
            SettingError: If the number of processes does not divide the number of shards.
        """
        if num_shards % self.size:
            is_power = not self.size & (self.size - 1)
            cure = f"set engine.shards={self.size}, or " if is_power else ""
            raise SettingError(
                f"engine.shards: {num_shards}, but torchrun started {self.size} processes, which must divide it; {cure}"
                "start 1, 2, 4, 8 … processes by --nproc-per-node"
            )

    def check_device(self, device: torch.device) -> None:
        """Checks that every process of this host has a CUDA device of its own.

        Raises:
            SettingError: If there are fewer devices than processes.
        """
        num_local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if self.size > 1 and device.type == "cuda" and num_local > torch.cuda.device_count():
            raise SettingError(
                f"engine.device: cuda, but torchrun started {num_local} processes for {torch.cuda.device_count()} "
                f"GPUs; use --nproc-per-node {torch.cuda.device_count()}, or engine.device=cpu"
            )

    def check_same(self, value: str, error: FiresegError) -> None:
        """Raises an error in all processes if they do not have the same value. Collective."""
        if len(set(self.gather(value))) > 1:
            raise error

    def check_interrupts(self, interrupts: Interrupts) -> None:
        """Raises `Interrupted` in all processes if one of them received a signal. Collective."""
        if self.size == 1:
            interrupts.check()
        elif signum := int(self._reduce(torch.tensor(interrupts.pending), dist.ReduceOp.MAX)):
            raise Interrupted(signum)

    def broadcast(self, value: T | None = None) -> T:
        """Returns the value of the main process, which pickle can transmit. Collective."""
        values: list[Any] = [value]
        if self.size > 1:
            with _peers():
                dist.broadcast_object_list(values, src=0)
        return values[0]

    def gather(self, value: T) -> list[T]:
        """Returns the value of each process, by rank; pickle must be able to transmit them. Collective."""
        values: list[Any] = [value] * self.size
        if self.size > 1:
            with _peers():
                dist.all_gather_object(values, value)
        return values

    def sum_counts(self, counts: Tensor) -> Tensor:
        """Returns the sum of integers over the processes, on the CPU if there are several. Collective."""
        return counts if self.size == 1 else self._reduce(counts.cpu(), dist.ReduceOp.SUM)

    def sum_shards(self, terms: Iterable[Tensor], *, is_exact: bool) -> Tensor:
        """Returns the sum over the shards of all processes. Collective.

        Floating-point addition is not associative. The exact sum is that of one fixed binary tree over the shards, of
        which each process adds one subtree, so that it is the same to the bit for any number of processes. It
        transmits the whole tensor of each process to every other one: `size` times the bytes of a tensor.

        Args:
            terms: One tensor for each shard of this process, a power of two of them, all of one shape.
            is_exact: Adds in the fixed tree; otherwise in the order that the backend finds fastest.
        """
        local = sum_tree(terms)
        if self.size == 1:
            return local
        if not is_exact:
            return self._reduce(local, dist.ReduceOp.SUM)
        gathered = [torch.empty_like(local) for _ in range(self.size)]
        with _peers():
            dist.all_gather(gathered, local)
        return sum_tree(gathered)

    def share_weights(self, model: nn.Module) -> None:
        """Copies the parameters and buffers of the main process to the others. Collective."""
        if self.size > 1:
            with _peers(), torch.no_grad():
                for tensor in (*model.parameters(), *model.buffers()):
                    values = tensor.contiguous()  # memory in channels-last order is not transmitted
                    dist.broadcast(values, src=0)
                    tensor.copy_(values)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Lets the main process pass through the context before the others, which then find its cached files."""
        if not self.is_main:
            self.broadcast()
        yield
        if self.is_main:
            self.broadcast()

    def _reduce(self, tensor: Tensor, operation: Any) -> Tensor:
        with _peers():
            dist.all_reduce(tensor, operation)
        return tensor


SINGLE_PROCESS = Processes()

_store: Any = None

_STORE_SECONDS = 10
"""Time that the main process waits at its end for the others to read the store."""


def connect() -> None:
    """Joins the processes that were started together; gloo transmits CPU tensors, nccl those of CUDA devices."""
    global _store
    has_cuda = torch.cuda.is_available()
    if has_cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    _store, rank, size = next(dist.rendezvous("env://"))  # pyright: ignore[reportPrivateImportUsage] - documented
    backend = "cpu:gloo,cuda:nccl" if has_cuda else "gloo"
    dist.init_process_group(backend, store=_store, rank=rank, world_size=size)


def disconnect() -> None:
    """Leaves the processes that `connect` joined, if any.

    Without torchrun, the main process holds the store. If the run ends by an error, it keeps the store for some
    seconds more, until the others have read there that the error is reported.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return
    is_holder, size = dist.get_rank() == 0 and not _is_store_of_torchrun(), dist.get_world_size()
    dist.destroy_process_group()
    deadline = time.monotonic() + _STORE_SECONDS
    while is_holder and 0 < _store.add(_name_reports(), 0) < size and time.monotonic() < deadline:
        time.sleep(0.05)


def is_first_report(error: FiresegError) -> bool:
    """Returns True to the first process that asks: it reports why the run ends, the others only follow it.

    Args:
        error: Error that ends this process.
    """
    try:
        return _store is None or _store.add(_name_reports(), 1) == 1
    except RuntimeError:
        # Without torchrun, the main process holds the store, and was killed.
        return isinstance(error, LostProcessError)


def _name_reports() -> str:
    """Names the counter of the processes that ended by an error, since torchrun started them last."""
    return f"fireseg/reports/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"


def _is_store_of_torchrun() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def sum_tree(terms: Iterable[Tensor]) -> Tensor:
    """Adds tensors as the leaves of a complete binary tree: ((a + b) + (c + d)) and so on.

    Args:
        terms: A power of two of tensors, consumed one by one; at most one for each level of the tree is held. They
            are added in place.
    """
    partial: list[tuple[int, Tensor]] = []
    for term in terms:
        level, total = 0, term
        while partial and partial[-1][0] == level:
            total = partial.pop()[1].add_(total)
            level += 1
        partial.append((level, total))
    ((_, total),) = partial
    return total


@contextmanager
def _peers() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo: "Connection closed by peer"; nccl: DistBackendError
        reason = re.sub(r"^\[.*?\] ", "", str(error).partition("\n")[0])[:80]  # without the place in gloo's source
        raise LostProcessError(
            f"torchrun: a process of this run has ended, and the others end with it ({reason}); start the run again "
            "with resume=RUN_FOLDER, on any number of processes"
        ) from error
