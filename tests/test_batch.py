"""Batches move between devices."""

import torch

from fireseg.batch import Batch


def test_a_batch_moves_to_a_device_and_keeps_its_names():
    batch = Batch(torch.ones(2, 7, 4, 4), torch.zeros(2, 4, 4, dtype=torch.uint8), ("a", "b"))

    moved = batch.to(torch.device("meta"))

    assert (moved.image.device.type, moved.mask.device.type) == ("meta", "meta")
    assert moved.names == ("a", "b")
