"""Train, compare and map: burned-area segmentation on Sentinel-2."""

from importlib import import_module as _import_module
from typing import Any as _Any

__version__ = "0.1.0"


def __getattr__(name: str) -> _Any:
    # By name, and only when asked for: importing stays light, and rooms that want the version know nothing of maps.
    if name == "load":
        return _import_module("fireseg.predict.api").load
    raise AttributeError(f"module 'fireseg' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*globals(), "load"]
