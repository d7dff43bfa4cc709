"""Data module: validates the splits once, then loads batches epoch by epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch.utils.data import DataLoader

from fireseg.batch import UNDIVIDED, Batch, Sharding
from fireseg.data.augment import Augmentation
from fireseg.data.bands import BAND_NAMES, check_bands
from fireseg.data.checks import DatasetSummary, validate_dataset
from fireseg.data.dataset import EpochBatchSampler, Sample, WildfirePatchDataset
from fireseg.data.joined import JoinedReader
from fireseg.data.loader import (
    EpochLoader,
    count_buffers,
    free_shared_memory,
    make_loader,
    stack_samples,
    stop_workers,
)
from fireseg.data.scene_normalisation import Normalisation, compute_split_scalings, get_reference
from fireseg.data.statistics import PatchStatistics
from fireseg.data.unlabelled import PseudoLabels, UnlabelledSummary, validate_unlabelled
from fireseg.data.weights import compute_sampling_weights
from fireseg.errors import FiresegError, SettingError
from fireseg.files import count_cores
from fireseg.indices import check_indices
from fireseg.pairs import add_pre_bands
from fireseg.task import TASKS, Task

Maker = Callable[[Path], None]

DEFAULT_WORKERS = 2
"""Number of worker processes in conf/, which is allowed on a single core, too."""


class WildfireDataModule:
    """Loads the batches of the splits under a root.

    Batch `n` of epoch `e` is the same to the bit for any number of workers, and no two epochs
    use the same augmentations.

    Args:
        patches_root: Folder with `train`, `val` and perhaps `test`: packed, or one .npy per patch. Several folders
            are joined; they must have the same bands, sizes and masks.
        batch_size: Patches per batch. A last training batch of one is merged into the one before.
        task: Task of the masks; burned or not by default.
        bands: Bands of the model, in this order.
        pre: Also reads these bands of a scene before the fire, as `B02_PRE` and so on, behind them.
        indices: Spectral indices that the model computes from them. Batches contain only the bands.
        normalisation: `dataset` normalises by mean and standard deviation of the training pixels; `scene` first gives
            every band of every tile the same median and interquartile range, so that batches contain reflectance
            relative to the scene, see `scene_normalisation`.
        num_workers: Worker processes for each split in use, at most one per core, or 2; 0 loads in the main process.
        weighted_sampling: Samples patches with fire more often, with replacement.
        fire_weight: Sampling weight of patches with fire, relative to the others.
        fire_threshold: A patch has fire if more than this share of its labelled pixels is burned.
        fold: Fold of a cross-validation, from 0, if the patches were prepared with folds.
        fraction: Share of the training patches to use, for scores as a function of the amount of labels. The
            seed chooses the part; smaller parts are contained in larger ones.
        max_tiles: Number of training tiles to use, chosen in the same way; None for all.
        on_bad: Treatment of faulty files: `stop` with all of them in one error, or `skip` them.
        allow_leaks: Trains although a patch is in two splits, by its name or content, and notes it.
        augment: Augmentation of training patches; none by default.
        crop: Side in pixels of the square that training cuts from each patch at a random offset, which is drawn anew in
            each epoch, so that the place of a fire in its window tells the model nothing; a multiple of 32, at most the
            side of the patches. None trains on whole patches. Validation patches stay whole.
        unlabelled: Folder of patches without labels, or several, made by `prepare --unlabelled`. They join the training
            patches with the labels that `add_pseudo_labels` gives them, and count neither into class weights nor into
            the normalisation.
        teacher: Run, checkpoint file or MLflow URI of the model that labels them.
        pseudo_confidence: Probability from which on the teacher's class is the label of a pixel, 0.5 to 1.
        maker: Function that creates the data under the root if missing; called before anything is read.
        seed: Seed of order and augmentation.
        pin_memory: Copies batches to page-locked memory, for transfer to a CUDA device.
        sharding: Part of this process in the batches, if several train a run together.

    Attributes:
        roots: Folders of the data sets.
        patches_root: The first of them.
        bands: Bands of the batches, in order.
        train: Training patches, after `setup`.
        val: Validation patches, after `setup`.
        test: Test patches, after `setup`; None if there is no such split.
        notes: Remarks for the user that do not stop the run, after `setup`.
        unlabelled_roots: Folders of the unlabelled patches.
        unlabelled: The unlabelled patches, after `setup`.

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
        patches_root: Annotated[Path | list[Path], Field(alias="root")],
        batch_size: PositiveInt = 16,
        *,
        task: Task = TASKS["del"],
        bands: Annotated[tuple[str, ...], AfterValidator(check_bands)] = BAND_NAMES,
        pre: bool = False,
        indices: Annotated[tuple[str, ...], AfterValidator(check_indices)] = (),
        normalisation: Normalisation = "dataset",
        num_workers: NonNegativeInt = 0,
        weighted_sampling: bool = False,
        fire_weight: PositiveFloat = 5.0,
        fire_threshold: Annotated[float, Field(ge=0.0, le=1.0)] = 0.01,
        fold: NonNegativeInt | None = None,
        fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0,
        max_tiles: PositiveInt | None = None,
        on_bad: Literal["stop", "skip"] = "stop",
        allow_leaks: bool = False,
        augment: Augmentation | None = None,
        crop: Annotated[int, Field(ge=32, multiple_of=32)] | None = None,
        unlabelled: Path | list[Path] | None = None,
        teacher: str | None = None,
        pseudo_confidence: Annotated[float, Field(ge=0.5, lt=1.0)] = 0.9,
        maker: Maker | None = None,
        seed: NonNegativeInt = 0,
        pin_memory: bool = False,
        sharding: Sharding = UNDIVIDED,
    ) -> None:
        self.roots = tuple(map(Path, patches_root if isinstance(patches_root, list) else [patches_root]))
        given = [] if unlabelled is None else unlabelled if isinstance(unlabelled, list) else [unlabelled]
        self.unlabelled_roots = tuple(map(Path, given))
        _check_roots(self.roots, self.unlabelled_roots, maker)
        self.patches_root = self.roots[0]
        self.batch_size = batch_size
        self.task = task
        self.bands = add_pre_bands(bands, pre)
        self.indices = tuple(indices)
        self.normalisation: Normalisation = normalisation
        self.num_workers = min(num_workers, max(count_cores(), DEFAULT_WORKERS))
        self.weighted_sampling = weighted_sampling
        self.fire_weight = fire_weight
        self.fire_threshold = fire_threshold
        self.fold = fold
        self.fraction = fraction
        self.max_tiles = max_tiles
        self.on_bad: Literal["stop", "skip"] = on_bad
        self.allow_leaks = allow_leaks
        self.augment = augment
        self.crop = crop
        self.teacher = teacher
        self.pseudo_confidence = pseudo_confidence
        self.unlabelled = UnlabelledSummary((), (), ())
        self.maker = maker
        self.seed = seed
        self.pin_memory = pin_memory
        self.sharding = sharding
        self.notes: list[str] = []
        if self.num_workers < num_workers:  # hundreds of processes exhaust a machine and load no faster
            cores = f"this process has {count_cores()} cores"
            self.notes.append(f"data.num_workers: {num_workers}, but {cores}; {self.num_workers} are used")
        self._summary: DatasetSummary | None = None
        self._train_patches: tuple[PatchStatistics, ...] = ()
        self._has_pseudo_labels = False
        self._loaders: dict[str, tuple[DataLoader[Sample], EpochBatchSampler]] = {}

    def setup(self, *, required: Sequence[str] = ("train", "val")) -> None:
        """Creates the data if needed and validates every file. Further calls do nothing.

        Args:
            required: Splits that must be there; `train` and `val` are undefined if not required and missing.

        Raises:
            FiresegError: With every fault of every file, unless they may be skipped.
        """
        if self._summary is not None:
            return
        if self.maker is not None:
            self.maker(self.patches_root)
        summary = validate_dataset(
            self.roots if len(self.roots) > 1 else self.patches_root,
            task=self.task,
            bands=self.bands,
            on_bad=self.on_bad,
            required=required,
            fold=self.fold,
            fraction=self.fraction,
            max_tiles=self.max_tiles,
            seed=self.seed,
            allow_leaks=self.allow_leaks,
        )
        self._summary, self.notes = summary, [*self.notes, *summary.notes]
        if self.unlabelled_roots and "train" in required:
            self.unlabelled = validate_unlabelled(
                self.unlabelled_roots, summary, self.roots, bands=self.bands, allow_leaks=self.allow_leaks
            )
            self.notes += self.unlabelled.notes
        if "train" in summary.splits:
            self._train_patches = summary.splits["train"]
            self._check_crop()
            landcover = self.task.auxiliary is not None
            self.train = self._create_dataset("train", self.augment, crop=self.crop, landcover=landcover)
            if self.train.landcover:
                self.train.patches.read_landcover(0)  # before anything else takes time
        if "val" in summary.splits:
            self.val = self._create_dataset("val")
        self.test = self._create_dataset("test") if "test" in summary.splits else None
        if self.sharding.num_shards > 1 and len(self.train) < self.batch_size:
            raise SettingError(
                f"data.batch_size: {self.batch_size}, but there are {len(self.train)} training patches, and "
                f"engine.shards={self.sharding.num_shards} needs a full batch; lower data.batch_size"
            )
        self._note_shared_memory()

    def add_pseudo_labels(self, labels: Sequence[PseudoLabels]) -> None:
        """Adds unlabelled patches with the labels of a teacher to the training patches.

        Args:
            labels: Those of each folder of unlabelled patches.
        """
        train = self.summary.readers["train"].select(patch.name for patch in self.summary.splits["train"])
        reader = JoinedReader.join([train, *(one.reader for one in labels)])
        patches = [*self.summary.splits["train"], *(patch for one in labels for patch in one.patches)]
        self._train_patches = tuple(sorted(patches, key=lambda patch: patch.name))
        self.train.patches = reader
        if self.train.scalings is not None:
            self.train.scalings = compute_split_scalings(reader, self.bands)
        for one in labels if self.train.landcover else ():
            one.reader.read_landcover(0)
        self._has_pseudo_labels = True

    @property
    def summary(self) -> DatasetSummary:
        """Readers and statistics of the data set; runs `setup` if needed."""
        self.setup()
        assert self._summary is not None
        return self._summary

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean reflectance of each band over the labelled training pixels, or that of scene-relative reflectance."""
        return self.summary.mean if self.normalisation == "dataset" else get_reference(self.bands)[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each band over the same; 1 for a constant band."""
        return self.summary.std if self.normalisation == "dataset" else get_reference(self.bands)[1]

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Number of labelled training pixels of each class; where patches of a tile overlap, each pixel counts once."""
        return self.summary.class_counts

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the names and contents of all patches, those that are left out of training included."""
        return self.summary.fingerprint

    def train_dataloader(self, epoch: int) -> EpochLoader:
        """Returns the augmented training batches of one epoch.

        Args:
            epoch: Epoch number, from 1.
        """
        return self._load("train", epoch)

    def val_dataloader(self) -> EpochLoader:
        """Returns the validation batches: every patch once, in order, without augmentation."""
        return self._load("val")

    def test_dataloader(self) -> EpochLoader:
        """Returns the test batches: every patch once, in order, without augmentation.

        Raises:
            FiresegError: If there is no test split.
        """
        return self._load("test")

    def sample_validation(self, num_patches: int) -> Batch:
        """Returns a fixed selection of validation patches for display, up to three quarters of them with fire.

        Args:
            num_patches: Number of patches; fewer if the split has fewer.
        """
        patches, ignore_index = self.summary.splits["val"], self.task.ignore_index
        # Patches at the edge of a tile may be mostly unlabelled and show little.
        max_labelled = max(patch.num_labelled(ignore_index) for patch in patches)
        shown = [index for index, patch in enumerate(patches) if 2 * patch.num_labelled(ignore_index) >= max_labelled]
        burned = [index for index in shown if patches[index].burned_share(ignore_index) > self.fire_threshold]
        others = [index for index in shown if index not in set(burned)]
        num_others = min(len(others), max(num_patches // 4, num_patches - len(burned)))
        selected = _evenly_spaced(burned, num_patches - num_others) + _evenly_spaced(others, num_others)
        return stack_samples([self.val[index] for index in sorted(selected)])

    def close(self) -> None:
        """Stops the worker processes. The next epoch starts new ones."""
        for loader, _ in self._loaders.values():
            stop_workers(loader)
        self._loaders.clear()

    def _check_crop(self) -> None:
        height, width, _ = self.summary.splits["train"][0].image_shape
        if self.crop is None or self.crop <= min(height, width):
            return
        largest = min(height, width) // 32 * 32
        cure = f"at most data.crop={largest}, or none" if largest else "no crop"
        raise SettingError(
            f"data.crop: {self.crop}, but the patches in {self.patches_root / 'train'} have {height} x {width} px; use "
            f"{cure}, or prepare larger patches (--size)"
        )

    def _create_dataset(
        self, split: str, augment: Augmentation | None = None, *, crop: int | None = None, landcover: bool = False
    ) -> WildfirePatchDataset:
        reader = self.summary.readers[split].select(patch.name for patch in self.summary.splits[split])
        is_relative = self.normalisation == "scene"
        return WildfirePatchDataset(
            reader,
            bands=self.bands,
            augment=augment,
            crop=crop,
            landcover=landcover,
            scalings=compute_split_scalings(reader, self.bands) if is_relative else None,
            fire_threshold=self.fire_threshold,
            ignore_index=self.task.ignore_index,
            seed=self.seed,
        )

    def _load(self, split: str, epoch: int = 0) -> EpochLoader:
        if split not in self.summary.splits:
            raise FiresegError(f"{self.patches_root / split}: no such folder, needed for the {split} batches")
        assert split != "train" or self._has_pseudo_labels or not self.unlabelled_roots
        if split not in self._loaders:
            dataset = getattr(self, split)
            is_train = split == "train"
            weights = self._compute_weights() if is_train and self.weighted_sampling else None
            sampler = EpochBatchSampler(
                len(dataset),
                self.batch_size,
                seed=self.seed,
                is_train=is_train,
                weights=weights,
                sharding=self.sharding,
            )
            loader = make_loader(dataset, sampler, num_workers=self.num_workers, pin_memory=self.pin_memory)
            self._loaders[split] = loader, sampler
        loader, sampler = self._loaders[split]
        return EpochLoader(loader, sampler, epoch)

    def _compute_weights(self) -> Sequence[float]:
        return compute_sampling_weights(
            self._train_patches,
            fire_weight=self.fire_weight,
            fire_threshold=self.fire_threshold,
            ignore_index=self.task.ignore_index,
        )

    def _note_shared_memory(self) -> None:
        """Notes too little shared memory for the workers: a container with 64 MB kills them without a message."""
        free_bytes = free_shared_memory()
        if not self.num_workers or free_bytes is None:
            return
        height, width, _ = next(iter(self.summary.splits.values()))[0].image_shape
        batch_bytes = self.batch_size * height * width * (4 * len(self.bands) + 1)
        needed_bytes = 2 * count_buffers(self.num_workers) * batch_bytes  # train and val are open together
        if free_bytes < needed_bytes:
            self.notes.append(
                f"/dev/shm: {free_bytes >> 20} MB free, but {self.num_workers} workers may use {needed_bytes >> 20} "
                "MB; set data.num_workers=0, or give the container more (docker run --shm-size=2g)"
            )


def _check_roots(roots: Sequence[Path], unlabelled: Sequence[Path], maker: Maker | None) -> None:
    if not roots:
        raise SettingError("data.root: an empty list, but must name a folder of patches; such as data.root=patches")
    if len(roots) > 1 and maker is not None:
        raise SettingError(
            "data.root: several folders, but data.maker generates the patches of one; use data=patches for folders "
            "that exist"
        )
    for key, folders in (("data.root", roots), ("data.unlabelled", unlabelled)):
        repeated = [root for root, count in Counter(root.resolve() for root in folders).items() if count > 1]
        if repeated:
            raise SettingError(f"{key}: {repeated[0]} more than once; name each folder once")


def _evenly_spaced(numbers: Sequence[int], count: int) -> list[int]:
    """Returns `count` of the numbers, evenly spaced, or all if there are fewer."""
    count = min(count, len(numbers))
    return [numbers[number * len(numbers) // count] for number in range(count)]
