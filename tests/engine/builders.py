"""A training in shards on a small network, for one process or several."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from fireseg.batch import Sharding
from fireseg.data.dataset import EpochBatchSampler, Sample, SampleIndex
from fireseg.data.loader import EpochLoader, make_loader
from fireseg.engine import Engine, Epoch, Interrupts, Processes, TrainingState
from fireseg.engine.optimizer import adamw
from fireseg.loss import CombinedLoss
from fireseg.metric import CombinedMetrics
from tests.ports import find_free_port
from tests.processes import ForkedProcess, start_program

BATCH_SIZE = 8


class Patches(Dataset[Sample]):
    """Random patches whose burned pixels are bright, some of them unlabelled."""

    def __init__(self, num_patches: int) -> None:
        self.num_patches = num_patches

    def __getitem__(self, index: SampleIndex) -> Sample:
        generator = torch.Generator().manual_seed(index.patch)
        mask = (torch.rand(16, 16, generator=generator) > 0.1 * (index.patch % 10)).to(torch.uint8)
        image = torch.rand(3, 16, 16, generator=generator) + mask
        mask[torch.rand(16, 16, generator=generator) > 0.8] = 255
        return Sample(image, mask, f"p{index.patch}")


class ShardedData:
    """The part of one process in 13 training and 5 validation patches.

    The last batch of an epoch has 5 patches, in the first two of four shards.
    """

    def __init__(self, sharding: Sharding) -> None:
        self.sharding = sharding

    def train_dataloader(self, epoch: int) -> EpochLoader:
        return self._load(13, BATCH_SIZE, epoch, is_train=True)

    def val_dataloader(self) -> EpochLoader:
        return self._load(5, 2, 0, is_train=False)

    def _load(self, num_patches: int, batch_size: int, epoch: int, *, is_train: bool) -> EpochLoader:
        sampler = EpochBatchSampler(num_patches, batch_size, is_train=is_train, sharding=self.sharding)
        loader = make_loader(Patches(num_patches), sampler, num_workers=0)  # pyright: ignore[reportArgumentType]
        return EpochLoader(loader, sampler, epoch)


class Net(nn.Module):
    """Convolutions with batch norm and dropout, and a layer that takes no part."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2), nn.Conv2d(8, 2, 1)
        )
        self.unused = nn.Linear(2, 2)

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


def create_state(engine: Engine) -> TrainingState:
    """Returns the state before the first epoch, the same in each process."""
    torch.manual_seed(0)
    model = engine.to_device(Net())
    return engine.create_state(model, adamw(model.parameters(), lr=1e-2))


def run_in_shards(engine: Engine, state: TrainingState, interrupts: Interrupts | None = None) -> Iterator[Epoch]:
    """Trains in this process, and in those with which it is connected."""
    processes = Processes.current()
    data = ShardedData(Sharding(engine.shards, processes.rank, processes.size))
    return engine.run(
        state,
        data,
        loss=CombinedLoss(class_weights=[1.0, 2.0]),
        metrics=CombinedMetrics(2),
        seed=7,
        interrupts=interrupts,
        processes=processes,
    )


def start_processes(
    program: str, size: int, arguments: list[str] | None = None, *, cwd: Path | None = None
) -> list[ForkedProcess]:
    """Starts a program in several processes, with the environment variables that torchrun sets."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_port()), "WORLD_SIZE": str(size)}
    return [
        start_program(program, arguments or [], cwd=cwd, **address, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank in range(size)
    ]
