"""The data that a run is judged on: its own, or what the user names."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from fireseg.batch import Batch
from fireseg.config import make
from fireseg.console import progress_bar
from fireseg.data import WildfireDataModule, WildfirePatchDataset
from fireseg.data.dataset import EpochBatchSampler
from fireseg.data.format import read_manifest
from fireseg.data.loader import EpochLoader, make_loader, stop_workers
from fireseg.errors import FiresegError, SettingError
from fireseg.evaluate.fires import Fire, group_by_fire
from fireseg.task import Task

log = logging.getLogger("fireseg")

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Patches:
    """The splits under a root, each patch as it is and in order.

    Args:
        module: What opens them.
    """

    module: WildfireDataModule

    @property
    def root(self) -> Path:
        """Where they lie."""
        return self.module.patches_root.resolve()

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names and contents of all patches that take part."""
        return self.module.fingerprint

    @cached_property
    def leaks(self) -> tuple[str, ...]:
        """Pairs of tiles by which splits know of each other, as far as the patches say so."""
        manifest = read_manifest(self.root)
        return manifest.leaks if manifest else ()

    def get(self, split: Split) -> WildfirePatchDataset:
        """The patches of a split.

        Raises:
            SettingError: If there is no such split.
        """
        self.module.setup()
        found = {name: getattr(self.module, name) for name in ("train", "val", "test")}
        if found[split] is None:
            there = [name for name, dataset in found.items() if dataset is not None]
            raise SettingError(
                f"--split {split}: {self.root} has no {split} patches; there is {' and '.join(there)}: "
                f"try --split {there[-1]}"
            )
        return found[split]

    def lay_fires(self, split: Split) -> tuple[Fire, ...]:
        """The patches of a split by the tile that they were cut from."""
        dataset = self.get(split)
        return group_by_fire(dataset.names, dataset.patches.folder, size=dataset[0].mask.shape[0])

    @contextmanager
    def batches(self, split: Split, label: str) -> Iterator[Iterator[Batch]]:
        """All patches of a split, each once; processes that read them end with the block.

        Args:
            split: Which.
            label: What the progress bar says.
        """
        dataset, module = self.get(split), self.module
        order = EpochBatchSampler(len(dataset), module.batch_size)
        loader = make_loader(dataset, order, num_workers=module.num_workers, pin_memory=module.pin_memory)
        try:
            yield iter(progress_bar(EpochLoader(loader, order, 0), label))
        finally:
            stop_workers(loader)


def open_patches(
    settings: Mapping[str, Any],
    root: Path,
    *,
    task: Task,
    batch_size: int | None = None,
    num_workers: int | None = None,
    pin_memory: bool = False,
) -> Patches:
    """Opens patches as a run did, but never changed, never drawn twice, and never made on the way.

    Args:
        settings: Of the run.
        root: Folder of the splits.
        task: What the masks hold.
        batch_size: Patches at a time; those of the run if not given.
        num_workers: Processes that read; those of the run if not given.
        pin_memory: Whether a CUDA device takes the batches.

    Raises:
        FiresegError: If the patches are not all there, or none the run can be judged on.
    """
    changes: dict[str, Any] = {"root": str(root), "augment": None, "weighted_sampling": False, "maker": None}
    changes |= {} if batch_size is None else {"batch_size": batch_size}
    changes |= {} if num_workers is None else {"num_workers": num_workers}
    node = {**settings["data"], **changes}
    module = make(node, WildfireDataModule, task=task, seed=settings["seed"], pin_memory=pin_memory)
    module.setup()
    for note in module.notes:
        log.warning(note)
    return Patches(module)


def find_root(settings: Mapping[str, Any], facts: Mapping[str, Any], given: Path | None) -> Path:
    """Where the patches are: where the user says, else where they were when the run was trained.

    Args:
        settings: Of the run.
        facts: What run.json says.
        given: What the user named, or None.

    Raises:
        FiresegError: If they are not there.
    """
    if given is not None:
        if not given.is_dir():
            raise SettingError(f"--data {given}: no such folder; name the one that holds train, val and test")
        return given
    # The setting may be relative to a folder that one no longer stands in; what the run noted is not.
    places = [Path(facts["data"]["root"])] if "data" in facts else []
    places.append(Path(settings["data"]["root"]))
    for place in places:
        if place.is_dir():
            return place
    raise FiresegError(
        f"data.root: {places[0]}: no such folder any more, but the run was trained on the patches in it; "
        "say where they are with --data PATCHES"
    )
