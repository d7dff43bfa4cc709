"""Training processes for the tests of train."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.processes import ForkedProcess, start_program


def start(arguments: Sequence[str], cwd: Path, before: str = "") -> ForkedProcess:
    """Starts a training in a new process group, after the Python code in `before`."""
    return start_program(
        f"{before}\nimport sys\nfrom fireseg.train.cli import main\nsys.exit(main())", arguments, cwd=cwd
    )


def finish(process: ForkedProcess) -> None:
    """Waits for a training, which must succeed."""
    output, _ = process.communicate()
    assert process.returncode == 0, output
