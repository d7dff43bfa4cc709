"""Composes conf/ and command-line overrides into checked settings, and builds objects from them."""

from fireseg.config.compose import Preflight, compose_settings, preflight
from fireseg.config.resolve import resolve
from fireseg.config.resume import finalize
from fireseg.config.schema import check, make
from fireseg.config.targets import CONF_DIR

__all__ = ["CONF_DIR", "Preflight", "check", "compose_settings", "finalize", "make", "preflight", "resolve"]
