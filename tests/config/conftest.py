"""What the tests of settings share: one check of a command line that gives its faults."""

from __future__ import annotations

import copy
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


@pytest.fixture(scope="session")
def _defaults() -> dict[str, Any] | None:
    return preflight([]).settings


@pytest.fixture
def settings(_defaults: dict[str, Any] | None) -> dict[str, Any]:
    """The settings of a run that asks for nothing in particular, to be changed at will."""
    assert _defaults is not None
    return copy.deepcopy(_defaults)
