"""Ctrl-C and SIGTERM: heard at once, obeyed at the end of a step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """Somebody asked the process to end.

    Not an `Exception`, so that nothing on the way mistakes it for a fault to go on from.

    Attributes:
        exit_code: What a shell expects of a process that a signal ended: 130 or 143.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class Interrupts:
    """While entered, SIGINT and SIGTERM raise `Interrupted`: at once, or when asked if deferred.

    A second signal does not wait for the step. Outside the main thread, where Python allows no
    handlers, nothing is changed.

    Example:
        >>> with Interrupts() as interrupts, interrupts.deferred():
        ...     interrupts.check()
    """

    def __init__(self) -> None:
        self._pending: int | None = None
        self._is_deferred = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in SIGNALS}
        return self

    def __exit__(self, *raised: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType] - what signal() gave, it takes
        self._before = {}

    def _hear(self, signum: int, frame: FrameType | None) -> None:
        if not self._is_deferred or self._pending is not None:
            raise Interrupted(signum)
        self._pending = signum

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within, a first signal waits for `check`."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False

    def check(self) -> None:
        """Raises `Interrupted` if a signal has come."""
        if self._pending is not None:
            raise Interrupted(self._pending)
