"""What was typed: each word of a command line read, placed and laid onto the settings, with all faults kept."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from functools import cache
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fireseg.config.offer import RECIPES, describe_group
from fireseg.config.wording import show
from fireseg.errors import SettingError, did_you_mean

_HELP = "--help lists what there is"


@cache
def parse(text: str) -> Override:
    """Reads one word of a command line.

    Raises:
        SettingError: If it is not of the form name=value.
    """
    try:
        word = OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise SettingError(_describe_unreadable(text, error)) from None
    if not word.key_or_group:
        raise SettingError(f"{text}: has no name before the =; {_HELP}")
    return word


def is_group(loader: ConfigLoader, name: str) -> bool:
    """Whether Hydra takes `name=...` as a choice among files."""
    return "." not in name and bool(loader.get_group_options(name, None))


def find_group_fault(loader: ConfigLoader, override: Override) -> str | None:
    """Says what is wrong with a choice among the files of a group, if anything is."""
    group, value = override.key_or_group, override.value()
    choices = [choice for choice in loader.get_group_options(group, ObjectType.CONFIG) if not choice.startswith("_")]
    offer = f"there are {', '.join(choices)}" if len(choices) > 1 else f"there is {', '.join(choices)}"
    if override.package is not None:
        return f"{group}@{override.package}: nothing here can be moved by @; write {group}={value}"
    without = f"write {group}=none" if "none" in choices else "choose one"
    if group in RECIPES:
        without = "none is taken unless you name one, so leave it out"
    if override.is_delete():
        return f"~{group}: a choice cannot be taken out; {without}; {offer}"
    if (override.is_add() or override.is_force_add()) and not group.startswith("hydra/"):
        return f"+{group}: is there already; leave out the +: {group}={value}"
    if value is None:
        return f"{group}: null is none of its choices; {without}; {offer}"
    if isinstance(value, list):
        return f"{group}: {show(value)} is a list, but it takes one choice; {offer}"
    if str(value) in choices or _is_nested_choice(loader, group, str(value)):
        return None
    by_value = _spell_by_value(group, value)
    return f"{group}: no choice {show(str(value))}{did_you_mean(str(value), choices)}; {offer}{by_value}"


def apply(override: Override, cfg: DictConfig, loader: ConfigLoader) -> list[str]:
    """Lays one value onto the settings, or says why it cannot be.

    The same as Hydra does when it composes, but for the words, and that one fault hides no other.
    """
    key, value = override.key_or_group, override.value()
    if "/" in key:
        return [f"{key}: no such group of choices{did_you_mean(key, _list_groups(loader))}; {_HELP}"]
    if override.package is not None:
        return [f"{key}@{override.package}: nothing here can be moved by @; write {key}=..."]
    try:
        faults = _find_faults(override, cfg, loader)
        if not faults:
            OmegaConf.update(cfg, key, value, merge=True, force_add=override.is_add() or override.is_force_add())
    except (OmegaConfBaseException, HydraException, ValueError) as error:
        return [f"{key}: {squeeze(error)}"]
    except (AttributeError, AssertionError):  # what OmegaConf comes to where a typed mapping is null
        return [f"{key}: is null in Hydra's own settings and cannot be filled here; write it into a file of conf/"]
    return faults


def _find_faults(override: Override, cfg: DictConfig, loader: ConfigLoader) -> list[str]:
    key, value = override.key_or_group, override.value()
    place, _, last = key.rpartition(".")
    parent = OmegaConf.select(cfg, place) if place else cfg
    is_known = isinstance(parent, DictConfig) and last in parent
    can_add = override.is_add() or override.is_force_add()
    if not is_known:
        return [] if can_add else [_describe_unknown(key, cfg)]
    if override.is_delete():
        return [f"~{key}: a setting cannot be taken out, only changed; write {key}=..."]
    before = OmegaConf.select(cfg, key)
    if override.is_add() and before is not None and not isinstance(value, dict | list):
        return [f"+{key}: is there already; leave out the +: {str(override.input_line).lstrip('+')}"]
    if isinstance(value, str) and not isinstance(before, str) and is_group(loader, key.replace(".", "/")):
        return [f"{key}: is a choice among files; write {key.replace('.', '/')}={value}"]
    if isinstance(value, dict) and isinstance(before, DictConfig) and not can_add:
        return [_describe_unknown(f"{key}.{inner}", cfg) for inner in value if inner not in before]
    return []


def squeeze(error: BaseException) -> str:
    """An error of Hydra or OmegaConf as one line."""
    text = str(error) or str(error.__cause__ or type(error).__name__)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def _describe_unreadable(text: str, error: HydraException) -> str:
    name, equals, value = text.partition("=")
    if not equals:
        return f"{text}: is not of the form name=value (a value with blanks needs quotes); {_HELP}"
    if value.count("[") != value.count("]") or value.count("{") != value.count("}"):
        whole = f"'{name}={{a: 1}}'" if "{" in value else f"'{name}=[a,b]'"
        return f"{name}: {show(value)} has a bracket without its partner; quote the whole for the shell: {whole}"
    return f"{name}: {show(value)} cannot be read ({squeeze(error)}); quote it twice: '{name}=\"{value}\"'"


def _describe_unknown(key: str, cfg: DictConfig) -> str:
    """Names what comes nearest: under another choice, under the same name elsewhere, or beside it."""
    place, _, last = key.rpartition(".")
    if holders := _find_holders(key):
        return f"{key}: no such setting here; {' or '.join(holders)} has it"
    leaves = [path for path in _walk(cfg) if path.startswith("hydra.") == key.startswith("hydra.")]
    beside = [path.removeprefix(f"{place}.") for path in leaves if path.startswith(f"{place}.")]
    if near := did_you_mean(last, [name for name in beside if "." not in name]):
        return f"{key}: no such setting{near}"
    # The name alone is what people remember: lr is optimizer.lr, wherever it was looked for.
    by_name = {path.rpartition(".")[2]: path for path in [*reversed(leaves), *map(str, cfg), *RECIPES]}
    close = difflib.get_close_matches(last, by_name, n=1, cutoff=0.6)
    return f"{key}: no such setting" + (
        f" (did you mean '{by_name[close[0]]}'?)" if close else did_you_mean(key, leaves)
    )


def _find_holders(key: str) -> list[str]:
    """The choices of a group that have a setting: `scheduler=cosine` for scheduler.warmup_epochs."""
    steps = key.split(".")
    for depth in range(len(steps) - 1, 0, -1):
        group = "/".join(steps[:depth])
        choices = describe_group(group).items()
        if holders := [f"{group}={choice}" for choice, content in choices if _holds(content, steps[depth:])]:
            return holders
    return []


def _holds(content: Any, steps: list[str]) -> bool:
    for step in steps:
        if not isinstance(content, dict) or step not in content:
            return False
        content = content[step]
    return True


def _spell_by_value(group: str, value: Any) -> str:
    """How to go beyond the files of a group whose files are one value each."""
    is_value = all(list(content) == [group.rpartition("/")[2]] for content in describe_group(group).values())
    return f"; any other by value: {group.replace('/', '.')}={value}" if is_value and group == "model/encoder" else ""


def _is_nested_choice(loader: ConfigLoader, group: str, value: str) -> bool:
    folder, slash, name = value.rpartition("/")
    return bool(slash) and name in loader.get_group_options(f"{group}/{folder}", ObjectType.CONFIG)


def _list_groups(loader: ConfigLoader, parent: str = "") -> list[str]:
    groups = [f"{parent}/{name}" if parent else name for name in loader.get_group_options(parent, ObjectType.GROUP)]
    return groups + [inner for group in groups for inner in _list_groups(loader, group)]


def _walk(cfg: DictConfig, place: str = "") -> Iterator[str]:
    """Dotted keys of all values; interpolations are not followed."""
    for key, node in cfg.items_ex(resolve=False):
        inner = f"{place}.{key}" if place else str(key)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
            yield from _walk(node, inner)
        elif not str(key).startswith("_"):
            yield inner
