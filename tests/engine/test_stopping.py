"""Early stopping."""

from __future__ import annotations

import math

from fireseg.engine import EarlyStopping

NAN = math.nan


def test_epochs_since_the_best_are_counted():
    stopping = EarlyStopping(patience=2)

    scores = enumerate([0.2, 0.5, 0.5, 0.4], 1)
    assert [stopping.update(n, score, loss=1 / n) for n, score in scores] == [True, True, False, False]
    assert (stopping.should_stop, stopping.best_epoch, stopping.best_score) == (True, 2, 0.5)


def test_without_a_score_the_lowest_loss_is_the_best_and_training_never_stops():
    stopping = EarlyStopping(patience=1)

    losses = enumerate([NAN, 0.5, 0.6, 0.4, 0.4, NAN], 1)
    assert [stopping.update(n, NAN, loss=loss) for n, loss in losses] == [False, True, False, True, False, False]
    assert (stopping.best_epoch, stopping.best_loss, stopping.should_stop) == (4, 0.4, False)
    assert math.isnan(stopping.best_score)


def test_the_restored_state_knows_the_lowest_loss():
    before, after = EarlyStopping(), EarlyStopping()
    before.update(1, NAN, loss=0.5)

    after.load_state_dict(before.state_dict())

    assert not after.update(2, NAN, loss=0.6)
    assert after.best_epoch == 1


def test_patience_0_never_stops():
    stopping = EarlyStopping(patience=0)
    for epoch in range(100):
        stopping.update(epoch, 0.0, loss=1.0)
    assert not stopping.should_stop


def test_the_restored_state_uses_the_new_patience():
    before = EarlyStopping(patience=1)
    before.update(1, 0.5, loss=1.0)
    before.update(2, 0.4, loss=1.0)
    after = EarlyStopping(patience=5)

    after.load_state_dict(before.state_dict())

    assert (before.should_stop, after.should_stop, after.best_score, after.waited) == (True, False, 0.5, 1)
