"""A closed terminal stops a command like SIGTERM, unless nohup protects it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from scripts.kill_test import list_litter
from tests.commands.builders import STOPPED, Inputs, start_with_steps, wait_for_step
from tests.processes import Terminal


@pytest.mark.parametrize("command", STOPPED)
def test_a_closed_terminal_stops_a_command_with_129_and_leaves_no_unfinished_file(
    command: str, inputs: Inputs, tmp_path: Path
):
    terminal, log, out = Terminal(), tmp_path / "log", tmp_path / "out"
    process = start_with_steps(
        *(command, inputs.arguments(command, out), log), moment=0, action="time.sleep(60)", before=terminal.adopt
    )
    wait_for_step(log, 0, process)
    terminal.close()

    assert process.wait(timeout=30) == 128 + signal.SIGHUP
    assert list_litter(out) == []


def test_a_second_hangup_does_not_interrupt_the_removal_of_unfinished_files(inputs: Inputs, tmp_path: Path):
    log, out = tmp_path / "log", tmp_path / "out"
    twice = "[os.kill(os.getpid(), signal.SIGHUP) for _ in range(2)]"
    remove = "import shutil, os, signal\noriginal = shutil.rmtree\n"
    remove += "def rmtree(*a, **k): os.kill(os.getpid(), signal.SIGHUP); original(*a, **k)\nshutil.rmtree = rmtree\n"
    arguments = [str(inputs.run), str(inputs.scenes[0]), "--out", str(out)]
    process = start_with_steps("predict", arguments, log, moment=0, action=twice, before=remove)

    output, _ = process.communicate(timeout=30)

    assert process.returncode == 128 + signal.SIGHUP
    assert output.splitlines()[-1].startswith("fireseg: stopped; finished maps are kept")
    assert list_litter(out) == []


def test_a_hangup_of_prepare_and_its_workers_stops_it_with_129(inputs: Inputs, tmp_path: Path):
    log, out = tmp_path / "log", tmp_path / "out"
    slow = "import fireseg.prepare.pipeline as p, time\noriginal = p.Journal.append\n"
    slow += "def append(*a):\n original(*a)\n time.sleep(1)\np.Journal.append = append\n"
    arguments = [*inputs.arguments("prepare", out), "--workers", "2"]
    process = start_with_steps("prepare", arguments, log, before=slow)
    wait_for_step(log, 2, process)
    os.killpg(process.pid, signal.SIGHUP)

    assert process.wait(timeout=30) == 128 + signal.SIGHUP
    assert list_litter(out) == []


def test_a_command_under_nohup_goes_on_after_its_terminal_is_closed(inputs: Inputs, tmp_path: Path):
    log, out = tmp_path / "log", tmp_path / "out"
    ignored = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    hang_up = "os.kill(os.getpid(), signal.SIGHUP)"
    process = start_with_steps(
        *("predict", inputs.arguments("predict", out), log), moment=0, action=hang_up, before=ignored
    )

    assert process.wait(timeout=60) == 0
    assert (out / "b.json").exists()
