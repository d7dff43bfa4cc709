"""What conf/ offers: its folders, and the callables that its files name."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from fireseg.errors import did_you_mean

_PACKAGE = Path(__file__).resolve().parents[1]

CONF_DIR = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""The folder of all choices: inside an installed package, or beside it in a checkout."""

RECIPES = ("experiment", "sweep")
"""Groups whose files set keys of the root, not of a part of their own name."""


def read_yaml(path: Path) -> dict[str, Any]:
    """The content of a file of conf/ as it stands, nothing composed or resolved."""
    import yaml

    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def describe_group(group: str) -> dict[str, dict[str, Any]]:
    """The files of a group by choice, each as it stands. Empty where there is no such group."""
    return {path.stem: read_yaml(path) for path in sorted((CONF_DIR / group).glob("*.yaml"))}


@cache
def get_offered() -> dict[str, dict[str, bool]]:
    """The `_target_`s of conf/ by the key of the root that they stand under.

    Nothing else is ever called: a config.json that somebody made up can name no other callable.

    Returns:
        For each key of the root, which callables there are, and whether each is called later
        (`_partial_`).
    """
    offered: dict[str, dict[str, bool]] = {}
    for path in sorted(CONF_DIR.rglob("*.yaml")):
        folder = path.relative_to(CONF_DIR).parts[0]
        content = read_yaml(path)
        is_root = path.parent == CONF_DIR or folder in RECIPES
        for key, node in content.items() if is_root else [(folder, content)]:
            if key != "hydra":
                offered.setdefault(key, {}).update(_find_targets(node))
    return offered


def find_target_fault(node: dict[str, Any], place: str) -> str | None:
    """Says what is wrong with the `_target_` of a node, if anything is."""
    offered = get_offered().get(place.partition(".")[0], {})
    target = node.get("_target_")
    if target is None:
        return f"{place}._target_: missing; it says what is built, as {_first(offered)}"
    if not isinstance(target, str) or target not in offered:
        return f"{place}._target_: {target}, but conf/ offers no such thing here{did_you_mean(str(target), offered)}"
    if "_partial_" in node and not offered[target]:
        return f"{place}._partial_: no such setting"
    if offered[target] and node.get("_partial_") is not True:
        return f"{place}._partial_: must be true, as in conf/"
    return None


def is_offered(target: str) -> bool:
    """Whether any file of conf/ names this callable."""
    return any(target in targets for targets in get_offered().values())


def locate(target: str) -> Any:
    """Imports what a `_target_` names. Only for what conf/ offers."""
    module, _, name = target.rpartition(".")
    return getattr(import_module(module), name)


def _find_targets(node: Any) -> Iterator[tuple[str, bool]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"], bool(node.get("_partial_", False))
        for child in node.values():
            yield from _find_targets(child)
    elif isinstance(node, list):
        for child in node:
            yield from _find_targets(child)


def _first(names: dict[str, bool]) -> str:
    return next(iter(names), "in conf/")
