"""Threads, instruction sets and GPU drivers of the machine."""

from __future__ import annotations

import ctypes
import sys

import pytest

from fireseg import hardware
from fireseg.hardware import choose_threads, get_num_threads, has_gpu_driver


@pytest.mark.parametrize(
    ("platform", "present", "expected"),
    [
        ("linux", None, False),
        ("linux", "libcuda.so.1", True),
        ("linux", "/dev/kfd", True),
        ("win32", None, False),
        ("win32", "nvcuda.dll", True),
        ("darwin", None, True),
    ],
)
def test_a_gpu_is_possible_only_where_a_driver_is(
    platform: str, present: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str) -> None:
        if name != present:
            raise OSError

    with monkeypatch.context() as patched:
        patched.setattr(ctypes, "CDLL", load)
        patched.setattr(hardware.Path, "exists", lambda path: str(path) == present)
        patched.setattr(sys, "platform", platform)
        found = has_gpu_driver()
    assert found is expected


def test_the_number_of_threads_is_that_of_torch_or_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    assert get_num_threads() == torch.get_num_threads()
    monkeypatch.setattr(hardware, "count_cores", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delitem(sys.modules, "torch")
    assert get_num_threads() == choose_threads() == 3
