"""Bands in, logits out: the model, what it decides, and where its weights come from."""

from fireseg.model.create import create_segmentation_model
from fireseg.model.network import FireSegmentationModel

__all__ = ["FireSegmentationModel", "create_segmentation_model"]
