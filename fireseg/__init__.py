"""Trains burned-area segmentation models on Sentinel-2 patches, compares them, and maps burned areas."""

from importlib import import_module as _import_module
from typing import Any as _Any

__version__ = "0.1.0"


def __getattr__(name: str) -> _Any:
    # Imported on access and by name: `import fireseg` stays fast, and no package below imports the commands.
    if name == "load":
        return _import_module("fireseg.predict.api").load
    raise AttributeError(f"module 'fireseg' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*globals(), "load"]
