"""Sweeps for tests: their jobs are forks of the command, which has imported the libraries already."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from tests.processes import ForkedProcess, start_program

SETTINGS = (
    "model.weights=none",
    "model.encoder=tu-test_efficientnet",
    "data.batch_size=4",
    "data.num_workers=0",
    "engine.epochs=2",
    "engine.device=cpu",
    "optimizer.lr=0.001",
    "tracker=none",
)

FORKED = "from tests.sweep.builders import fork_jobs; fork_jobs()\n"


class ForkedJob:
    """A forked process of a job, with the attributes of `subprocess.Popen` that the local engine uses."""

    def __init__(self, pid: int, stdin: IO[bytes]) -> None:
        self.pid, self.stdin = pid, stdin
        self._code: int | None = None

    def poll(self) -> int | None:
        """Returns the exit code, negative for a signal, or None while the process runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code


_pipes: list[IO[bytes]] = []


def fork_jobs() -> None:
    """Makes the local engine fork its jobs: importing torch and timm in each would take 10 s."""
    import fireseg.sweep.local
    import fireseg.train.job

    fireseg.sweep.local.start_process = _fork  # pyright: ignore[reportAttributeAccessIssue]


def _fork(command: list[str], cwd: Path, output: int, environment: dict[str, str]) -> ForkedJob:
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        for pipe in _pipes:
            if not pipe.closed:
                os.close(pipe.fileno())
        os.close(writer)
        _run(command, cwd, (reader, output), environment)
    os.close(reader)
    _pipes.append(os.fdopen(writer, "wb"))
    return ForkedJob(pid, _pipes[-1])


def _run(command: list[str], cwd: Path, streams: tuple[int, int], environment: dict[str, str]) -> None:
    from fireseg.train.job import main

    code = 1
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        for source, target in ((streams[0], 0), (streams[1], 1), (streams[1], 2)):
            os.dup2(source, target)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environment)
        assert command[:2] == ["-m", "fireseg.train.job"]
        code = main(command[2:])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def start_sweep(arguments: Sequence[str], cwd: Path, before: str = "") -> ForkedProcess:
    """Starts `python -m fireseg.train -m` with the settings of the tests, after the Python code in `before`."""
    program = f"{FORKED}{before}\nimport sys\nfrom fireseg.train.cli import main\nsys.exit(main())"
    return start_program(program, ["-m", *SETTINGS, *arguments], cwd=cwd)


def continue_sweep(*arguments: str, cwd: Path, before: str = "") -> ForkedProcess:
    """Starts `python -m fireseg.sweep` with forked jobs, after the Python code in `before`."""
    program = f"{FORKED}{before}\nimport sys\nfrom fireseg.sweep.cli import main\nsys.exit(main())"
    return start_program(program, arguments, cwd=cwd)


def list_jobs(sweep: Path) -> list[Path]:
    """Lists the run folders of a sweep."""
    return sorted(path for path in sweep.iterdir() if path.is_dir())
