"""Device, precision and threads."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fireseg import hardware
from fireseg.engine import get_device
from fireseg.engine.device import PrecisionName, autocast, get_autocast_dtype, out_of_memory_as, set_threads
from fireseg.errors import FiresegError, SettingError


def test_auto_selects_the_best_available_device(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert get_device("auto").type == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert get_device("auto").type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert get_device("auto").type == "cuda"


def test_the_error_for_an_unavailable_device_lists_the_available_ones(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingError, match=r"engine\.device: cuda .*use auto, or one of: .*cpu"):
        get_device("cuda")
    with pytest.raises(SettingError, match="one of auto, cuda, mps, cpu"):
        get_device("tpu")


def test_automatic_precision_depends_on_the_hardware(monkeypatch: pytest.MonkeyPatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(hardware, "get_cpu_flags", lambda: frozenset({"avx2"}))
    assert get_autocast_dtype(cpu, "auto") is None
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    assert get_autocast_dtype(cuda, "auto") is torch.float16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert get_autocast_dtype(cuda, "auto") is torch.bfloat16
    assert get_autocast_dtype(cuda, "fp32") is None


def test_bf16_on_a_cpu_needs_bf16_instructions(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hardware, "get_cpu_flags", lambda: frozenset({"avx2"}))
    with pytest.raises(SettingError, match=r"engine\.precision: bf16"):
        get_autocast_dtype(torch.device("cpu"), "bf16")
    monkeypatch.setattr(hardware, "get_cpu_flags", lambda: frozenset({"avx512_bf16"}))  # slower than float32 as well
    with pytest.raises(SettingError, match=r"engine\.precision: bf16"):
        get_autocast_dtype(torch.device("cpu"), "bf16")
    assert get_autocast_dtype(torch.device("cpu"), "auto") is None
    monkeypatch.setattr(hardware, "get_cpu_flags", lambda: frozenset({"avx512_bf16", "amx_bf16"}))
    assert get_autocast_dtype(torch.device("cpu"), "bf16") is torch.bfloat16
    assert get_autocast_dtype(torch.device("cpu"), "auto") is torch.bfloat16


def test_the_number_of_threads_is_the_argument_or_that_of_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    monkeypatch.setattr(hardware, "count_cores", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert (set_threads(2), set_threads(None)) == (2, 3)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert set_threads(None) == 4


def test_more_threads_than_cores_are_not_used(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    monkeypatch.setattr(hardware, "count_cores", lambda: 4)
    monkeypatch.setattr(hardware.log, "propagate", True)
    assert set_threads(100_000) == 4
    assert "threads: 100000, but this process has 4 cores; 4 are used" in caplog.text


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_exhausted_memory_raises_the_given_error(error: Exception):
    with (
        pytest.raises(FiresegError, match="--batch-size: too large"),
        out_of_memory_as(FiresegError("--batch-size: too large")),
    ):
        raise error


def test_other_errors_are_not_out_of_memory():
    with pytest.raises(RuntimeError, match="shapes differ"), out_of_memory_as(FiresegError("--batch-size: too large")):
        raise RuntimeError("shapes differ")


def test_autocast_changes_the_dtype_of_convolutions_only_if_requested():
    layer, image = nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 2, 2)
    dtypes: dict[PrecisionName, torch.dtype] = {"auto": torch.float32, "fp32": torch.float32, "fp16": torch.float16}
    for precision, dtype in dtypes.items():
        with autocast(torch.device("cpu"), get_autocast_dtype(torch.device("cpu"), precision)):
            assert layer(image).dtype == dtype
