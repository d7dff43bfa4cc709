"""A fixture for full disks."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Iterator

import pytest


@pytest.fixture
def limit_file_bytes() -> Iterator[Callable[[int], None]]:
    """Limits the size of files: writes beyond the limit fail until the test ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, before)
