"""What the tests of settings share: one check of a command line that gives its faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fireseg.config import preflight
from fireseg.errors import SettingError

Faults = Callable[..., list[str]]


@pytest.fixture
def faults() -> Faults:
    """Gives all faults of a command line, none if it would run."""

    def find(*argv: str) -> list[str]:
        try:
            preflight(argv)
        except SettingError as error:
            return list(error.faults)
        return []

    return find


@pytest.fixture
def settings() -> dict[str, Any]:
    """The settings of a run that asks for nothing in particular."""
    found = preflight([]).settings
    assert found is not None
    return found
