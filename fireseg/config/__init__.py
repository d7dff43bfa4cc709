"""Composes conf/ and command-line overrides into checked settings, and builds objects from them.

The names below are imported at first use: building objects from settings needs no Hydra.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fireseg.config.compose import Preflight, compose_settings, preflight
    from fireseg.config.resume import finalize
    from fireseg.config.schema import check, make
    from fireseg.config.targets import CONF_DIR

_MODULES = {
    "CONF_DIR": "targets",
    "Preflight": "compose",
    "check": "schema",
    "compose_settings": "compose",
    "finalize": "resume",
    "make": "schema",
    "preflight": "compose",
}

__all__ = ["CONF_DIR", "Preflight", "check", "compose_settings", "finalize", "make", "preflight"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'fireseg.config' has no attribute '{name}'")
    return getattr(import_module(f"fireseg.config.{_MODULES[name]}"), name)
