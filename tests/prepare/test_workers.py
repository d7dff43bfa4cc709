"""Worker pool: order, positions and errors."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fireseg.errors import FiresegError
from fireseg.prepare.workers import run_in_order


class SlowFirst:
    """A task whose job 1 takes longest, 7 fails and 8 kills its process; writes the position of each job to a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def process(self, number: int) -> int:
        if number == 7:
            raise FiresegError("seven: first fault", "second fault")
        if number == 8:
            os._exit(9)
        time.sleep(0.3 if number == 1 else 0.0)
        return number

    def write(self, number: int, first: int) -> None:
        (self.folder / str(number)).write_text(str(first))


@pytest.mark.parametrize("workers", [1, 2])
def test_results_are_in_order_and_positions_follow_from_earlier_results(tmp_path: Path, workers: int) -> None:
    ends = [0]

    def get_position(result: int) -> int:
        ends.append(ends[-1] + result)
        return ends[-2]

    done = []
    for number, result in run_in_order(SlowFirst(tmp_path), [1, 2, 3, 4], get_position, workers=workers):
        assert result == number
        assert (tmp_path / str(number)).exists()  # written before it is yielded
        done.append(number)
    assert done == [1, 2, 3, 4]
    assert [(tmp_path / str(number)).read_text() for number in done] == ["0", "1", "3", "6"]


@pytest.mark.parametrize("workers", [1, 2])
def test_all_faults_of_a_job_are_raised(tmp_path: Path, workers: int) -> None:
    with pytest.raises(FiresegError) as raised:
        list(run_in_order(SlowFirst(tmp_path), [1, 7], lambda _: 0, workers=workers))
    assert raised.value.faults == ("seven: first fault", "second fault")


def test_a_killed_worker_is_an_error_with_a_cure(tmp_path: Path) -> None:
    with pytest.raises(FiresegError, match=r"exit code 9.*fewer --workers"):
        list(run_in_order(SlowFirst(tmp_path), [8, 1], lambda _: 0, workers=2))


def test_no_jobs_give_no_results(tmp_path: Path) -> None:
    assert not list(run_in_order(SlowFirst(tmp_path), [], lambda _: 0, workers=2))
