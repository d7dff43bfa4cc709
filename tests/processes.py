"""Processes for tests that kill or compare command-line runs, forked from one that has imported the libraries.

A training spends half of its time importing torch, torchvision, timm and albumentations. Each pytest worker starts one
server process that imports them once; every process of a test is a fork of it: a real process with its own session,
files and signals, whose exit code is the one that a shell would see.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


class ForkedProcess:
    """A process started by `start_program`, with the attributes of `subprocess.Popen` that tests use."""

    def __init__(self, pid: int, output: Path) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._output = output

    def poll(self) -> int | None:
        """Returns the exit code, negative for a signal, or None while the process runs."""
        if self.returncode is None:
            self.returncode = _ask({"pid": self.pid})
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        """Waits for the end of the process; one that takes longer is killed.

        Raises:
            subprocess.TimeoutExpired: If it had to be killed.
        """
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                self.kill()
                raise subprocess.TimeoutExpired(str(self.pid), timeout, self._output.read_bytes())
            time.sleep(0.01)
        return code

    def communicate(self, timeout: float = 300) -> tuple[str, None]:
        """Waits for the end and returns what the process wrote to standard output and standard error."""
        self.wait(timeout)
        return self._output.read_text(), None

    def kill(self) -> None:
        """Kills the process with SIGKILL unless it has ended, and waits for its end."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        while self.poll() is None:
            time.sleep(0.01)


def start_program(
    program: str, arguments: Sequence[object] = (), *, cwd: Path | None = None, **environment: str
) -> ForkedProcess:
    """Starts Python source as `python -c` would, in a new process group.

    Args:
        program: Python source.
        arguments: Command-line arguments, `sys.argv[1:]`.
        cwd: Working folder; by default that of the tests.
        environment: Environment variables, besides those of the tests.
    """
    handle, output = tempfile.mkstemp(prefix="fireseg_output_")
    os.close(handle)
    atexit.register(Path(output).unlink, missing_ok=True)
    request = {
        "program": program,
        "arguments": [str(argument) for argument in arguments],
        "cwd": str(cwd or Path.cwd()),
        "environment": {**os.environ, **environment},
        "output": output,
    }
    return ForkedProcess(_ask(request), Path(output))


def start_command(name: str, *arguments: object, cwd: Path | None = None) -> ForkedProcess:
    """Starts `python -m fireseg.{name}` with arguments."""
    return start_program(f"import sys\nfrom fireseg.{name}.cli import main\nsys.exit(main())", arguments, cwd=cwd)


class Terminal:
    """A pseudo terminal. Closing it hangs up the process that made it its own, as the end of ssh does.

    Attributes:
        adopt: Python source by which a process makes it its own terminal.
    """

    def __init__(self) -> None:
        self._outer, self._inner = os.openpty()
        self.adopt = (
            "import fcntl, os, termios\n"
            f"fd = os.open({os.ttyname(self._inner)!r}, os.O_RDWR); fcntl.ioctl(fd, termios.TIOCSCTTY, 0)\n"
            "os.dup2(fd, 1); os.dup2(fd, 2)\n"
        )

    def close(self) -> None:
        """Closes both ends."""
        os.close(self._inner)
        os.close(self._outer)


def _ask(request: dict[str, Any]) -> Any:
    server = _start_server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


@functools.cache
def _start_server() -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-c", "from tests.processes import serve; serve()"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(server.kill)
    return server


def serve() -> None:
    """Starts and waits for processes as the lines of standard input request, until it is closed."""
    import albumentations  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import mlflow  # noqa: F401
    import segmentation_models_pytorch  # noqa: F401

    import fireseg.evaluate.pipeline
    import fireseg.predict.pipeline
    import fireseg.prepare.pipeline
    import fireseg.train.run  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        if "pid" in request:
            pid, status = os.waitpid(request["pid"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        elif (answer := os.fork()) == 0:
            _run(request)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _run(request: dict[str, Any]) -> None:
    """Runs the requested program in this forked process and ends it."""
    os.setsid()
    # Tests started in the background of a shell ignore SIGINT, those under nohup SIGHUP, and so would every process
    # that they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    with open(os.devnull, "rb") as nothing, open(request["output"], "wb") as output:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    sys.argv = ["-c", *request["arguments"]]
    code = 1
    try:
        exec(compile(request["program"], "<program>", "exec"), {"__name__": "__main__"})
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        _end(code)


def _end(code: int) -> None:
    """Ends a forked process as the interpreter would: threads joined, exit functions run, streams flushed."""
    import threading

    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
