"""Free memory of the machine or the container, and refusals of what does not fit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from fireseg.errors import FiresegError

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")

_UNCHECKED_BYTES = 256 * 2**20
"""Requests that are always granted, without a look at the machine."""


def check_memory(required: int, location: str, remedy: str) -> None:
    """Refuses work that needs more memory than is free, which would end the process without a word.

    Args:
        required: Bytes that the work needs.
        location: What needs them, such as a file.
        remedy: What to do instead.

    Raises:
        FiresegError: If less is free. Where the system does not tell, nothing is refused.
    """
    if required <= _UNCHECKED_BYTES:
        return
    free = get_free_memory()
    if free is not None and free < required:
        raise FiresegError(
            f"{location}: {required / 1e9:,.1f} GB of memory are required, but {free / 1e9:,.1f} GB are free; {remedy}"
        )


def get_free_memory() -> int | None:
    """Returns the bytes that this process can still allocate; None if the system does not tell.

    It is the least of what is free on the machine, in the container or Slurm job (control groups), and below the limit
    of the process (`ulimit -v`).
    """
    return min((*_read_machine(), *_read_control_groups(), *_read_process()), default=None)


def _read_machine() -> Iterator[int]:
    numbers = _read_numbers(_PROC / "meminfo")
    if "MemAvailable" in numbers:
        yield 1024 * (numbers["MemAvailable"] + numbers.get("SwapFree", 0))


def _read_control_groups() -> Iterator[int]:
    """Yields the free bytes of the process's control group and of those around it, of either version."""
    for line in _read_text(_PROC / "self" / "cgroup").splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root, limit, usage = _CGROUPS, "memory.max", "memory.current"
        if controllers:
            root, limit, usage = _CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        folder = root / name.lstrip("/")
        for group in (folder, *folder.parents):
            if not group.is_relative_to(root):
                break
            limits = [_read_text(group / file).strip() for file in (limit, usage)]
            if all(text.isdigit() for text in limits):  # without a limit, the file says max
                statistics = _read_numbers(group / "memory.stat")
                cached = statistics.get("inactive_file", 0) + statistics.get("active_file", 0)
                yield max(0, int(limits[0]) - int(limits[1]) + cached)


def _read_process() -> Iterator[int]:
    try:
        import resource
    except ImportError:  # Windows
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    numbers = _read_numbers(_PROC / "self" / "status")
    if limit != resource.RLIM_INFINITY and "VmSize" in numbers:
        yield max(0, limit - 1024 * numbers["VmSize"])


def _read_numbers(path: Path) -> dict[str, int]:
    """Reads the lines of a file that consist of a name and a number."""
    return {name: int(number) for name, number in re.findall(r"^(\w+):?\s+(\d+)\b", _read_text(path), re.MULTILINE)}


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
