"""The files of conf/, and the callables that their `_target_` keys allow settings to build."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from fireseg.errors import did_you_mean

_PACKAGE = Path(__file__).resolve().parents[1]

CONF_DIR = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""Folder of the YAML files: inside an installed package, beside the package in a checkout."""

FORMER_TARGETS = {"fireseg.data.sample.make_sample": "fireseg.synthetic.make_sample"}
"""`_target_` addresses in settings of earlier versions, with their present addresses."""

TARGETS_WITHOUT_CONF = {
    "task": {"fireseg.task.Task": False},
    "model": {"fireseg.model.create_segmentation_model": False},
}
"""Addresses of what a checkpoint needs, for a copy of the code without conf/, as stored models have it."""

RECIPES = ("experiment", "sweep")
"""Groups whose files set keys of the root (`# @package _global_`) instead of keys under their own name."""


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a file of conf/ without composing or resolving anything."""
    import yaml

    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def list_groups() -> list[str]:
    """Returns the groups of conf/, such as `model/encoder`."""
    return sorted({path.parent.relative_to(CONF_DIR).as_posix() for path in CONF_DIR.rglob("*/*.yaml")})


def read_group(group: str) -> dict[str, dict[str, Any]]:
    """Reads all files of a group, by choice; empty if there is no such group."""
    return {path.stem: read_yaml(path) for path in sorted((CONF_DIR / group).glob("*.yaml"))}


@cache
def get_targets() -> dict[str, dict[str, bool]]:
    """Collects the `_target_` addresses of conf/. Nothing else is ever called, whatever a config.json says.

    Returns:
        For each key of the root, the addresses used below it, each with True if the callable is bound
        to its arguments and called later (`_partial_`).
    """
    if not CONF_DIR.is_dir():
        return TARGETS_WITHOUT_CONF
    targets: dict[str, dict[str, bool]] = {}
    for path in sorted(CONF_DIR.rglob("*.yaml")):
        folder = path.relative_to(CONF_DIR).parts[0]
        content = read_yaml(path)
        is_root = path.parent == CONF_DIR or folder in RECIPES
        for key, node in content.items() if is_root else [(folder, content)]:
            if key != "hydra":
                targets.setdefault(key, {}).update(_find_targets(node))
    return targets


def find_target_fault(node: dict[str, Any], place: str) -> str | None:
    """Returns the fault of the `_target_` of a node, or None.

    Args:
        node: Settings of one object.
        place: Dotted key of the node.
    """
    allowed = get_targets().get(place.partition(".")[0], {})
    target = node.get("_target_")
    if target is None:
        return f"{place}._target_: missing; name what is built, such as {next(iter(allowed), 'those in conf/')}"
    if not isinstance(target, str) or target not in allowed:
        return f"{place}._target_: {target}, but conf/ uses no such address here{did_you_mean(str(target), allowed)}"
    if "_partial_" in node and not allowed[target]:
        return f"{place}._partial_: no such setting"
    if allowed[target] and node.get("_partial_") is not True:
        return f"{place}._partial_: must be true, as in conf/"
    return None


def is_allowed(target: Any) -> bool:
    """Returns True if a file of conf/ uses this address."""
    return isinstance(target, str) and any(target in targets for targets in get_targets().values())


def update_targets(settings: Any) -> Any:
    """Replaces the addresses of earlier versions in the settings of a run by the present ones.

    Args:
        settings: Settings of a run, or a part of them.

    Returns:
        A copy; everything but `_target_` is unchanged.
    """
    if isinstance(settings, dict):
        updated = {key: update_targets(value) for key, value in settings.items()}
        if isinstance(target := updated.get("_target_"), str):
            updated["_target_"] = FORMER_TARGETS.get(target, target)
        return updated
    return [update_targets(value) for value in settings] if isinstance(settings, list) else settings


def locate(target: str) -> Any:
    """Imports the callable at an address. Only for addresses that conf/ uses."""
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
