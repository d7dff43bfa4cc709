"""What was typed: each word of a command line read, placed and laid onto the settings, with all faults kept."""

from __future__ import annotations

import difflib
import re
from argparse import Namespace
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from typing import Any, NoReturn

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fireseg.config.schema import RECIPES, describe_group, show
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


EARLIER_FLAGS = {
    "--patches-dir": "data.root=DIR",
    "--output-dir": "output_dir=DIR",
    "--num-classes": "task=del for 2, task=gra for 5",
    "--encoder": "model.encoder=NAME",
    "--architecture": "model.arch=NAME",
    "--batch-size": "data.batch_size=N",
    "--epochs": "engine.epochs=N",
    "--lr": "optimizer.lr=X",
    "--weight-decay": "optimizer.weight_decay=X",
    "--num-workers": "data.num_workers=N",
    "--no-class-weights": "loss.class_weights=false",
    "--focal-loss": "loss=focal_dice",
    "--focal-gamma": "loss=focal_dice loss.gamma=X",
    "--weighted-sampling": "data.weighted_sampling=true",
    "--fire-weight": "data.fire_weight=X",
    "--no-fire-augment": "data/augment=standard",
    "--resume": "resume=RUN",
    "--save-every": "checkpoint.every=N",
    "--patience": "stopping.patience=N",
    "--wandb": "tracker=wandb",
    "--project": "tracker=wandb tracker.project=NAME",
    "--run-name": "tracker.run_name=NAME",
    "--device": "engine.device=NAME",
}
"""The flags of the command line before this one, each with what says the same today."""


def read_flags(argv: Sequence[str]) -> Namespace:
    """Reads a command line as Hydra does.

    Args:
        argv: The words after the program's name.

    Returns:
        Hydra's flags, with the settings as `overrides`.

    Raises:
        SettingError: If there is a flag that Hydra does not know, or two that exclude one another.
    """
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise SettingError(f"{message}; --hydra-help lists the flags")

    parser.error = refuse
    flags, rest = parser.parse_known_args(list(argv))
    if unknown := [word for word in rest if word.startswith("-")]:
        raise SettingError(*(_describe_unknown_flag(word, argv) for word in unknown))
    if rest:
        raise SettingError(*(f"{word}: settings go after the flags; write -m first" for word in rest))
    modes = [("--cfg", flags.cfg), ("--info", flags.info), ("-m", flags.multirun), ("--run", flags.run)]
    if len(asked := [name for name, value in modes if value]) > 1:
        raise SettingError(f"{asked[0]}: not together with {' and '.join(asked[1:])}; take one of them")
    if flags.resolve and not (flags.cfg or flags.help):
        raise SettingError("--resolve: says how --cfg shows the settings; write --cfg job --resolve")
    return flags


def is_run(flags: Namespace) -> bool:
    """Whether anything is to be trained, rather than shown."""
    shown = (flags.help, flags.hydra_help, flags.cfg, flags.info, flags.shell_completion, flags.experimental_rerun)
    return not any(shown)


def _describe_unknown_flag(word: str, argv: Sequence[str]) -> str:
    flag, equals, value = word.partition("=")
    near = difflib.get_close_matches(flag, EARLIER_FLAGS, n=1, cutoff=0.8)
    if not near:
        return f"{word}: no such flag; settings are written name=value, and --help lists them"
    after = [*argv[argv.index(word) + 1 :], ""][0]
    if not equals and not after.startswith("-") and "=" not in after:
        value = after
    today = EARLIER_FLAGS[near[0]]
    return f"{flag}: no such flag; write {re.sub('(DIR|NAME|RUN|N|X)$', lambda found: value or found[0], today)}"


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
