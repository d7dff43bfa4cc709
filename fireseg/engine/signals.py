"""Handling of SIGINT (Ctrl-C), SIGTERM and SIGHUP (a closed terminal), immediate or at the end of a step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

from fireseg.console import leave_terminal

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """The process received SIGINT, SIGTERM or SIGHUP.

    Not an `Exception`, so that no handler of errors catches it.

    Attributes:
        exit_code: Exit code by shell convention: 130, 143 or 129.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class Interrupts:
    """Context in which SIGINT, SIGTERM and SIGHUP raise `Interrupted`, at once or, if deferred, in `check`.

    A second signal is never deferred, but SIGHUP is ignored after the first one, and from the start if it was, as by
    `nohup`. Outside the main thread, where Python allows no signal handlers, the context has no effect.

    Args:
        until_epoch_end: True to defer the first signal to the end of an epoch instead of a step.

    Example:
        >>> with Interrupts() as interrupts, interrupts.deferred():
        ...     interrupts.check()
    """

    def __init__(self, *, until_epoch_end: bool = False) -> None:
        self._until_epoch_end = until_epoch_end
        self._pending: int | None = None
        self._is_deferred = False
        self._previous_handlers: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            is_ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            numbers = [number for number in SIGNALS if not (number == signal.SIGHUP and is_ignored)]
            self._previous_handlers = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(self, *raised: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType] - a value returned by signal()
        self._previous_handlers = {}

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGHUP:
            leave_terminal()
        is_first = self._pending is None
        # Kept for the next check even if it is raised here: Python drops exceptions in callbacks of weak references.
        self._pending = signum
        if not (self._is_deferred and is_first):
            raise Interrupted(signum)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Defers the first signal to the next `check` that heeds it."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False

    @property
    def pending(self) -> int:
        """Number of the signal that was received and deferred; 0 if there is none."""
        return self._pending or 0

    def check(self, *, is_epoch_end: bool = False) -> None:
        """Raises `Interrupted` if a signal was received; called after each step, and when an epoch is saved."""
        if self._pending is not None and (is_epoch_end or not self._until_epoch_end):
            raise Interrupted(self._pending)
