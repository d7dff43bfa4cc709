"""What a service is to be told: delivered in order, or kept until it answers."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import IntEnum

log = logging.getLogger("fireseg")

_TRIES = 3
_QUICK_SECONDS = 1.0

# A silent server may hold up one call in full (10 s with our timeout); asking again only after ten
# times as long keeps its cost below a tenth of the training.
_PATIENCE = 10.0


class Lane(IntEnum):
    """What waits for what: records go first, and a store that refuses files does not hold up records."""

    RECORDS = 0
    FILES = 1
    CLOSING = 2


@dataclass(frozen=True, kw_only=True)
class _Entry:
    deliver: Callable[[], None]
    key: Hashable


class Outbox:
    """Operations on a service that may be away.

    An operation that fails stays at the head of its lane and is tried again at the next call; it must
    bear being carried out twice. The first failure is warned of, later ones are not.

    Args:
        service: What the warning calls the service, address included.
        failures: The exceptions that mean "not now", asked when one is met so that it needs no import before.
        is_refusal: Whether such an exception means "never": after three tries the operation is dropped.
    """

    def __init__(
        self,
        service: str,
        *,
        failures: Callable[[], tuple[type[Exception], ...]],
        is_refusal: Callable[[Exception], bool],
    ) -> None:
        self._service = service
        self._failures = failures
        self._is_refusal = is_refusal
        self._lanes: dict[Lane, deque[_Entry]] = {lane: deque() for lane in Lane}
        self._not_before = 0.0
        self._is_away = False
        self._warned: set[str] = set()

    def __len__(self) -> int:
        return sum(len(lane) for lane in self._lanes.values())

    def put(self, deliver: Callable[[], None], *, lane: Lane = Lane.RECORDS, key: Hashable = None) -> None:
        """Adds an operation; one that waits under the same key is forgotten for it."""
        entries = self._lanes[lane]
        if key is not None:
            entries = deque(entry for entry in entries if entry.key != key)
        entries.append(_Entry(deliver=deliver, key=key))
        self._lanes[lane] = entries

    def clear(self) -> None:
        """Forgets everything."""
        for lane in self._lanes.values():
            lane.clear()

    def deliver(self, *, last: bool = False) -> None:
        """Carries out what waits, as far as the service answers.

        Args:
            last: Whether there will be no other time: the service is asked even if it was silent a moment ago.
        """
        if time.monotonic() < self._not_before and not last:
            return
        for lane in Lane:
            began = time.monotonic()
            if not self._empty(self._lanes[lane]):
                self._not_before = time.monotonic() + _PATIENCE * (time.monotonic() - began)
                if lane is Lane.RECORDS:
                    return
        if self._is_away and not len(self):
            log.info("%s: answers again, everything kept back is delivered", self._service)
            self._is_away = False

    def _empty(self, entries: deque[_Entry]) -> bool:
        while entries:
            error = self._try(entries[0])
            if error is not None and not self._is_refusal(error):
                self._is_away = True
                self._warn("away", f"{find_reason(error)}; training goes on, and this is tried again later")
                return False
            if error is not None:
                self._warn("refused", f"refused an entry for good ({find_reason(error)}); training goes on without it")
            entries.popleft()
        return True

    def _try(self, entry: _Entry) -> Exception | None:
        # A second try at once mends a dropped connection, or two processes that wrote the same row.
        began, failure = time.monotonic(), None
        for _ in range(_TRIES):
            try:
                entry.deliver()
            except self._failures() as error:
                failure = error
            else:
                return None
            if time.monotonic() - began > _QUICK_SECONDS:
                break
        return failure

    def _warn(self, kind: str, message: str) -> None:
        level = logging.INFO if kind in self._warned else logging.WARNING
        self._warned.add(kind)
        log.log(level, "%s: %s; every number stays in the run folder (metrics.jsonl)", self._service, message)


def find_reason(error: BaseException) -> str:
    """Why an operation failed: the words of the operating system where they are at the root of it, else the first line.

    Args:
        error: What was raised.
    """
    root = error
    while inner := root.__cause__ or root.__context__:
        root = inner
    if isinstance(root, OSError) and type(root).__module__ in ("builtins", "socket"):
        return root.strerror or str(root)
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
