"""Free memory of the machine, the container and the process, and refusals of what does not fit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fireseg.errors import FiresegError
from fireseg.memory import check_memory, get_free_memory

GB = 10**9


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 8 GB available and 1 GB of swap space, without control groups."""
    write(tmp_path / "proc/meminfo", "MemTotal: 16000000 kB\nMemAvailable: 8000000 kB\nSwapFree: 1000000 kB\n")
    monkeypatch.setattr("fireseg.memory._PROC", tmp_path / "proc")
    monkeypatch.setattr("fireseg.memory._CGROUPS", tmp_path / "cgroup")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_memory_of_the_machine_and_its_swap_space_is_free(system: Path) -> None:
    assert get_free_memory() == 9_000_000 * 1024


def test_the_limit_of_a_container_counts_without_its_file_cache(system: Path) -> None:
    write(system / "proc/self/cgroup", "0::/job/step\n")
    write(system / "cgroup/job/step/memory.max", "max\n")
    write(system / "cgroup/job/step/memory.current", "1000000000\n")
    write(system / "cgroup/job/memory.max", "4000000000\n")
    write(system / "cgroup/job/memory.current", "3000000000\n")
    write(system / "cgroup/job/memory.stat", "anon 1\ninactive_file 500000000\nactive_file 250000000\n")
    assert get_free_memory() == 1_750_000_000


def test_the_first_version_of_control_groups_is_read(system: Path) -> None:
    write(system / "proc/self/cgroup", "12:cpu,cpuacct:/x\n5:memory:/docker/1\n")
    write(system / "cgroup/memory/memory.limit_in_bytes", "2000000000\n")
    write(system / "cgroup/memory/memory.usage_in_bytes", "1500000000\n")
    assert get_free_memory() == 500_000_000


def test_a_system_that_tells_nothing_refuses_nothing(system: Path) -> None:
    (system / "proc/meminfo").unlink()
    assert get_free_memory() is None
    check_memory(10**18, "scene.tif", "cut it")


def test_what_does_not_fit_is_refused_with_its_cure(system: Path) -> None:
    check_memory(9 * GB, "scene.tif", "cut it")
    with pytest.raises(FiresegError, match=r"^scene\.tif: 20\.0 GB .* 9\.2 GB are free; cut it$"):
        check_memory(20 * GB, "scene.tif", "cut it")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the size of the process is read from /proc")
def test_the_limit_of_the_process_counts() -> None:
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9)); "
        "from fireseg.memory import get_free_memory; print(get_free_memory())"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert 0 < int(done.stdout) < 10**9
