"""Patches to evaluate on: those of the run, or others given by the user."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fireseg.batch import Batch
from fireseg.console import progress_bar
from fireseg.data import WildfireDataModule, WildfirePatchDataset
from fireseg.data.dataset import EpochBatchSampler
from fireseg.data.format import read_manifest
from fireseg.data.joined import JoinedReader
from fireseg.data.loader import EpochLoader, make_loader, stop_workers
from fireseg.errors import SettingError
from fireseg.evaluate.fires import Fire, group_by_fire
from fireseg.evaluate.mosaic import PatchPixels, StitchedTile, stitch_tiles
from fireseg.evaluate.options import Split
from fireseg.runs.patches import open_data_module
from fireseg.task import IGNORE_INDEX, Task


@dataclass(frozen=True)
class Patches:
    """Splits of a patch folder, read in order and without augmentation.

    Args:
        module: Data module that reads them.
        batch_size: Windows per batch of the model; None for the default of maps.
        tiles_folder: Folder of the tiles that the patches were cut from; None to stitch them from the patches.
    """

    module: WildfireDataModule
    batch_size: int | None = None
    tiles_folder: Path | None = None

    @property
    def input(self) -> Literal["tile", "patches"]:
        """Source of the images of tiles."""
        return "tile" if self.tiles_folder else "patches"

    @property
    def root(self) -> Path:
        """Folder of the splits; the first of several."""
        return self.module.patches_root.resolve()

    @property
    def roots(self) -> tuple[Path, ...]:
        """Folders of the data sets."""
        return tuple(root.resolve() for root in self.module.roots)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of names and contents of all patches in use."""
        return self.module.fingerprint

    @cached_property
    def leaks(self) -> tuple[str, ...]:
        """Leaks between splits: those that manifests list, and patches found in two splits."""
        manifests = [read_manifest(root) for root in self.module.roots]
        listed = (leak for manifest in manifests if manifest for leak in manifest.leaks)
        return (*listed, *self.module.summary.leaks)

    def get(self, split: Split) -> WildfirePatchDataset:
        """Returns the patches of a split that exists."""
        dataset = getattr(self.module, split, None)
        assert dataset is not None, f"{self.root} has no {split} patches"
        return dataset

    def has(self, split: Split) -> bool:
        """Returns True if the split exists."""
        return getattr(self.module, split, None) is not None

    def group_by_fire(self, split: Split) -> tuple[Fire, ...]:
        """Groups the patches of a split by the tile that they were cut from."""
        dataset = self.get(split)
        reader = dataset.patches
        folders = reader.folders if isinstance(reader, JoinedReader) else (reader.folder,)
        return group_by_fire(dataset.names, *folders, size=dataset[0].mask.shape[0])

    @contextmanager
    def tiles(self, split: Split, label: str, fires: Sequence[Fire] | None = None) -> Iterator[Iterator[StitchedTile]]:
        """Iterates over the tiles of a split, stitched from its patches or read from their folder; as `batches`.

        Args:
            split: Split to read.
            label: Label of the progress bar.
            fires: Fires of the split, if they are known.
        """
        fires, module = fires or self.group_by_fire(split), self.module
        with self.batches(split, label) as batches:
            pixels = read_patches(batches, ignore_index=module.task.ignore_index)
            stitched = stitch_tiles(pixels, fires, module.bands)
            yield stitched if self.tiles_folder is None else self._read_tiles(stitched, self.tiles_folder)

    def _read_tiles(self, stitched: Iterator[StitchedTile], folder: Path) -> Iterator[StitchedTile]:
        from fireseg.evaluate.source_tiles import read_source_tiles  # imports rasterio

        manifest = read_manifest(self.root)
        if manifest is None or len(self.roots) > 1:
            reason = "several folders of patches" if manifest else "patches that prepare did not make"
            raise SettingError(f"--tiles: {self.root}: {reason}; leave --tiles out")
        return read_source_tiles(stitched, folder, manifest)

    @contextmanager
    def batches(self, split: Split, label: str) -> Iterator[Iterator[Batch]]:
        """Iterates over all patches of a split once; reader processes stop when the context is left.

        Args:
            split: Split to read.
            label: Label of the progress bar.
        """
        dataset, module = self.get(split), self.module
        order = EpochBatchSampler(len(dataset), module.batch_size)
        loader = make_loader(dataset, order, num_workers=module.num_workers)
        try:
            yield iter(progress_bar(EpochLoader(loader, order, 0), label))
        finally:
            stop_workers(loader)


def open_patches(
    settings: Mapping[str, Any],
    root: Path | list[Path],
    *,
    task: Task,
    required: Split,
    batch_size: int | None = None,
    num_workers: int | None = None,
    tiles_folder: Path | None = None,
) -> Patches:
    """Opens patches with the settings of a run, see `runs.patches.open_data_module` and `Patches`."""
    module = open_data_module(settings, root, task=task, required=required, num_workers=num_workers, as_stored=True)
    return Patches(module, batch_size, tiles_folder)


def read_patches(batches: Iterable[Batch], *, ignore_index: int) -> Iterator[PatchPixels]:
    """Yields the pixels of every patch, in order.

    Args:
        batches: All patches of a split.
        ignore_index: Mask value of unlabelled pixels, which becomes 255.
    """
    for batch in batches:
        for image, mask in zip(batch.image.numpy(), batch.mask.numpy(), strict=True):
            yield PatchPixels(image, np.where(mask == ignore_index, np.uint8(IGNORE_INDEX), mask))
