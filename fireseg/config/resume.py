"""Settings made final: those of a new run, or of an old one with the little that may change laid on top."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from fireseg.config.overrides import parse
from fireseg.config.schema import CONF_DIR, RECIPES, check, resolve_all, show, update_targets
from fireseg.errors import FiresegError, SettingError, did_you_mean

CHANGEABLE = (
    "engine.epochs",
    "engine.device",
    "engine.threads",
    "data.root",
    "data.num_workers",
    "stopping",
    "checkpoint",
    "tracker",
    "output_dir",
)
"""What a resumed run may do otherwise: where and how long it runs and who is told, but not what it is."""

# Where these differ, the weights of the run fit no new model either.
_SHAPE = ("model.arch", "model.encoder", "model.bands", "model.in_channels", "model.stem", "data.bands")

_NO_PLACE = ("resume", *RECIPES)

_ABSENT = object()


def settle(cfg: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """The settings that a run goes by.

    With `resume` they are those of the run that goes on, and only what was typed is laid on top.

    Args:
        cfg: What Hydra composed.
        overrides: What was typed, as Hydra keeps it in `hydra.overrides.task`.

    Returns:
        A plain dict, checked: what config.json holds.

    Raises:
        SettingError: If a setting cannot be; with all faults.
    """
    settings, faults = settle_all(cfg, [parse(text) for text in overrides])
    if faults:
        raise SettingError(*faults)
    return settings


def settle_all(cfg: DictConfig, words: Sequence[Override]) -> tuple[dict[str, Any], list[str]]:
    """The same, with the faults beside it."""
    tree, faults = resolve_all(cfg)
    if isinstance(tree.get("resume"), str) and tree["resume"]:
        try:
            tree, more = _take_up(tree, words)
        except FiresegError as error:
            return tree, [*faults, *error.faults]
        return tree, [*faults, *more]
    unresolved = tuple(f"{fault.partition(':')[0]}: missing" for fault in faults)
    return tree, faults + [fault for fault in check(tree) if not (unresolved and fault.startswith(unresolved))]


def read_run_config(path: Path) -> tuple[dict[str, Any], str]:
    """The settings of a run.

    Args:
        path: The run's folder, or a checkpoint file of it.

    Returns:
        The settings, and the file that they were read from.

    Raises:
        SettingError: If there is no such run, or its settings cannot be read.
    """
    if not path.exists():
        siblings = [beside.name for beside in path.parent.iterdir()] if path.parent.is_dir() else []
        raise SettingError(f"resume: {path}: no such run folder or checkpoint file{did_you_mean(path.name, siblings)}")
    if path.is_file():
        beside = path.resolve().parent.parent / "config.json"
        in_run = path.resolve().parent.name == "checkpoints" and beside.exists()
        return (_read_json(beside), str(beside)) if in_run else (_read_checkpoint(path), str(path))
    if not (path / "config.json").exists():
        raise SettingError(f"resume: {path} has no config.json; name the folder of a run, or a checkpoint file")
    return _read_json(path / "config.json"), str(path / "config.json")


def _take_up(asked: dict[str, Any], words: Sequence[Override]) -> tuple[dict[str, Any], list[str]]:
    run = asked["resume"]
    saved, source = read_run_config(Path(run))
    saved["resume"] = run
    if faults := check(saved):
        return saved, [f"{source}: {fault}" for fault in faults]
    settled, refused = copy.deepcopy(saved), {}
    # A recipe typed again may contradict nothing, but it is the run that says where it goes on and who is told.
    typed = _find_places(words)
    recipe = [key for key in asked if key not in ("resume", *typed)] if _names_recipe(words) else []
    for place in [*typed, *recipe]:
        before, now = _get(saved, place), _get(asked, place)
        differences = {} if now is _ABSENT else dict(_compare(before, now, place))
        wrong = {key: line for key, line in differences.items() if not _is_within(key, CHANGEABLE)}
        refused |= wrong
        if differences and not wrong and place not in recipe:
            _put(settled, place, copy.deepcopy(now))
    if refused:
        lines = [f"{key}: {was} in {run}, {now} asked for" for key, (was, now) in refused.items()]
        return settled, [*lines, _describe_way_out(run, refused)]
    return settled, check(settled)


def _describe_way_out(run: str, refused: dict[str, Any]) -> str:
    is_other_shape = any(_is_within(key, _SHAPE) for key in refused)
    weights = "" if is_other_shape else f" and write model.weights={run} to start from its weights"
    return f"resume: a run that goes on stays the experiment that it is; for a new one leave resume out{weights}"


def _find_places(words: Sequence[Override]) -> list[str]:
    """The dotted keys that typed words are about."""
    keys = [word.key_or_group for word in words if not word.is_hydra_override()]
    about = [key.replace("/", ".") if (CONF_DIR / key).is_dir() else key for key in keys if key not in _NO_PLACE]
    return list(dict.fromkeys(about))


def _names_recipe(words: Sequence[Override]) -> bool:
    return any(word.key_or_group in RECIPES for word in words)


def _compare(before: Any, now: Any, place: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Each value that differs, by key, as it was and as it is asked for."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            yield from _compare(before.get(key, _ABSENT), now.get(key, _ABSENT), f"{place}.{key}")
    elif before != now or isinstance(before, bool) != isinstance(now, bool):
        yield place, (_show(before), _show(now))


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("_target_", "settings")).rpartition(".")[2]
    return "nothing" if value is _ABSENT else value if isinstance(value, str) else show(value)


def _is_within(key: str, places: Sequence[str]) -> bool:
    return any(key == place or key.startswith(f"{place}.") for place in places)


def _get(tree: Any, place: str) -> Any:
    for step in place.split("."):
        if not isinstance(tree, dict) or step not in tree:
            return _ABSENT
        tree = tree[step]
    return tree


def _put(tree: dict[str, Any], place: str, value: Any) -> None:
    *path, last = place.split(".")
    for step in path:
        if not isinstance(tree.get(step), dict):
            tree[step] = {}
        tree = tree[step]
    tree[last] = value


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingError(f"resume: {path} cannot be read ({error}); take another run or checkpoint") from error
    if not isinstance(content, dict):
        raise SettingError(f"resume: {path} holds no settings; take another run or checkpoint")
    return update_targets(content)


def _read_checkpoint(path: Path) -> dict[str, Any]:
    from fireseg.files import load_tensors

    try:
        content = load_tensors(path).get("config")
    except FiresegError as error:
        raise SettingError(*(f"resume: {fault}" for fault in error.faults)) from error
    if not isinstance(content, dict):
        raise SettingError(f"resume: {path} holds no settings; take a checkpoint of a run of this suite")
    return update_targets(content)
