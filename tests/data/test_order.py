"""Which patch is drawn when."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireseg.data.dataset import Draw, EpochBatches, batch_sizes, draw_order, sample_rng


@given(st.integers(1, 200), st.integers(1, 40), st.booleans())
def test_batches_hold_every_patch_and_none_but_a_last_one_is_small(num: int, size: int, merge_last: bool) -> None:
    sizes = batch_sizes(num, size, merge_last=merge_last)
    assert sum(sizes) == num
    assert all(one == size for one in sizes[:-1])
    assert sizes[-1] <= size + 1


@pytest.mark.parametrize(
    ("num", "size", "wanted"), [(9, 4, [4, 5]), (8, 4, [4, 4]), (10, 4, [4, 4, 2]), (1, 4, [1]), (3, 1, [1, 1, 1])]
)
def test_a_last_training_batch_of_one_joins_the_one_before(num: int, size: int, wanted: list[int]) -> None:
    assert batch_sizes(num, size, merge_last=True) == wanted


def test_a_last_validation_batch_of_one_stays() -> None:
    assert batch_sizes(9, 4, merge_last=False) == [4, 4, 1]


@given(st.integers(1, 100), st.integers(0, 2**40), st.integers(0, 1000))
def test_an_epoch_draws_every_patch_once(num: int, seed: int, epoch: int) -> None:
    draws = draw_order(num, seed=seed, epoch=epoch)
    assert sorted(draw.patch for draw in draws) == list(range(num))
    assert [draw.position for draw in draws] == list(range(num))
    assert {draw.epoch for draw in draws} == {epoch}


def test_epochs_and_seeds_have_orders_of_their_own_and_the_same_one_comes_back() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return [draw.patch for draw in draw_order(50, seed=seed, epoch=epoch)]

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


def test_weighted_draws_come_in_proportion_and_the_epoch_keeps_its_length() -> None:
    weights = [5.0] * 100 + [1.0] * 900
    draws = [draw.patch for epoch in range(20) for draw in draw_order(1000, seed=0, epoch=epoch, weights=weights)]
    assert len(draws) == 20_000
    share = np.mean(np.asarray(draws) < 100)
    assert share == pytest.approx(500 / 1400, abs=4 * (0.357 * 0.643 / 20_000) ** 0.5)
    assert len(set(draws[:1000])) < 1000


def test_random_numbers_differ_with_seed_epoch_and_position_and_not_with_the_patch() -> None:
    def number(seed: int, *draw: int) -> float:
        return sample_rng(seed, Draw(*draw)).random()

    assert number(0, 1, 2, 3) == number(0, 1, 2, 9)
    others = {number(0, 1, 2, 3), number(1, 1, 2, 3), number(0, 2, 2, 3), number(0, 1, 3, 3), number(0, 2, 1, 3)}
    assert len(others) == 5


def test_the_order_of_an_epoch_and_its_samples_do_not_share_random_numbers() -> None:
    order = np.random.Generator(np.random.SFC64(np.random.SeedSequence(0, spawn_key=(0, 1)))).random()
    assert order not in {sample_rng(0, Draw(epoch, position, 0)).random() for epoch in (0, 1) for position in (0, 1)}


def test_validation_batches_come_in_the_order_of_the_patches_every_time() -> None:
    order = EpochBatches(5, 2, seed=3)
    order.epoch = 7
    assert [[draw.patch for draw in batch] for batch in order] == [[0, 1], [2, 3], [4]]
    assert list(order) == list(order)
    assert len(order) == 3


def test_training_batches_follow_the_epoch_that_is_set() -> None:
    order = EpochBatches(9, 4, seed=3, is_train=True)
    order.epoch = 2
    assert [draw for batch in order for draw in batch] == draw_order(9, seed=3, epoch=2)
    assert [len(batch) for batch in order] == [4, 5]
