"""CPU threads, instruction sets and GPU drivers of the machine, found without torch, which takes seconds to import."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import sys
from functools import cache
from pathlib import Path

from fireseg.files import count_cores

log = logging.getLogger("fireseg")


def has_gpu_driver() -> bool:
    """Returns False if torch cannot find a GPU: this is no Apple computer, and has no driver of NVIDIA or AMD."""
    if sys.platform == "darwin" or Path("/dev/kfd").exists():
        return True
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def has_amx() -> bool:
    """Returns True if the CPU has matrix instructions for bfloat16 (AMX), several times as fast as float32."""
    return "amx_bf16" in get_cpu_flags()


def has_bf16() -> bool:
    """Returns True if the CPU, of Intel, AMD or ARM, is faster in bfloat16 than in float32."""
    return has_amx() or "bf16" in get_cpu_flags()  # the latter on ARM


@cache
def get_cpu_flags() -> frozenset[str]:
    """Returns the instruction sets of the CPU as Linux names them; none on other systems."""
    cpuinfo = Path("/proc/cpuinfo")
    if platform.system() != "Linux" or not cpuinfo.exists():
        return frozenset()
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((frozenset(line.split()) for line in lines if line.startswith(("flags", "Features"))), frozenset())


def choose_threads(threads: int | None = None) -> int:
    """Returns the number of CPU threads to compute with.

    Args:
        threads: Number of threads. None means `OMP_NUM_THREADS` if that is set, else the cores available
            to this process (fewer than the machine's in a container or a batch job). More than these cores are
            not used: threads that wait cost more than they gain, and many thousand end the process.
    """
    source = "OMP_NUM_THREADS" if threads is None else "threads"
    if threads is None:
        requested = os.environ.get("OMP_NUM_THREADS", "")
        threads = int(requested) if requested.isdigit() and int(requested) > 0 else count_cores()
    if threads > (num_cores := count_cores()):
        log.warning("%s: %d, but this process has %d cores; %d are used", source, threads, num_cores, num_cores)
        threads = num_cores
    return threads


def get_num_threads() -> int:
    """Returns the number of CPU threads that torch computes with, or would compute with once it is imported."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch is not None else choose_threads()
