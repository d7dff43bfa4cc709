"""From Hydra's tree to a plain one: interpolations replaced by what they stand for."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fireseg.errors import SettingError

_LONGEST_SLUG = 80


def slug(text: str) -> str:
    """A name for a folder: letters, digits, `.`, `_` and `-`, never empty, at most 80 characters.

    The number of the job stands before it, so that the folders of a sweep are distinct and their
    names stay within 90.

    Example:
        >>> slug("model.encoder=resnet18,optimizer.lr=1e-3")
        'model.encoder-resnet18_optimizer.lr-1e-3'
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", str(text).replace(",", "_")).strip("._-")
    if len(name) > _LONGEST_SLUG:
        name = f"{name[: _LONGEST_SLUG - 9]}-{hashlib.sha256(str(text).encode()).hexdigest()[:8]}"
    return name or "base"


def count(items: Any) -> int:
    """How many items a list has. What is no list counts as one, and is told by the check of the list itself."""
    return len(items) if isinstance(items, ListConfig | list | tuple) else 1


def register() -> None:
    """Makes `${count:...}` and `${slug:...}` known to conf/."""
    OmegaConf.register_new_resolver("count", count, replace=True)
    OmegaConf.register_new_resolver("slug", slug, replace=True)


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """The settings as a plain dict, without Hydra's own: what config.json holds.

    Args:
        cfg: What Hydra composed.

    Raises:
        SettingError: If an interpolation stands for nothing; all such faults at once.
    """
    tree, faults = resolve_all(cfg)
    if faults:
        raise SettingError(*faults)
    return tree


def resolve_all(cfg: DictConfig) -> tuple[dict[str, Any], list[str]]:
    """The same, with the faults beside it; what cannot be resolved is left out."""
    faults: list[str] = []
    tree = {str(key): _plain(cfg, key, str(key), faults) for key in cfg if key != "hydra"}
    return {key: value for key, value in tree.items() if value is not _UNKNOWN}, faults


_UNKNOWN = object()


def _plain(parent: DictConfig | ListConfig, key: Any, place: str, faults: list[str]) -> Any:
    try:
        if OmegaConf.is_missing(parent, key):
            return "???"
        value = parent[key]
    except (OmegaConfBaseException, ValueError) as error:
        line = re.sub(r"^\w+ raised while resolving interpolation: ", "", str(error).splitlines()[0]).strip('"')
        faults.append(f"{place}: {line}; write a value that can be resolved")
        return _UNKNOWN
    if isinstance(value, DictConfig):
        children = {str(inner): _plain(value, inner, f"{place}.{inner}", faults) for inner in value}
        return {inner: child for inner, child in children.items() if child is not _UNKNOWN}
    if isinstance(value, ListConfig):
        items = [_plain(value, number, f"{place}[{number}]", faults) for number in range(len(value))]
        return [item for item in items if item is not _UNKNOWN]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


register()
