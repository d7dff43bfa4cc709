"""Files on disk into batches."""

from fireseg.data.augment import FireAwareAugmentation, get_strong_augmentation, get_training_augmentation
from fireseg.data.balance import compute_class_weights
from fireseg.data.dataset import WildfirePatchDataset
from fireseg.data.module import WildfireDataModule

__all__ = [
    "FireAwareAugmentation",
    "WildfireDataModule",
    "WildfirePatchDataset",
    "compute_class_weights",
    "get_strong_augmentation",
    "get_training_augmentation",
]
