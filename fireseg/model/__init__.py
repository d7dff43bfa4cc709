"""The segmentation model: creation, network, encoders and pretrained weights."""

from fireseg.model.create import create_segmentation_model
from fireseg.model.network import FireSegmentationModel, drop_auxiliary_head

__all__ = ["FireSegmentationModel", "create_segmentation_model", "drop_auxiliary_head"]
