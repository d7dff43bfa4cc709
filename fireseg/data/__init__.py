"""Patch data sets: format on disk, validation, augmentation and batches."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fireseg.data.acquisition import AcquisitionAugmentation
    from fireseg.data.augment import FireAwareAugmentation, get_strong_augmentation, get_training_augmentation
    from fireseg.data.dataset import WildfirePatchDataset
    from fireseg.data.module import WildfireDataModule
    from fireseg.data.weights import compute_class_weights


__all__ = [
    "AcquisitionAugmentation",
    "FireAwareAugmentation",
    "WildfireDataModule",
    "WildfirePatchDataset",
    "compute_class_weights",
    "get_strong_augmentation",
    "get_training_augmentation",
]

_MODULES = {
    "AcquisitionAugmentation": "acquisition",
    "FireAwareAugmentation": "augment",
    "WildfireDataModule": "module",
    "WildfirePatchDataset": "dataset",
    "compute_class_weights": "weights",
    "get_strong_augmentation": "augment",
    "get_training_augmentation": "augment",
}


def __getattr__(name: str) -> Any:
    """Imports a name on first use: preparing tiles needs neither the time nor the half gigabyte of torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
