"""Overrides of a command line: parsing, expansion of sweeps, and and their faults."""

from __future__ import annotations

import difflib
import itertools
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from fireseg.config.schema import format_value
from fireseg.config.targets import RECIPES, list_groups, read_group
from fireseg.console import format_override
from fireseg.errors import SettingError, did_you_mean


@cache
def parse(text: str) -> Override:
    """Parses one override.

    Raises:
        SettingError: If it is not of the form name=value.
    """
    name, equals, value = text.partition("=")
    try:
        word = OverridesParser.create().parse_override(text)
    except HydraException as error:
        if not equals:
            fault = f"{text}: not of the form name=value (quote a value with blanks); --help lists the settings"
        elif value.count("[") != value.count("]") or value.count("{") != value.count("}"):
            whole = f"'{name}={{a: 1}}'" if "{" in value else f"'{name}=[a,b]'"
            fault = f"{name}: {format_value(value)} has an unbalanced bracket; quote the whole for the shell: {whole}"
        else:
            cause, quoted = first_line(error), format_override(name, value)
            fault = f"{name}: {format_value(value)} cannot be parsed ({cause}); quote it twice: {quoted}"
        raise SettingError(fault) from None
    if not word.key_or_group:
        raise SettingError(f"{text}: no name before the =; --help lists the settings")
    return word


# Unquoted, and in every place where a path may begin: a value, an item of a list or sweep, an SQLite store.
_HOME = re.compile(r"(?<=[=,\[])(sqlite:///)?~(?=[/,\]]|$)")


def expand_home(texts: Sequence[str]) -> list[str]:
    """Replaces `~` at the start of unquoted paths, which Hydra cannot parse; bash expands it only in some of them.

    Example:
        >>> expand_home(["data.root=~/patches", "task=gra"])
        ['data.root=${oc.env:HOME}/patches', 'task=gra']
    """
    if not any(_HOME.search(text) for text in texts):
        return list(texts)
    os.environ.setdefault("HOME", str(Path.home()))
    # An interpolation, because the name of the folder itself might have to be quoted.
    return [text if {"'", '"'} & {*text} else _HOME.sub(r"\1${oc.env:HOME}", text) for text in texts]


def parse_all(texts: Sequence[str]) -> tuple[list[Override], list[str]]:
    """Parses overrides and returns the valid ones and the faults of the others."""
    words, faults = [], []
    for text in texts:
        try:
            words.append(parse(text))
        except SettingError as error:
            faults += error.faults
    return words, faults


class Groups:
    """The groups of files that Hydra finds on its search path. Needs an initialised Hydra.

    Args:
        search_path: The override of `hydra.searchpath`, if there is one.
    """

    def __init__(self, search_path: Sequence[str]) -> None:
        self._search_path = list(search_path)
        self._options: dict[tuple[str, ObjectType | None], list[str]] = {}

    def __contains__(self, name: str) -> bool:
        return "." not in name and bool(self._list(name, None))

    def list_choices(self, group: str) -> list[str]:
        """Returns the choices of a group; files whose names begin with `_` are not offered."""
        return [choice for choice in self._list(group, ObjectType.CONFIG) if not choice.startswith("_")]

    def _list(self, group: str, kind: ObjectType | None) -> list[str]:
        if (group, kind) not in self._options:
            loader = GlobalHydra.instance().config_loader()
            self._options[group, kind] = loader.get_group_options(group, kind, overrides=self._search_path)
        return self._options[group, kind]


def check_choice(word: Override, groups: Groups) -> str | None:
    """Returns the fault of a choice among the files of a group, or None."""
    group, value = word.key_or_group, word.value()
    choices = groups.list_choices(group)
    available = f"available: {', '.join(choices)}"
    if group in ("hydra/launcher", "hydra/sweeper") and str(value) != "basic":
        engine = value if group == "hydra/launcher" and value in ("slurm", "ray") else "local"
        return f"{group}: sweeps are run without plugins of Hydra; leave it out, and write -m --engine {engine}"
    if word.package is not None:
        return f"{group}@{word.package}: packages cannot be changed; write {group}={value}"
    if word.is_delete():
        cure = "leave it out" if group in RECIPES else f"write {group}={'none' if 'none' in choices else 'CHOICE'}"
        return f"~{group}: a choice cannot be removed; {cure}; {available}"
    if (word.is_add() or word.is_force_add()) and not group.startswith("hydra/"):
        return f"+{group}: exists already; write {group}={value}"
    folder, _, name = str(value).rpartition("/")
    if str(value) in choices or (folder and name in groups.list_choices(f"{group}/{folder}")):
        return None
    others = f"; for other encoders write model.encoder={value}" if group == "model/encoder" else ""
    near = did_you_mean(value, choices) if isinstance(value, str) else ""
    return f"{group}: no choice {format_value(value)}{near}; {available}{others}"


def apply(word: Override, cfg: DictConfig, groups: Groups) -> str | None:
    """Applies the value of an override to the settings as Hydra does, or returns its fault."""
    key, value, text = word.key_or_group, word.value(), str(word.input_line)
    if "/" in key:
        return f"{key}: no such group{did_you_mean(key, list_groups())}; --help lists the groups"
    if word.package is not None:
        return f"{key}@{word.package}: packages cannot be changed; write {key}=..."
    can_add = word.is_add() or word.is_force_add()
    parent_key, _, name = key.rpartition(".")
    try:
        parent = OmegaConf.select(cfg, parent_key) if parent_key else cfg
        is_known = isinstance(parent, DictConfig) and name in parent
        before = OmegaConf.select(cfg, key, throw_on_resolution_failure=False) if is_known else None
        if not is_known and not can_add:
            return _describe_unknown(key, cfg)
        if word.is_delete():
            return f"~{key}: a setting cannot be removed, only changed; write {key}=..."
        if word.is_add() and before is not None and not isinstance(value, dict | list):
            return f"+{key}: exists already; write {text.lstrip('+')}"
        if isinstance(value, str) and not isinstance(before, str) and key.replace(".", "/") in groups:
            return f"{key}: is a group of files; write {key.replace('.', '/')}={value}"
        OmegaConf.update(cfg, key, value, merge=True, force_add=can_add)
    except (ConfigKeyError, ConfigAttributeError) as error:
        return _describe_unknown(str(error.full_key or key), cfg)
    except (OmegaConfBaseException, HydraException, ValueError) as error:
        return f"{key}: {first_line(error)}"
    except (AttributeError, AssertionError):  # raised by OmegaConf for a typed mapping of Hydra's that is null
        return f"{key}: is null in Hydra's own settings and cannot be set here; write it into a file of conf/"
    return None


def expand_sweep(words: Sequence[Override], groups: Groups) -> tuple[list[list[str]], list[str]]:
    """Expands swept values to jobs, in the order of Hydra's basic sweeper.

    Args:
        words: Overrides of a sweep file and the command line. The last one of a key counts.
        groups: The groups whose files a `glob` matches.

    Returns:
        The overrides of each job, and the faults of overrides that were left out.
    """
    values, faults = {}, []
    for word in words:
        key, value = word.get_key_element(), (word.input_line or "").partition("=")[2]
        if not word.is_sweep_override():
            values[key] = [f"{key}={word.get_value_element_as_str()}"]
        elif fault := _check_swept(word, value, groups):
            faults.append(fault)
        else:
            values[key] = [f"{key}={each}" for each in _iterate(word, groups)]
    return [list(job) for job in itertools.product(*values.values())], faults


def describe_several_values(word: Override, cfg: DictConfig | None) -> str:
    """Describes the fault of a swept value in a command line that is not a sweep."""
    key, value = word.key_or_group, (word.input_line or "").partition("=")[2]
    is_list = cfg is not None and isinstance(OmegaConf.select(cfg, key), ListConfig)
    is_path = cfg is not None and isinstance(OmegaConf.select(cfg, key), str) and bool({"/", " "} & {*value})
    other = f", or write {shlex.quote(f'{key}=[{value}]')} for a list" if is_list else ""
    other = f", or write {format_override(key, value)} for one value" if is_path else other
    return f"{key}: '{value}' is several values; add -m to run one job for each{other}"


def first_line(error: BaseException) -> str:
    """Returns the message of an error of Hydra or OmegaConf as one line."""
    text = str(error) or str(error.__cause__ or type(error).__name__)
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def _check_swept(word: Override, value: str, groups: Groups) -> str | None:
    key = word.key_or_group
    if word.is_hydra_override():
        return f"{key}: '{value}' is several values, but Hydra's own settings hold for the whole sweep; choose one"
    if not word.is_discrete_sweep():
        listed = f"list the values: {key}=1,2,3 or {key}=range(1,4)"
        return (
            f"{key}: {value} is a continuous range; {listed}, or type `python -m fireseg.sweep search` for `train -m`"
        )
    if isinstance(word.value(), Glob) and key not in groups:
        group = key.replace(".", "/")
        cure = f"write {group}={value}" if group in groups else "list the values"
        return f"{key}: {value} matches files, but this is a value, so no job would run; {cure}"
    try:
        is_empty = next(_iterate(word, groups), None) is None
    except (HydraException, ValueError) as error:
        return f"{key}: {value}: {first_line(error)}"
    return f"{key}: {value} has no values, so no job would run; list at least one" if is_empty else None


def _iterate(word: Override, groups: Groups) -> Iterator[str]:
    value: Any = word.value()
    names = value.filter(groups.list_choices(word.key_or_group)) if isinstance(value, Glob) else None
    return iter(names if names is not None else word.sweep_string_iterator())


def _describe_unknown(key: str, cfg: DictConfig) -> str:
    """Names the closest setting: under another choice of the group, beside it, or anywhere by its last name."""
    steps = key.split(".")
    for depth in range(len(steps) - 1, 0, -1):
        group, inner = "/".join(steps[:depth]), ".".join(steps[depth:])
        if holders := [f"{group}={name}" for name, node in read_group(group).items() if inner in _list_keys(node)]:
            return f"{key}: no such setting here; {' or '.join(holders)} has it"
    tree: Any = OmegaConf.to_container(cfg, resolve=False)
    keys = [known for known in _list_keys(tree) if known.startswith("hydra.") == key.startswith("hydra.")]
    parent, _, last = key.rpartition(".")
    siblings = [known.rpartition(".")[2] for known in keys if known.rpartition(".")[0] == parent]
    # A setting is often remembered by its last name: lr for optimizer.lr.
    by_last = {known.rpartition(".")[2]: known for known in [*reversed(keys), *RECIPES]}
    if parent and (near := did_you_mean(last, siblings)):
        return f"{key}: no such setting{near}"
    close = difflib.get_close_matches(last, by_last, n=1, cutoff=0.6)
    return f"{key}: no such setting" + (f" (did you mean '{by_last[close[0]]}'?)" if close else did_you_mean(key, keys))


def _list_keys(tree: dict[Any, Any], parent: str = "") -> Iterator[str]:
    """Yields the dotted keys of all values and inner mappings."""
    for key, value in tree.items():
        if not str(key).startswith("_"):
            yield f"{parent}{key}"
            if isinstance(value, dict):
                yield from _list_keys(value, f"{parent}{key}.")
