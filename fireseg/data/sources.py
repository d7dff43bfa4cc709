"""Which kind of patches lies under a root: told by what is there, not by a setting."""

from __future__ import annotations

from pathlib import Path

from fireseg.data.cutting.record import RECORD
from fireseg.data.manifest import AGAIN, MANIFEST_NAME, Manifest, read_manifest
from fireseg.data.packed import open_packed
from fireseg.data.patches import IMAGE_END, MASK_END, SPLITS, WAYS_OUT, PatchFolder, PatchSource, list_patches
from fireseg.data.store import IMAGES, MASKS, MaskName
from fireseg.errors import FiresegError


def find_sources(root: Path, task_name: str) -> tuple[dict[str, PatchSource], Manifest | None]:
    """The splits under a root: train and val, and test where there is one.

    Args:
        root: Folder of the splits.
        task_name: What the masks should hold.

    Returns:
        The splits, and what the data set says of itself where it does.

    Raises:
        FiresegError: With all faults of all splits: one that training needs is missing, files do not
            fit together, masks were made for another task.
    """
    folders = find_splits(root)
    manifest = _read_manifest(root)
    sources: dict[str, PatchSource] = {}
    faults: list[str] = []
    for split, folder in folders.items():
        try:
            sources[split] = _open(folder, manifest, task_name)
        except FiresegError as error:
            faults += [fault for fault in error.faults if fault not in faults]
    if faults:
        raise FiresegError(*faults)
    return sources, manifest


def open_source(folder: Path, task_name: str | None = None) -> PatchSource:
    """The patches of one split folder.

    Args:
        folder: The split folder.
        task_name: What the masks should hold; by default what there is, and delineations where both are.

    Raises:
        FiresegError: If there is no such folder, no patch in it, or its files do not fit together.
    """
    if not folder.is_dir():
        raise FiresegError(f"{folder}: no such folder; {WAYS_OUT}")
    manifest = _read_manifest(folder.parent)
    source = _open(folder, manifest, task_name or (manifest and manifest.task) or "del")
    if isinstance(source, PatchFolder):
        source = source.take(list_patches(folder)[0])
    if not source.names:
        raise FiresegError(f"{folder}: no patch in it, that is no *{IMAGE_END} with its *{MASK_END}; {WAYS_OUT}")
    return source


def find_splits(root: Path) -> dict[str, Path]:
    """The split folders under a root: train and val, and test where there is one.

    Raises:
        FiresegError: If the root or one of the two that training needs is missing.
    """
    if not root.is_dir():
        raise FiresegError(f"{root}: no such folder; {WAYS_OUT}")
    found = {split: root / split for split in SPLITS if (root / split).is_dir()}
    if missing := [split for split in ("train", "val") if split not in found]:
        raise FiresegError(*(f"{root / split}: no such folder, but training needs it; {WAYS_OUT}" for split in missing))
    return found


def _read_manifest(root: Path) -> Manifest | None:
    """The manifest, or nothing where the patches are others'. Without one, patches of ours are not all there."""
    manifest = read_manifest(root)
    ours = (root / RECORD, *root.glob(f"*/{IMAGES}"))
    if manifest is None and (found := next((path for path in ours if path.exists()), None)):
        raise FiresegError(f"{root}: has {found.relative_to(root)}, but no {MANIFEST_NAME}: not whole yet; {AGAIN}")
    return manifest


def _open(folder: Path, manifest: Manifest | None, task_name: str) -> PatchSource:
    if manifest is None:
        return PatchFolder(folder)
    if manifest.layout == "packed":
        return open_packed(folder, _pick_labels(folder.parent, task_name), manifest)
    if manifest.task not in (None, task_name):
        raise FiresegError(
            f"{folder.parent}: made with --task {manifest.task}, but the task is {task_name}; "
            f"train with task={manifest.task}, or prepare another folder"
        )
    whole, halves = list_patches(folder)
    num_found, num_made = len(whole) + len(halves), manifest.patches.get(folder.name, 0)
    if num_found != num_made:
        raise FiresegError(
            f"{folder}: {num_found} patches, but {MANIFEST_NAME} says {num_made}: not all there; {AGAIN}"
        )
    return PatchFolder(folder, bands=manifest.bands)


def _pick_labels(root: Path, task_name: str) -> MaskName:
    for labels in MASKS:
        if task_name == labels:
            return labels
    raise FiresegError(
        f"task.name: {task_name}, but {root} has masks for {' and '.join(MASKS)}; name one of them, "
        "or give masks of your own as one .npy a patch"
    )
