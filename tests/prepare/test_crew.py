"""Work in two steps, spread over processes and put in order."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fireseg.errors import FiresegError
from fireseg.prepare.workers import run_in_order


class Digger:
    """Digs `number` units, the first of which takes longest, and notes where they went."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def cut(self, number: int) -> int:
        if number == 7:
            raise FiresegError("seven: cannot be", "nor can this")
        if number == 8:
            os._exit(9)
        time.sleep(0.3 if number == 1 else 0.0)
        return number

    def write(self, number: int, first: int) -> None:
        (self.folder / str(number)).write_text(str(first))


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_and_places_follow_from_those_before(tmp_path: Path, workers: int) -> None:
    ends = [0]

    def place(result: int) -> int:
        ends.append(ends[-1] + result)
        return ends[-2]

    done = []
    for number, result in run_in_order(Digger(tmp_path), [1, 2, 3, 4], place, workers=workers):
        assert result == number
        assert (tmp_path / str(number)).exists()  # written before it is yielded
        done.append(number)
    assert done == [1, 2, 3, 4]
    assert [(tmp_path / str(number)).read_text() for number in done] == ["0", "1", "3", "6"]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_worker_cannot_do_is_told_whole(tmp_path: Path, workers: int) -> None:
    with pytest.raises(FiresegError) as raised:
        list(run_in_order(Digger(tmp_path), [1, 7], lambda _: 0, workers=workers))
    assert raised.value.faults == ("seven: cannot be", "nor can this")


def test_a_worker_that_is_ended_from_outside_is_no_riddle(tmp_path: Path) -> None:
    with pytest.raises(FiresegError, match=r"a worker was ended from outside \(exit code 9\).*fewer --workers"):
        list(run_in_order(Digger(tmp_path), [8, 1], lambda _: 0, workers=2))


def test_nothing_to_do_is_done(tmp_path: Path) -> None:
    assert not list(run_in_order(Digger(tmp_path), [], lambda _: 0, workers=2))
