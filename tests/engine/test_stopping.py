"""Early stopping."""

from __future__ import annotations

import math

from fireseg.engine import EarlyStopping

NAN = math.nan


def test_epochs_since_the_best_are_counted():
    stopping = EarlyStopping(patience=2)

    assert [stopping.update(n, score) for n, score in enumerate([0.2, 0.5, 0.5, 0.4], 1)] == [True, True, False, False]
    assert (stopping.should_stop, stopping.best_epoch, stopping.best_score) == (True, 2, 0.5)


def test_a_nan_score_is_an_epoch_without_improvement():
    stopping = EarlyStopping(patience=3)

    assert [stopping.update(n, score) for n, score in enumerate([NAN, 0.1, NAN], 1)] == [False, True, False]
    assert (stopping.best_epoch, stopping.waited) == (2, 1)


def test_patience_0_never_stops():
    stopping = EarlyStopping(patience=0)
    for epoch in range(100):
        stopping.update(epoch, 0.0)
    assert not stopping.should_stop


def test_the_restored_state_uses_the_new_patience():
    before = EarlyStopping(patience=1)
    before.update(1, 0.5)
    before.update(2, 0.4)
    after = EarlyStopping(patience=5)

    after.load_state_dict(before.state_dict())

    assert (before.should_stop, after.should_stop, after.best_score, after.waited) == (True, False, 0.5, 1)
