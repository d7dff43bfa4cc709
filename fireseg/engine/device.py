"""Where the arithmetic happens, and in how many bits."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Literal

import torch

from fireseg.errors import SettingError

DeviceName = Literal["auto", "cuda", "mps", "cpu"]

PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]


def get_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` takes CUDA, else Apple's MPS, else the CPU.

    Args:
        name: `auto`, `cuda`, `mps` or `cpu`.

    Raises:
        SettingError: If the machine has no such device.

    Example:
        >>> get_device("cpu")
        device(type='cpu')
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, is_there in available.items() if is_there)
    if name not in available:
        raise SettingError(f"engine.device: {name}, but it is one of auto, cuda, mps, cpu")
    if not available[name]:
        there = ", ".join(kind for kind, is_there in available.items() if is_there)
        raise SettingError(
            f"engine.device: {name}, but torch finds none on this machine (there is: {there}); take auto"
        )
    return torch.device(name)


def get_autocast_dtype(device: torch.device, precision: PrecisionName) -> torch.dtype | None:
    """The dtype that forward passes run in, or None for plain float32.

    `auto` is bfloat16 on a CUDA device that has it, float16 on one that has not, and float32
    elsewhere: a CPU without bfloat16 instructions emulates them a hundred times slower.

    Args:
        device: Where the model runs.
        precision: `auto`, `fp32`, `bf16` or `fp16`.

    Raises:
        SettingError: If bfloat16 is asked of hardware that would emulate it.
    """
    if precision == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if precision == "bf16" and not _has_bf16(device):
        raise SettingError(
            f"engine.precision: bf16, but this {device.type} would emulate it, far slower than fp32; take auto"
        )
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "mps":
        return torch.backends.mps.is_macos_or_newer(14, 0)
    return bool(_cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"})


def _cpu_flags() -> set[str]:
    """Instruction sets of the CPU, as Linux names them; empty where it does not say."""
    cpuinfo = Path("/proc/cpuinfo")
    if platform.system() != "Linux" or not cpuinfo.exists():
        return set()
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((set(line.split()) for line in lines if line.startswith(("flags", "Features"))), set())


def set_threads(threads: int | None) -> int:
    """Gives torch its CPU threads.

    Args:
        threads: How many, or None for `OMP_NUM_THREADS` where that is set, else the cores that
            this process may use (which in a container or a batch job are fewer than the machine's).

    Returns:
        How many it is.
    """
    if threads is None:
        allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
        wish = os.environ.get("OMP_NUM_THREADS", "")
        threads = int(wish) if wish.isdigit() and int(wish) > 0 else allowed
    torch.set_num_threads(threads)
    return threads
