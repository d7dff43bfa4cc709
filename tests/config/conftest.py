"""Fixtures of the settings tests: the faults of a command line, and the default settings."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from fireseg.config import compose_settings, preflight
from fireseg.errors import SettingError

Faults = Callable[..., list[str]]


@pytest.fixture
def faults() -> Faults:
    """Returns all faults of a command line, or none if it would run."""

    def find(*argv: str) -> list[str]:
        try:
            preflight(argv)
        except SettingError as error:
            return list(error.faults)
        return []

    return find


@pytest.fixture(scope="session")
def _defaults() -> dict[str, Any]:
    return compose_settings()


@pytest.fixture
def settings(_defaults: dict[str, Any]) -> dict[str, Any]:
    """Returns a copy of the default settings, which a test may change."""
    return copy.deepcopy(_defaults)
