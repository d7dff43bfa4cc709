"""YAML in, plain objects out: what a user chose, checked before anything is built."""

from fireseg.config.compose import Preflight, preflight
from fireseg.config.resume import settle
from fireseg.config.schema import CONF_DIR, check, make, resolve

__all__ = ["CONF_DIR", "Preflight", "check", "make", "preflight", "resolve", "settle"]
