"""What a service is to be told: delivered in order, or kept until it answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import pytest

from fireseg.tracker.mlflow_store import Lane, Outbox


class Service:
    """Hears what it is told, unless it is away or does not like it."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.away = False
        self.refused: set[str] = set()
        self.seconds = 0.0

    def tell(self, word: str) -> Callable[[], None]:
        def deliver() -> None:
            time.sleep(self.seconds)
            if self.away:
                raise ConnectionError("no answer")
            if word in self.refused:
                raise FileNotFoundError(word)
            self.heard.append(word)

        return deliver


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def outbox() -> Outbox:
    return Outbox("test", failures=lambda: (OSError,), is_refusal=lambda error: isinstance(error, FileNotFoundError))


def test_what_was_kept_is_delivered_in_order(service: Service, outbox: Outbox) -> None:
    service.away = True
    for word in "abc":
        outbox.put(service.tell(word))
        outbox.deliver()
    service.away = False
    outbox.put(service.tell("d"))
    outbox.deliver(last=True)
    assert service.heard == ["a", "b", "c", "d"]
    assert len(outbox) == 0


def test_a_service_that_is_away_is_warned_of_once(
    service: Service, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    service.away = True
    outbox.put(service.tell("a"))
    for _ in range(5):
        outbox.deliver(last=True)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "test: no answer" in warnings[0]
    assert "run folder" in warnings[0]


def test_a_refused_operation_does_not_hold_up_the_next(
    service: Service, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    service.refused = {"a"}
    outbox.put(service.tell("a"))
    outbox.put(service.tell("b"))
    outbox.deliver()
    assert service.heard == ["b"]
    assert "refused an entry" in caplog.text


def test_a_failure_that_passes_at_once_is_not_warned_of(outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    failures = [ConnectionError("dropped"), FileNotFoundError("two wrote the same row")]

    def deliver() -> None:
        if failures:
            raise failures.pop()

    outbox.put(deliver)
    outbox.deliver()
    assert (len(outbox), caplog.records) == (0, [])


def test_an_error_of_our_own_is_not_hidden(outbox: Outbox) -> None:
    def deliver() -> None:
        raise KeyError("a bug")

    outbox.put(deliver)
    with pytest.raises(KeyError):
        outbox.deliver()


def test_a_slow_failure_is_left_alone_for_ten_times_as_long(service: Service, outbox: Outbox) -> None:
    service.away, service.seconds = True, 0.4
    outbox.put(service.tell("a"))
    outbox.deliver()
    began = time.monotonic()
    for _ in range(20):
        outbox.deliver()
    assert time.monotonic() - began < 0.3
    service.away = False
    outbox.deliver(last=True)
    assert service.heard == ["a"]


def test_files_wait_for_records_and_the_end_for_neither_lost_file(service: Service, outbox: Outbox) -> None:
    def refuse_to_answer() -> None:
        raise ConnectionError("the file store is away")

    outbox.put(service.tell("end"), lane=Lane.CLOSING)
    outbox.put(refuse_to_answer, lane=Lane.FILES)
    outbox.put(service.tell("record"))
    outbox.deliver()
    assert service.heard == ["record", "end"]
    assert len(outbox) == 1


def test_a_newer_file_takes_the_place_of_one_that_waits(service: Service, outbox: Outbox) -> None:
    service.away = True
    for word in ("best 1", "other", "best 2"):
        outbox.put(service.tell(word), lane=Lane.FILES, key=word.split()[0])
        outbox.deliver()
    service.away = False
    outbox.deliver(last=True)
    assert service.heard == ["other", "best 2"]
