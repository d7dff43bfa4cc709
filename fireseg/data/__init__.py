"""Files on disk into batches."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fireseg.data.augment import FireAwareAugmentation, get_strong_augmentation, get_training_augmentation
    from fireseg.data.dataset import WildfirePatchDataset
    from fireseg.data.module import WildfireDataModule, compute_class_weights


__all__ = [
    "FireAwareAugmentation",
    "WildfireDataModule",
    "WildfirePatchDataset",
    "compute_class_weights",
    "get_strong_augmentation",
    "get_training_augmentation",
]

_HOMES = {
    "FireAwareAugmentation": "augment",
    "WildfireDataModule": "module",
    "WildfirePatchDataset": "dataset",
    "compute_class_weights": "module",
    "get_strong_augmentation": "augment",
    "get_training_augmentation": "augment",
}


def __getattr__(name: str) -> Any:
    """Fetches on first use: whoever only cuts tiles need not wait for torch, nor hold its half gigabyte."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
