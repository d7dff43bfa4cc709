"""The state of a job, read off its run folder, its lock and its record."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
from filelock import FileLock

from fireseg.runs.folder import RunFolder, host
from fireseg.sweep.plan import settle_plan
from fireseg.sweep.queue import (
    JobRecord,
    begin_attempt,
    end_attempt,
    read_last_lines,
    read_record,
    read_state,
    read_status,
    record_loss,
)
from tests.sweep.test_plan import make_plan


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def test_a_job_is_missing_then_running_while_its_lock_is_held_then_killed(folder: RunFolder):
    assert read_state(folder).state == "missing"
    with FileLock(folder.path / ".lock"):
        begin_attempt(folder, call="a", parts=1)
        assert (read_state(folder).state, read_state(folder).pid) == ("running", os.getpid())
    state = read_state(folder)  # as SIGKILL leaves it: the lock is free
    assert (state.state, state.attempts) == ("killed", 1)
    assert f"process {os.getpid()} on {host()}" in state.reason


def test_a_job_is_finished_when_its_run_says_so_and_not_before(folder: RunFolder):
    begin_attempt(folder, call="a", parts=1)
    end_attempt(folder, "finished", exit_code=0)
    assert read_state(folder).state == "killed"  # the training has not noted its end
    folder.write_provenance({"tracked": {"status": "FINISHED"}})
    assert read_state(folder).state == "finished"


def test_a_failure_is_recorded_with_the_last_lines_of_the_output(folder: RunFolder):
    (folder.path / "job.log").write_text("".join(f"line {number}\n\n" for number in range(30)))
    begin_attempt(folder, call="a", parts=1)
    end_attempt(folder, "failed", exit_code=2, reason="no patches", last_lines=read_last_lines(folder))

    record = read_state(folder)
    assert (record.state, record.exit_code, record.reason) == ("failed", 2, "no patches")
    assert record.last_lines == tuple(f"line {number}" for number in range(20, 30))


def test_the_end_of_a_process_is_not_recorded_over_the_work_of_another_one(folder: RunFolder):
    before = read_record(folder)
    record_loss(folder, before, "failed", pid=1, exit_code=1, reason="did not start", call="a")
    assert (read_record(folder).state, read_record(folder).attempts) == ("failed", 1)

    begin_attempt(folder, call="b", parts=1)  # meanwhile another command has begun the job
    record_loss(folder, before, "killed", pid=1, exit_code=-9, reason="killed", call="a")
    assert (read_record(folder).state, read_record(folder).call) == ("running", "b")

    record_loss(folder, before, "killed", pid=os.getpid(), exit_code=-9, reason="killed", call="b")
    assert (read_record(folder).state, read_record(folder).attempts) == ("killed", 2)


def test_the_status_of_a_job_has_its_epoch_and_the_time_left(tmp_path: Path):
    settle_plan(plan := make_plan(tmp_path / "fires", epochs=10))
    folder = plan.get_folder(plan.jobs[0])
    folder.path.mkdir()
    assert math.isnan(read_status(plan, plan.jobs[0]).seconds_left)
    for epoch, iou in ((1, 0.5), (2, 0.7), (3, 0.6)):
        row = {"epoch": epoch, "seconds": 4.0, "val/fire_iou": iou, "best": epoch < 3}
        folder.append_metrics(row)

    status = read_status(plan, plan.jobs[0])
    assert (status.epoch, status.num_epochs, status.best_epoch, status.best_iou) == (3, 10, 2, 0.7)
    assert (status.seconds, status.seconds_left) == (12.0, 28.0)


def test_a_damaged_record_is_named(folder: RunFolder):
    assert read_record(folder) == JobRecord()
    for content in ("{", "[]", json.dumps({"state": "failed", "unknown": 1})):
        (folder.path / "job.json").write_text(content)
        with pytest.raises(Exception, match=r"job\.json: damaged; delete it"):
            read_record(folder)
