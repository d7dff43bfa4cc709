"""Unlabelled patches for self-training: their checks, leaks into val and test, and the labels of a teacher."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fireseg.data.checks import DatasetSummary
from fireseg.data.format import JOURNAL_NAME, MAX_PIXEL_RATIO, Manifest
from fireseg.data.overlaps import Place, find_overlaps, read_places
from fireseg.data.patches import CacheKey, Fault, Part, SplitReader, UnreadableError, get_tile_name
from fireseg.data.reader import map_array, open_unlabelled
from fireseg.data.statistics import PatchStatistics, SplitStatistics, count_values, scan_split
from fireseg.errors import FiresegError, join_names, shorten
from fireseg.task import IGNORE_INDEX

_MAX_NAMES = 3


@dataclass(frozen=True, kw_only=True)
class UnlabelledPatches:
    """Unlabelled patches of one folder.

    Args:
        root: The folder.
        manifest: Its manifest.
        scan: Statistics and reader of the patches; their masks are 1 where a pixel is clear, else 0.
    """

    root: Path
    manifest: Manifest
    scan: SplitStatistics

    @cached_property
    def reader(self) -> SplitReader:
        """Reader of all patches, in the order of the statistics."""
        return self.scan.reader.select(patch.name for patch in self.scan.patches)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the names and contents of the patches."""
        lines = (f"{patch.name} {patch.digest}\n" for patch in self.scan.patches)
        return hashlib.sha256("".join(lines).encode()).hexdigest()


class UnlabelledSummary(NamedTuple):
    """Checked unlabelled patches of all folders.

    Attributes:
        folders: The patches of each folder.
        leaks: Unlabelled tiles that are one of val or test and were allowed, one line each.
        notes: Remarks for the user that do not stop the run.
    """

    folders: tuple[UnlabelledPatches, ...]
    leaks: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class PseudoLabelledReader:
    """Reads unlabelled patches with the labels of a teacher as their masks. See `SplitReader`.

    Args:
        patches: Reader of the patches.
        path: Labels as a .npy file, `(N, H, W)` uint8.
        rows: Row of each patch in the file.
    """

    patches: SplitReader
    path: Path
    rows: tuple[int, ...]
    cache_name = ""

    @property
    def folder(self) -> Path:
        """Folder of the patches."""
        return self.patches.folder

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the patches in the order of their indices."""
        return self.patches.names

    @property
    def bands(self) -> tuple[str, ...] | None:
        """Band of each channel."""
        return self.patches.bands

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_labels"}  # a map pickles its values

    def read(self, index: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Reads one patch, see `SplitReader`."""
        return self.patches.read(index)[0], self.read_mask(index)

    def read_mask(self, index: int) -> NDArray[Any]:
        """Reads the labels of one patch, see `SplitReader`."""
        return self._labels[self.rows[index]].copy()

    def select(self, names: Iterable[str]) -> PseudoLabelledReader:
        """Returns a reader of the named patches, see `SplitReader`."""
        row_of = dict(zip(self.names, self.rows, strict=True))
        names = tuple(names)
        return replace(self, patches=self.patches.select(names), rows=tuple(row_of[name] for name in names))

    def read_landcover(self, index: int) -> NDArray[np.uint8]:
        """Reads the land cover of one patch, see `SplitReader`."""
        return self.patches.read_landcover(index)

    def list_cache_keys(self) -> tuple[dict[str, CacheKey], list[Fault]]:
        """Returns cache keys, see `SplitReader`."""
        return self.patches.list_cache_keys()

    def fault(self, name: str, part: Part, message: str) -> Fault:
        """Returns a fault of the image or the labels of a patch."""
        return self.patches.fault(name, part, message) if part == "image" else Fault(self.path, message, name)

    @cached_property
    def _labels(self) -> NDArray[np.uint8]:
        return map_array(self.path)


@dataclass(frozen=True, kw_only=True)
class PseudoLabels:
    """The labels of a teacher for the patches of one folder.

    Args:
        reader: Reader of the patches that have any label.
        patches: Their statistics, with the pixels of the labels.
        num_clear: Number of clear pixels of all patches of the folder.
        fingerprint: SHA-256 over the patches and the labels.
    """

    reader: PseudoLabelledReader
    patches: tuple[PatchStatistics, ...]
    num_clear: int
    fingerprint: str


def read_pseudo_labels(unlabelled: UnlabelledPatches, path: Path, num_classes: int) -> PseudoLabels:
    """Reads the labels of a teacher for the patches of a folder; those without any label are left out.

    Args:
        unlabelled: The patches.
        path: Labels, `(N, H, W)` uint8 in the order of the reader: classes, or 255 where there is none.
        num_classes: Number of classes.

    Raises:
        FiresegError: If the file is damaged, or has another shape or other values.
    """
    cure = "delete it: the teacher labels the patches again"
    try:
        labels = map_array(path)
    except UnreadableError as error:
        raise FiresegError(f"{path}: damaged or missing; {cure}") from error
    expected = (len(unlabelled.reader), *unlabelled.scan.patches[0].mask_shape)
    if labels.dtype != np.uint8 or labels.shape != expected:
        raise FiresegError(f"{path}: {labels.dtype} of shape {labels.shape}, but uint8 {expected} is expected; {cure}")
    digest, patches = hashlib.sha256(unlabelled.fingerprint.encode()), []
    rows = []
    for row, patch in enumerate(unlabelled.scan.patches):
        digest.update(labels[row].tobytes())
        pixels = count_values(labels[row])
        if unknown := [value for value in pixels if value >= num_classes and value != IGNORE_INDEX]:
            raise FiresegError(f"{path}: value {unknown[0]}, but there are {num_classes} classes; {cure}")
        if pixels.keys() != {IGNORE_INDEX}:
            patches.append(replace(patch, pixels=pixels))
            rows.append(row)
    reader = unlabelled.reader.select(patch.name for patch in patches)
    return PseudoLabels(
        reader=PseudoLabelledReader(reader, path, tuple(rows)),
        patches=tuple(patches),
        num_clear=sum(patch.pixels.get(1, 0) for patch in unlabelled.scan.patches),
        fingerprint=digest.hexdigest(),
    )


def validate_unlabelled(
    roots: Sequence[Path],
    summary: DatasetSummary,
    labelled_roots: Sequence[Path],
    *,
    bands: Sequence[str],
    allow_leaks: bool = False,
) -> UnlabelledSummary:
    """Checks that unlabelled patches fit the labelled ones, and that none shows a tile of val or test.

    A model that learns from the images it is scored on is better there than on new fires, even without their labels.

    Args:
        roots: Folders of the unlabelled patches.
        summary: The labelled patches.
        labelled_roots: Their folders.
        bands: Bands of the model.
        allow_leaks: If True, leaks are noted; otherwise they are faults.

    Raises:
        FiresegError: With all faults of all folders.
    """
    pools: list[UnlabelledPatches] = []
    faults: list[str] = []
    for root in roots:
        try:
            reader, manifest = open_unlabelled(root)
        except FiresegError as error:
            faults += error.faults
            continue
        scan = scan_split(reader)
        pools.append(UnlabelledPatches(root=root, manifest=manifest, scan=scan))
        faults += map(str, scan.faults)
        faults += _find_misfits(pools[-1], summary, bands)
    faults += _find_repeated_names(pools, summary)
    leaks = list(dict.fromkeys(_find_leaks(pools, summary, labelled_roots)))
    notes = [
        f"data.unlabelled: {root} has no {JOURNAL_NAME}, so of unlabelled tiles that show one of val or test only "
        "those of the same name or content can be found"
        for root in (*labelled_roots, *roots)
        if read_places(root / JOURNAL_NAME) is None
    ]
    if leaks:
        more = f" and {len(leaks) - 1:,} more" if len(leaks) > 1 else ""
        text = f"data.unlabelled: shares tiles with val or test ({leaks[0]}{more}), so scores there are better than on "
        cure = "leave these tiles out, or accept them with data.allow_leaks=true"
        notes.append(f"{text}new fires")
        faults += [] if allow_leaks else [f"{text}new fires; {cure}"]
    if faults:
        raise FiresegError(*shorten(faults))
    return UnlabelledSummary(tuple(pools), tuple(leaks), tuple(notes))


def _find_misfits(pool: UnlabelledPatches, summary: DatasetSummary, bands: Sequence[str]) -> Iterator[str]:
    """Yields the differences between unlabelled and labelled patches."""
    manifest, train = pool.manifest, summary.splits["train"][0]
    place, cure = f"data.unlabelled: {pool.root} has", "prepare both with the same options"
    stored = summary.readers["train"].bands
    # Patches of other tools do not name their bands; as many as the model has are those of the model.
    expected = stored or (tuple(bands) if train.image_shape[2] == len(bands) else None)
    if manifest.bands != expected:
        shown = " ".join(expected) if expected else f"{train.image_shape[2]} channels without names"
        yield f"{place} the bands {' '.join(manifest.bands)}, but the labelled patches have {shown}; {cure}"
    if pool.scan.patches and (shape := pool.scan.patches[0].mask_shape) != train.mask_shape:
        sizes = (f"{height} x {width} px" for height, width in (shape, train.mask_shape))
        yield f"{place} patches of {next(sizes)}, but the labelled ones have {next(sizes)}; {cure} (--size)"
    for fault in compare_images(manifest, summary.pixel_m, summary.level, "the labelled"):
        yield f"{place} {fault}"
    if any(patch.pixels.keys() - {0, 1} for patch in pool.scan.patches):
        yield f"{place} damaged masks_clear.npy: values other than 0 and 1; prepare it again"


def compare_images(manifest: Manifest, pixel_m: float | None, level: str | None, others: str) -> Iterator[str]:
    """Yields the differences of pixel size and processing level between a folder and other images, if both are known.

    Args:
        manifest: Manifest of the folder.
        pixel_m: Pixel size of the others in metres.
        level: Their processing level.
        others: Name of the others in the messages.
    """
    if manifest.level and level and manifest.level != level:
        yield f"images of level {manifest.level}, but {others} ones are of level {level}; use products of one level"
    if manifest.pixel_m and pixel_m and not 1 / MAX_PIXEL_RATIO <= manifest.pixel_m / pixel_m <= MAX_PIXEL_RATIO:
        yield (
            f"pixels of {manifest.pixel_m:.3g} m, but {others} ones have {pixel_m:.3g} m; resample the images with "
            "gdalwarp -tr"
        )


def _find_repeated_names(pools: Sequence[UnlabelledPatches], summary: DatasetSummary) -> list[str]:
    """Finds tiles of one name in two folders: the labels of one would be mistaken for those of the other."""
    owner = {_get_tile(patch): "the labelled training patches" for patch in summary.splits["train"]}
    repeated: dict[tuple[str, str], list[str]] = {}
    for pool in pools:
        for tile in _list_tiles(pool.scan.patches):
            if (other := owner.setdefault(tile, str(pool.root))) != str(pool.root):
                repeated.setdefault((str(pool.root), other), []).append(tile)
    return [
        f"data.unlabelled: {root} has tiles of the same name as {other} ({join_names(tiles, _MAX_NAMES)}); remove them "
        "if they are the same, otherwise rename them and prepare them again"
        for (root, other), tiles in repeated.items()
    ]


def _find_leaks(
    pools: Sequence[UnlabelledPatches], summary: DatasetSummary, labelled_roots: Sequence[Path]
) -> Iterator[str]:
    """Yields unlabelled tiles that are one of val or test: by name, activation, overlap, or the content of a patch."""
    held_out = {split: summary.splits[split] for split in ("val", "test") if split in summary.splits}
    split_of = {tile: split for split, patches in held_out.items() for tile in _list_tiles(patches)}
    places: dict[str, Place] = {}
    for root in labelled_roots:
        places |= read_places(root / JOURNAL_NAME) or {}
    held_places = {tile: places[tile] for tile in split_of if tile in places}
    by_range: dict[tuple[Any, ...], list[tuple[str, int]]] = {}
    for split, patches in held_out.items():
        for number, patch in enumerate(patches):
            by_range.setdefault(_get_range(patch), []).append((split, number))
    selected = {
        split: summary.readers[split].select(patch.name for patch in patches) for split, patches in held_out.items()
    }
    for pool in pools:
        known = read_places(pool.root / JOURNAL_NAME) or {}
        own = {tile: known[tile] for tile in _list_tiles(pool.scan.patches) if tile in known}
        found = {tile: tile for tile in _list_tiles(pool.scan.patches) if tile in split_of}
        yield from (f"same name: {split_of[tile]} {tile}" for tile in found)
        for kind, tile, other in _find_near(own, held_places):
            if tile not in found:
                found[tile] = other
                yield f"{kind}: {split_of[other]} {other} and unlabelled {tile}"
        for number, patch in enumerate(pool.scan.patches):
            if _get_tile(patch) in found or patch.low == patch.high:  # patches of one value are equal by chance
                continue
            for split, other in by_range.get(_get_range(patch), ()):
                if np.array_equal(pool.reader.read(number)[0], selected[split].read(other)[0]):
                    yield f"same content: {split} {held_out[split][other].name} and unlabelled {patch.name}"


def _find_near(own: Mapping[str, Place], others: Mapping[str, Place]) -> Iterator[tuple[str, str, str]]:
    """Yields kind, tile and other tile of all pairs of one activation or of overlapping footprints."""
    of_activation = {place.activation: tile for tile, place in others.items()}
    for tile, place in own.items():
        if place.activation in of_activation:
            yield "activation", tile, of_activation[place.activation]
    tiles = [*own, *others]
    for one, another in find_overlaps([place.box for place in (*own.values(), *others.values())]):
        if one < len(own) <= another:
            yield "overlap", tiles[one], tiles[another]


def _get_range(patch: PatchStatistics) -> tuple[Any, ...]:
    """Returns what equal images have in common and is known without reading them."""
    return (*patch.image_shape, patch.low, patch.high)


def _get_tile(patch: PatchStatistics) -> str:
    return get_tile_name(patch.name) or patch.name


def _list_tiles(patches: Iterable[PatchStatistics]) -> list[str]:
    return list(dict.fromkeys(map(_get_tile, patches)))
