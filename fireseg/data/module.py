"""All that a training run wants of its data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from torch.utils.data import DataLoader

from fireseg.batch import Batch
from fireseg.data.augment import Augmentation
from fireseg.data.bands import BAND_NAMES, check_bands
from fireseg.data.checks import Survey, survey
from fireseg.data.dataset import EpochBatches, Sample, WildfirePatchDataset
from fireseg.data.format import masks_file
from fireseg.data.loader import Batches, count_slots, free_shared_bytes, make_loader, stack, stop_workers
from fireseg.data.patches import CURES, MASK_END, read_array
from fireseg.data.reader import map_array
from fireseg.data.statistics import PatchStatistics, count_values
from fireseg.errors import FiresegError
from fireseg.task import DELINEATION_CLASSES, IGNORE_INDEX, Task, inverse_frequency_weights


def compute_class_weights(
    split_dir: Path | str, num_classes: int, *, cap: float = 20.0, ignore_index: int = IGNORE_INDEX
) -> Tensor:
    """Weights by inverse frequency of the classes in the masks of a split.

    Reads masks only, so that images need not be there. A run counts them in its one pass over the data.

    Args:
        split_dir: Folder with `*_mask.npy`, or with packed masks.
        num_classes: How many classes the masks have. Of packed ones, two means the delineations.
        cap: Largest ratio of two weights.
        ignore_index: Mask value that counts for nothing.

    Returns:
        One weight a class, `(num_classes,)` float32, mean 1 over the classes that occur; an absent one gets 1.

    Raises:
        FiresegError: If there is no mask, or a mask holds values that are no class.

    Example:
        >>> compute_class_weights("patches/train", 2)  # doctest: +SKIP
        tensor([0.35, 1.65])
    """
    counts: Counter[int] = Counter()
    faults = []
    for path, mask in _iter_masks(Path(split_dir), num_classes):
        if mask.dtype != np.uint8:
            faults.append(f"{path}: {mask.dtype}, but a mask is uint8; save mask.astype(np.uint8)")
            continue
        found = count_values(mask)
        if strange := [value for value in found if value >= num_classes and value != ignore_index]:
            faults.append(
                f"{path}: value {strange[0]}, but num_classes={num_classes} means 0 to {num_classes - 1} and "
                f"{ignore_index}; was it made for another task?"
            )
        counts.update(found)
    if faults:
        raise FiresegError(*faults[:20], *([f"and {len(faults) - 20} more"] if len(faults) > 20 else []))
    return torch.tensor(inverse_frequency_weights([counts[value] for value in range(num_classes)], cap))


def _iter_masks(folder: Path, num_classes: int) -> Iterator[tuple[str, NDArray[Any]]]:
    """Where a mask is read from, and the mask."""
    packed = folder / masks_file("del" if num_classes == 2 else "gra")
    if packed.exists():
        for row, mask in enumerate(map_array(packed)):
            yield f"{packed}: row {row}", mask
        return
    paths = sorted(folder.glob(f"*{MASK_END}"))
    if not paths:
        raise FiresegError(f"{folder}: no *{MASK_END} in it; {CURES}")
    for path in paths:
        yield str(path), read_array(path)


def sampling_weights(
    patches: Sequence[PatchStatistics], *, fire_weight: float, fire_threshold: float, ignore_index: int = IGNORE_INDEX
) -> tuple[float, ...]:
    """How often each patch is drawn, beside the others.

    Args:
        patches: Facts of the training patches.
        fire_weight: Weight of a patch with fire; every other has 1.
        fire_threshold: A patch whose burned share of the labelled pixels is above has fire.
        ignore_index: Mask value of unlabelled pixels.
    """
    return tuple(fire_weight if facts.burned_share(ignore_index) > fire_threshold else 1.0 for facts in patches)


Maker = Callable[[Path], None]

_DEL = Task(name="del", num_classes=2, class_names=DELINEATION_CLASSES)


class WildfireDataModule:
    """The splits under a root, checked once, then as batches, epoch by epoch.

    Batch `n` of epoch `e` is the same to the bit however many workers make it, and no two epochs
    draw the same augmentations.

    Args:
        patches_root: Folder with `train`, `val` and perhaps `test`: packed, or one .npy a patch.
        batch_size: Patches in a batch. A last training batch of one is put to the one before.
        task: What the masks hold; burned or not by default.
        bands: Bands that the model sees, in this order.
        num_workers: Processes that make batches, for each split in use; 0 for the main process alone.
        weighted_sampling: Whether patches with fire are drawn oftener, with replacement.
        fire_weight: How much oftener.
        fire_threshold: A patch has fire if the burned share of its labelled pixels is above.
        on_bad: What to do with files that have a fault: stop with all of them in one error, or leave them out.
        augment: What happens to training patches; nothing by default.
        maker: Called with the root before anything is read, to make the data if they aren't there.
        seed: Seed of order and augmentation.
        pin_memory: Whether batches go into page-locked memory: worth it where a CUDA device takes them.

    Attributes:
        train: Training patches, after `setup`.
        val: Validation patches, after `setup`.
        test: Test patches, after `setup`; None where there is no such split.

    Example:
        >>> data = WildfireDataModule(Path("patches"), 16)  # doctest: +SKIP
        >>> data.setup()  # doctest: +SKIP
        >>> for batch in data.train_dataloader(epoch=1): ...  # doctest: +SKIP
    """

    train: WildfirePatchDataset
    val: WildfirePatchDataset
    test: WildfirePatchDataset | None

    def __init__(
        self,
        patches_root: Annotated[Path, Field(alias="root")],
        batch_size: PositiveInt = 16,
        *,
        task: Task = _DEL,
        bands: Annotated[tuple[str, ...], AfterValidator(check_bands)] = BAND_NAMES,
        num_workers: NonNegativeInt = 0,
        weighted_sampling: bool = False,
        fire_weight: PositiveFloat = 5.0,
        fire_threshold: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01,
        on_bad: Literal["stop", "skip"] = "stop",
        augment: Augmentation | None = None,
        maker: Maker | None = None,
        seed: NonNegativeInt = 0,
        pin_memory: bool = False,
    ) -> None:
        self.patches_root = Path(patches_root)
        self.batch_size = batch_size
        self.task = task
        self.bands = tuple(bands)
        self.num_workers = num_workers
        self.weighted_sampling = weighted_sampling
        self.fire_weight = fire_weight
        self.fire_threshold = fire_threshold
        self.on_bad: Literal["stop", "skip"] = on_bad
        self.augment = augment
        self.maker = maker
        self.seed = seed
        self.pin_memory = pin_memory
        self.notes: list[str] = []
        self._survey: Survey | None = None
        self._loaders: dict[str, tuple[DataLoader[Sample], EpochBatches]] = {}

    def setup(self) -> None:
        """Makes the data if need be, and checks every file. A second call does nothing.

        Raises:
            FiresegError: With every fault of every file, unless they may be left out.
        """
        if self._survey is not None:
            return
        if self.maker is not None:
            self.maker(self.patches_root)
        found = survey(self.patches_root, task=self.task, bands=self.bands, on_bad=self.on_bad)
        self._survey, self.notes = found, list(found.notes)
        self.train, self.val = self._dataset("train", self.augment), self._dataset("val")
        self.test = self._dataset("test") if "test" in found.splits else None
        self._note_shared_memory()

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean reflectance of each band over the labelled training pixels."""
        return self._found.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each band over the labelled training pixels; 1 where it would be 0."""
        return self._found.std

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Labelled training pixels of each class."""
        return self._found.class_counts

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names and contents of all patches that take part."""
        return self._found.fingerprint

    def train_dataloader(self, epoch: int) -> Batches:
        """The training batches of one epoch, augmented.

        Args:
            epoch: Which epoch, from 1 on.
        """
        return self._batches("train", epoch)

    def val_dataloader(self) -> Batches:
        """The validation batches: every patch once, in order, as it is."""
        return self._batches("val")

    def test_dataloader(self) -> Batches:
        """The test batches: every patch once, in order, as it is.

        Raises:
            FiresegError: If there is no test split.
        """
        return self._batches("test")

    def sample_validation(self, num_patches: int) -> Batch:
        """Some validation patches to look at, up to three quarters of them with fire: the same each time.

        Args:
            num_patches: How many; fewer where the split has fewer.
        """
        split, ignored = self._found.splits["val"], self.task.ignore_index
        # Of a patch that is mostly unlabelled, as edge windows are, a picture shows little.
        most = max(facts.num_labelled(ignored) for facts in split)
        shown = [number for number, facts in enumerate(split) if 2 * facts.num_labelled(ignored) >= most]
        burned = [number for number in shown if split[number].burned_share(ignored) > self.fire_threshold]
        others = [number for number in shown if number not in set(burned)]
        num_others = min(len(others), max(num_patches // 4, num_patches - len(burned)))
        picked = _spread(burned, num_patches - num_others) + _spread(others, num_others)
        return stack([self.val[number] for number in sorted(picked)])

    def close(self) -> None:
        """Ends the worker processes. A later pass starts new ones."""
        for loader, _ in self._loaders.values():
            stop_workers(loader)
        self._loaders.clear()

    @property
    def _found(self) -> Survey:
        self.setup()
        assert self._survey is not None
        return self._survey

    def _dataset(self, split: str, augment: Augmentation | None = None) -> WildfirePatchDataset:
        return WildfirePatchDataset(
            self._found.sources[split],
            bands=self.bands,
            names=[facts.name for facts in self._found.splits[split]],
            augment=augment,
            fire_threshold=self.fire_threshold,
            ignore_index=self.task.ignore_index,
            seed=self.seed,
        )

    def _batches(self, split: str, epoch: int = 0) -> Batches:
        if split not in self._found.splits:
            raise FiresegError(f"{self.patches_root / split}: no such folder, so that there are no {split} batches")
        if split not in self._loaders:
            dataset = getattr(self, split)
            is_train = split == "train"
            order = EpochBatches(
                len(dataset), self.batch_size, seed=self.seed, is_train=is_train, weights=self._weights(split)
            )
            loader = make_loader(dataset, order, num_workers=self.num_workers, pin_memory=self.pin_memory)
            self._loaders[split] = loader, order
        loader, order = self._loaders[split]
        return Batches(loader, order, epoch)

    def _weights(self, split: str) -> Sequence[float] | None:
        if split != "train" or not self.weighted_sampling:
            return None
        return sampling_weights(
            self._found.splits[split],
            fire_weight=self.fire_weight,
            fire_threshold=self.fire_threshold,
            ignore_index=self.task.ignore_index,
        )

    def _note_shared_memory(self) -> None:
        """Workers hand batches over in shared memory; a container often has 64 MB of it, and dies without a word."""
        free = free_shared_bytes()
        if not self.num_workers or free is None:
            return
        height, width, _ = self._found.splits["train"][0].image_shape
        batch_bytes = self.batch_size * height * width * (4 * len(self.bands) + 1)
        needed = 2 * count_slots(self.num_workers) * batch_bytes  # train and val side by side
        if free < needed:
            self.notes.append(
                f"/dev/shm: {free >> 20} MB free, but {self.num_workers} workers may fill {needed >> 20} MB; "
                "set data.num_workers=0, or give the container more (docker run --shm-size=2g)"
            )


def _spread(numbers: Sequence[int], count: int) -> list[int]:
    """So many of the numbers, evenly spread; all of them where there are no more."""
    count = min(count, len(numbers))
    return [numbers[place * len(numbers) // count] for place in range(count)]
