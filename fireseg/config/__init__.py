"""YAML in, plain objects out: what a user chose, checked before anything is built."""

from fireseg.config.compose import Preflight, preflight
from fireseg.config.offer import CONF_DIR
from fireseg.config.resolve import resolve
from fireseg.config.resume import settle
from fireseg.config.settings import check, make

__all__ = ["CONF_DIR", "Preflight", "check", "make", "preflight", "resolve", "settle"]
