"""Batches move between devices and are divided into shards."""

import pytest
import torch

from fireseg.batch import Batch, Sharding


def test_a_batch_moves_to_a_device_and_keeps_its_names():
    batch = Batch(torch.ones(2, 7, 4, 4), torch.zeros(2, 4, 4, dtype=torch.uint8), ("a", "b"))

    moved = batch.to(torch.device("meta"))

    assert (moved.image.device.type, moved.mask.device.type) == ("meta", "meta")
    assert moved.names == ("a", "b")


@pytest.mark.parametrize(
    ("num_patches", "sizes"),
    [
        (12, (3, 3, 3, 3)),
        (13, (3, 3, 3, 4)),  # the last patch of an epoch, merged into the batch before
        (11, (3, 3, 3, 2)),
        (7, (3, 4, 0, 0)),  # never one patch alone
        (2, (2, 0, 0, 0)),
    ],
)
def test_a_smaller_batch_fills_the_first_shards(num_patches: int, sizes: tuple[int, ...]):
    assert Sharding(4).split(num_patches, batch_size=12) == sizes


def test_a_process_has_neighbouring_shards():
    assert [list(Sharding(8, rank, 4).own) for rank in range(4)] == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_a_batch_keeps_its_division_on_another_device():
    batch = Batch(torch.ones(2, 7, 4, 4), torch.zeros(2, 4, 4), ("a", "b"), (2, 3))

    assert batch.to(torch.device("meta")).shard_sizes == (2, 3)
    assert batch.num_patches == 5
