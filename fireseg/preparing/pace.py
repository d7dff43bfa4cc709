"""How far the work is, for whoever waits."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from fireseg.console import format_seconds

log = logging.getLogger("fireseg")

_LINE_EVERY_S = 30.0


class Pace:
    """Counts tiles: a bar with the time left on a terminal, elsewhere a line now and then.

    Args:
        total: Tiles in all.
        done: Tiles done before.
    """

    def __init__(self, total: int, done: int) -> None:
        self._begin = self._said = time.monotonic()
        self._total, self._before, self._done = total, done, done
        is_terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=done, desc="tiles", unit="tile", leave=False, disable=not is_terminal)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._begin

    def advance(self, what: str) -> None:
        """One tile more.

        Args:
            what: To be shown beside the bar.
        """
        self._done += 1
        self._bar.set_postfix_str(what, refresh=False)
        self._bar.update()
        now = time.monotonic()
        if self._bar.disable and now - self._said >= _LINE_EVERY_S and self._done < self._total:
            self._said = now
            left = self.seconds / (self._done - self._before) * (self._total - self._done)
            log.info("%d of %d tiles, %s; %s left", self._done, self._total, what, format_seconds(left))

    def close(self) -> None:
        """Takes the bar away."""
        self._bar.close()


@contextmanager
def watch_tiles(total: int, *, done: int) -> Iterator[Pace]:
    """Shows the pace of what happens within."""
    pace = Pace(total, done)
    try:
        yield pace
    finally:
        pace.close()
