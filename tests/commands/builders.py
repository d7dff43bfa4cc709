"""Inputs of all commands, and their command lines, for tests that stop processes at bad moments."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.processes import ForkedProcess, start_program

STOPPED = ("prepare", "evaluate", "predict", "fetch")
"""Commands that are run by `console.run_command`; train has tests of its own."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Inputs of the commands.

    Attributes:
        tiles: Folder of five tiles.
        patches: Folder of their patches.
        run: Folder of an untrained run on these patches.
        scenes: Two scenes to map.
        area: Outline of an area to fetch.
        catalogue: Address of a catalogue with a scene of it.
    """

    tiles: Path
    patches: Path
    run: Path
    scenes: Sequence[Path]
    area: Path
    catalogue: str

    def arguments(self, command: str, out: Path) -> list[str]:
        """Returns the arguments of a command that writes to a folder; `evaluate` writes to a copy of the run in it."""
        if command == "evaluate" and not out.exists():
            shutil.copytree(self.run, out)
        words: Mapping[str, Sequence[object]] = {
            "prepare": (self.tiles, out, "--size", 16),
            "evaluate": (out, "--workers", 0, "--no-track"),
            "predict": (self.run, *self.scenes, "--out", out, "--geojson", "--runtime", "torch"),
            "fetch": ("--aoi", self.area, "--date", "2025-08-24", "--catalog", self.catalogue, out),
        }
        return [str(word) for word in words[command]]


# Writes every number of a forced write, a rename or a removal to a log, and does something at one of them.
STEPS = """
import itertools, os, signal, sys, time
from pathlib import Path
_log, _moment = Path(sys.argv[1]), int(sys.argv[2])
del sys.argv[1:3]
_numbers = itertools.count()

def _count(function):
    def step(*arguments, **options):
        number = next(_numbers)
        with _log.open("a") as file: file.write(f"{{number}}\\n")
        if number == _moment: {action}
        return function(*arguments, **options)
    return step

os.fsync, os.replace = _count(os.fsync), _count(os.replace)
from fireseg.{command}.cli import main
sys.exit(main())
"""


def start_with_steps(
    command: str, arguments: Sequence[str], log: Path, *, moment: int = -1, action: str = "pass", before: str = ""
) -> ForkedProcess:
    """Starts a command that logs its forced writes and renames, and does something at one of them.

    Args:
        command: Name of the command.
        arguments: Its arguments.
        log: File with a line for each step so far.
        moment: Number of the step.
        action: Python statement that is executed before this step.
        before: Python source that is executed before the command.
    """
    program = before + STEPS.format(action=action, command=command)
    return start_program(program, (log, moment, *arguments))


def wait_for_step(log: Path, moment: int, process: ForkedProcess) -> None:
    """Waits until a process has arrived at a step."""
    deadline = time.monotonic() + 120
    while not (log.exists() and f"{moment}\n" in log.read_text()):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
