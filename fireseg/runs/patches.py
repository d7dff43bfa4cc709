"""Opens the patches that a run was trained on, or others, with the settings of the run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fireseg.config import make
from fireseg.data import WildfireDataModule
from fireseg.data.format import read_manifest
from fireseg.data.patches import ALL, SPLITS
from fireseg.errors import FiresegError, SettingError
from fireseg.model.network import MIN_SIZE_PX
from fireseg.runs.load import TrainedModel
from fireseg.task import Task

log = logging.getLogger("fireseg")


def open_data_module(
    settings: Mapping[str, Any],
    root: Path | list[Path],
    *,
    task: Task,
    required: str,
    num_workers: int | None = None,
    as_stored: bool = False,
) -> WildfireDataModule:
    """Opens patches with the settings of a run, without augmentation, crops, weighted sampling and sample generation.

    Args:
        settings: Settings of the run.
        root: Folder of the splits, or several that are joined.
        task: Classes of the masks.
        required: Split that must be there; the others are opened if they are.
        num_workers: Processes that read patches; as in the run if None.
        as_stored: Returns reflectance also if the run was trained on reflectance relative to the scene.

    Raises:
        FiresegError: If patches are missing, or do not fit the run.
        SettingError: If the required split is missing.
    """
    roots = root if isinstance(root, list) else [root]
    for one in roots:
        _check_split(one, required)
    node_root = str(root) if isinstance(root, Path) else [str(one) for one in root]
    changes: dict[str, Any] = {"root": node_root, "augment": None, "crop": None, "maker": None}
    changes |= {"weighted_sampling": False, "unlabelled": None, "teacher": None}
    changes |= {} if num_workers is None else {"num_workers": num_workers}
    changes |= {"normalisation": "dataset"} if as_stored else {}
    node = {**settings["data"], **changes, "fold": _get_fold(settings, roots[0])}
    module = make(node, WildfireDataModule, task=task, seed=settings["seed"])
    module.setup(required=(required,))
    for note in module.notes:
        log.warning(note)
    return module


def _check_split(root: Path, split: str) -> None:
    if (root / ALL).is_dir():
        return  # the fold of the run says which patches are in the split
    available = [name for name in SPLITS if (root / name).is_dir()]
    if split not in available:
        cure = f"available: {' '.join(available)}; try --split {available[-1]}" if available else "give another --data"
        raise SettingError(f"--split {split}: {root} has no {split} patches; {cure}")


def _get_fold(settings: Mapping[str, Any], root: Path) -> int | None:
    """Returns the fold that the run was trained on; None for patches without folds, as given by the user."""
    manifest, fold = read_manifest(root), settings["data"].get("fold")
    if manifest is None or not manifest.folds:
        return None
    if fold is None:
        raise SettingError(
            f"{root}: has {len(manifest.folds)} folds, but the run was trained on patches without; "
            "give a folder with train, val and test with --data PATCHES"
        )
    return fold


def find_patches_root(
    settings: Mapping[str, Any], provenance: Mapping[str, Any], given: Path | None
) -> Path | list[Path]:
    """Finds the folder of the patches, or folders: the given one, or those that the run was trained on.

    Args:
        settings: Settings of the run.
        provenance: Contents of run.json.
        given: Folder given by the user, or None.

    Raises:
        FiresegError: If the folder does not exist.
    """
    if given is not None:
        if not given.is_dir():
            raise SettingError(f"--data {given}: no such folder; give the folder that holds train, val and test")
        return given
    # data.root may be relative to the working directory of the training; run.json has the absolute path.
    named = [provenance["data"]["root"]] if "data" in provenance else []
    named.append(settings["data"]["root"])
    choices = [[Path(one) for one in (root if isinstance(root, list) else [root])] for root in named]
    for roots in choices:
        if all(root.is_dir() for root in roots):
            return roots if len(roots) > 1 else roots[0]
    missing = " and ".join(str(root) for root in choices[0] if not root.is_dir())
    raise FiresegError(
        f"data.root: {missing}: no such folder any more, but the run was trained on the patches in it; "
        "give their folder with --data PATCHES"
    )


def open_val_patches(trained: TrainedModel, given: Path | None, *, as_stored: bool = False) -> WildfireDataModule:
    """Opens the val patches that a model was validated on, or others, for comparisons of its conversions.

    Args:
        trained: Model, with the folder of its run if there is one.
        given: Folder of the patches given by the user, or None.
        as_stored: As in `open_data_module`.

    Raises:
        FiresegError: If the patches are not available, or do not fit the run.
    """
    try:
        root = find_patches_root(trained.settings, trained.provenance, given)
        return open_data_module(
            trained.settings, root, task=trained.task, required="val", num_workers=0, as_stored=as_stored
        )
    except KeyError as error:
        raise FiresegError(f"{trained.checkpoint}: {error} is missing from the settings") from error


def select_evenly(total: int, most: int) -> list[int]:
    """Selects evenly spaced numbers from 0 to `total` - 1, the first and the last included.

    Args:
        total: Number of items, at least 1.
        most: Largest number of items to select.

    Example:
        >>> select_evenly(9, 3), select_evenly(2, 3)
        ([0, 4, 8], [0, 1])
    """
    return np.unique(np.linspace(0, total - 1, min(most, total)).round().astype(int)).tolist()


def mirror_image(image: NDArray[np.float32], size: int | None = None) -> NDArray[np.float32]:
    """Mirrors an image to the next multiple of 32 from 64 on, or to a fixed size.

    Args:
        image: `(C, H, W)`.
        size: Height and width in pixels; what is larger is cropped. None for multiples of 32.
    """
    height, width = image.shape[1:]
    rows, cols = (
        (size, size)
        if size
        else (max(2 * MIN_SIZE_PX, -(-side // MIN_SIZE_PX) * MIN_SIZE_PX) for side in (height, width))
    )
    image = image[:, :rows, :cols]
    padding = ((0, 0), (0, rows - image.shape[1]), (0, cols - image.shape[2]))
    return np.ascontiguousarray(np.pad(image, padding, mode="symmetric"))
