"""Resolves the interpolations of composed settings to a plain dict; defines `${count:...}`, `${input_bands:...}` and
`${slug:...}`."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fireseg.errors import SettingError
from fireseg.pairs import add_pre_bands

_MAX_SLUG_LENGTH = 80

_UNRESOLVED = object()


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """Returns the settings as a plain dict without the `hydra` node: the content of config.json.

    Texts that begin with `~/` are paths in the home folder; they become absolute.

    Args:
        cfg: Settings composed by Hydra.

    Raises:
        SettingError: If an interpolation cannot be resolved; with all such faults.
    """
    tree, faults = resolve_all(cfg)
    if faults:
        raise SettingError(*faults)
    return tree


def resolve_all(cfg: DictConfig) -> tuple[dict[str, Any], list[str]]:
    """Returns the settings that can be resolved, and the faults of the others."""
    faults: list[str] = []
    tree = {str(key): _resolve_value(cfg, key, str(key), faults) for key in cfg if key != "hydra"}
    return {key: value for key, value in tree.items() if value is not _UNRESOLVED}, faults


def _resolve_value(parent: DictConfig | ListConfig, key: Any, place: str, faults: list[str]) -> Any:
    try:
        if OmegaConf.is_missing(parent, key):
            return "???"
        value = parent[key]
    except (OmegaConfBaseException, ValueError) as error:
        line = re.sub(r"^\w+ raised while resolving interpolation: ", "", str(error).splitlines()[0]).strip('"')
        faults.append(f"{place}: {line}; write a value that can be resolved")
        return _UNRESOLVED
    if isinstance(value, DictConfig):
        children = {str(inner): _resolve_value(value, inner, f"{place}.{inner}", faults) for inner in value}
        return {inner: child for inner, child in children.items() if child is not _UNRESOLVED}
    if isinstance(value, ListConfig):
        items = [_resolve_value(value, number, f"{place}[{number}]", faults) for number in range(len(value))]
        return [item for item in items if item is not _UNRESOLVED]
    if isinstance(value, str) and (value == "~" or value.startswith("~/")):
        return str(Path(value).expanduser())
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def slug(text: str) -> str:
    """Converts a text to a folder name of letters, digits, `.`, `_` and `-`, never empty, of at most 80 characters.

    Hydra puts the number of the job before it, so the folders of a sweep are distinct and their names
    have at most 90 characters.

    Example:
        >>> slug("model.encoder=resnet18,optimizer.lr=1e-3")
        'model.encoder-resnet18_optimizer.lr-1e-3'
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", str(text).replace(",", "_")).strip("._-")
    if len(name) > _MAX_SLUG_LENGTH:
        name = f"{name[: _MAX_SLUG_LENGTH - 9]}-{hashlib.sha256(str(text).encode()).hexdigest()[:8]}"
    return name or "base"


def _count(items: Any) -> int:
    # A value that is no list is reported by the check of the list itself.
    return len(items) if isinstance(items, ListConfig | list | tuple) else 1


def _list_input_bands(bands: Any, pre: Any) -> Any:
    # Other values are reported by the checks of the settings themselves.
    is_list = isinstance(bands, ListConfig | list | tuple) and all(isinstance(band, str) for band in bands)
    return ListConfig([*add_pre_bands(list(bands), pre is True)]) if is_list else bands


OmegaConf.register_new_resolver("input_bands", _list_input_bands, replace=True)
OmegaConf.register_new_resolver("count", _count, replace=True)
OmegaConf.register_new_resolver("slug", slug, replace=True)
