"""Segmentation losses: cross-entropy, focal, Dice, Tversky, boundary and ordinal loss, and their weighted sum."""

from fireseg.loss.auxiliary import AuxiliaryLoss
from fireseg.loss.combined import CombinedLoss, create_loss
from fireseg.loss.cross_entropy import FocalLoss
from fireseg.loss.overlap import DiceLoss

__all__ = ["AuxiliaryLoss", "CombinedLoss", "DiceLoss", "FocalLoss", "create_loss"]
