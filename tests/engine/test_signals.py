"""Signals."""

from __future__ import annotations

import signal
import weakref

import pytest

from fireseg.engine import Interrupted, Interrupts


def test_a_signal_that_is_not_deferred_raises_at_once():
    with Interrupts(), pytest.raises(Interrupted) as caught:
        signal.raise_signal(signal.SIGINT)
    assert caught.value.exit_code == 130


def test_a_second_signal_is_not_deferred():
    with Interrupts() as interrupts, interrupts.deferred():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGTERM)


def test_a_closed_terminal_stops_like_sigterm_unless_nohup_ignores_it():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored if the tests run under nohup
    try:
        with Interrupts(), pytest.raises(Interrupted) as caught:
            signal.raise_signal(signal.SIGHUP)
        assert caught.value.exit_code == 129

        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with Interrupts():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_previous_handlers_are_restored():
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_python_drops_in_a_weakref_callback_raises_at_the_next_check():
    class Target:
        pass

    with Interrupts() as interrupts:
        target = Target()
        reference = weakref.ref(target, lambda _: signal.raise_signal(signal.SIGTERM))
        del target
        assert reference() is None
        with pytest.raises(Interrupted, match="SIGTERM"):
            interrupts.check()
