"""The jobs of a sweep, before any of them runs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf

from fireseg.config.overrides import is_group, squeeze


def expand(words: Sequence[Override], loader: ConfigLoader) -> tuple[list[list[str]], list[str]]:
    """All combinations of what is swept, in the order in which Hydra's own sweeper runs them.

    Args:
        words: What was typed and what a sweep file says. A later word for the same key counts.
        loader: Knows the files that a `glob` matches.

    Returns:
        The words of each job, and the faults. What has a fault is left out.
    """
    faults = [fault for word in words if (fault := _find_fault(word, loader))]
    sound = [word for word in words if not _find_fault(word, loader)]
    return BasicSweeper.split_arguments(sound, None)[0], faults


def take_first(word: Override, loader: ConfigLoader) -> str | None:
    """One value of what is swept, to stand in where only one can be tried."""
    if not word.is_sweep_override():
        return word.input_line
    if not word.is_discrete_sweep():
        return None
    word.config_loader = loader
    try:
        return next((f"{word.get_key_element()}={value}" for value in word.sweep_string_iterator()), None)
    except HydraException:
        return None


def describe_unswept(word: Override, cfg: DictConfig | None) -> str:
    """What to say to several values where one run is wanted."""
    is_list = cfg is not None and isinstance(OmegaConf.select(cfg, word.key_or_group), ListConfig)
    key, value = word.key_or_group, (word.input_line or "").partition("=")[2]
    a_list = f", or {key}=[{value}] for a list" if is_list else ""
    return f"{key}: '{value}' is several values; add -m to run one job for each{a_list}"


def _find_fault(word: Override, loader: ConfigLoader) -> str | None:
    if not word.is_sweep_override():
        return None
    key, value = word.key_or_group, (word.input_line or "").partition("=")[2]
    if word.is_hydra_override():
        return f"{key}: '{value}' is several values, but what is Hydra's own is one for the whole sweep; choose one"
    if not word.is_discrete_sweep():
        return f"{key}: {value} needs a sweeper that draws numbers; name them: {key}=1,2,3 or {key}=range(1,4)"
    if word.value_type == ValueType.GLOB_CHOICE_SWEEP and not is_group(loader, key):
        group = key.replace(".", "/")
        cure = f"write {group}={value}" if is_group(loader, group) else "name the values"
        return f"{key}: {value} picks among files, but this is a value, so that no job would run; {cure}"
    word.config_loader = loader
    try:
        is_empty = not list(islice(word.sweep_string_iterator(), 1))
    except HydraException as error:
        return f"{key}: {value}: {squeeze(error)}"
    return f"{key}: {value} gives no value, so that no job would run; name at least one" if is_empty else None
