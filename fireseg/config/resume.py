"""Final settings of a run: new ones as composed, or those of an earlier run with the few permitted changes."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from fireseg.config.overrides import parse
from fireseg.config.resolve import resolve_all
from fireseg.config.schema import check, format_value, read_signature
from fireseg.config.targets import CONF_DIR, RECIPES, update_targets
from fireseg.console import format_override
from fireseg.errors import FiresegError, SettingError, did_you_mean
from fireseg.files import check_regular_file, find_run_folder, load_tensors

CHANGEABLE = (
    "engine.epochs",
    "engine.device",
    "engine.threads",
    "data.root",
    "data.unlabelled",
    "data.teacher",
    "data.num_workers",
    "data.allow_leaks",
    "stopping",
    "checkpoint",
    "tracker",
    "output_dir",
)
"""Settings that may change when a run is resumed: where and how long it runs, and what records it."""

_SHAPE = (
    *("model.arch", "model.encoder", "model.bands", "model.indices", "model.in_channels", "model.stem"),
    *("data.bands", "data.pre", "data.indices"),
)
"""Settings that decide which weights fit; if they differ, starting from the weights of the run does not work either."""

_MISSING = object()


def finalize(cfg: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """Resolves and checks composed settings; with `resume`, applies the overrides to the settings of that run.

    Args:
        cfg: Settings composed by Hydra.
        overrides: Overrides of the command line, as in `hydra.overrides.task`.

    Returns:
        The content of config.json.

    Raises:
        SettingError: If a setting is invalid; with all faults.
    """
    settings, faults = finalize_all(cfg, [parse(text) for text in overrides])
    if faults:
        raise SettingError(*faults)
    return settings


def finalize_all(cfg: DictConfig, words: Sequence[Override]) -> tuple[dict[str, Any], list[str]]:
    """Does the same as `finalize`, but returns the faults instead of raising them."""
    tree, faults = resolve_all(cfg)
    if isinstance(tree.get("resume"), str) and tree["resume"]:
        try:
            tree, more = _resume(tree, words)
        except FiresegError as error:
            return tree, [*faults, *error.faults]
        return tree, [*faults, *more]
    # A setting that cannot be resolved is left out of the tree; it is not missing as well.
    unresolved = tuple(f"{fault.partition(':')[0]}: missing" for fault in faults)
    return tree, faults + [fault for fault in check(tree) if not (unresolved and fault.startswith(unresolved))]


def _resume(requested: dict[str, Any], words: Sequence[Override]) -> tuple[dict[str, Any], list[str]]:
    run = requested["resume"]
    saved, source = _read_run_settings(Path(run))
    saved["resume"] = run
    if faults := check(saved):
        return saved, [f"{source}: {fault}" for fault in faults]
    final, rejected = copy.deepcopy(saved), {}
    # A recipe given again must not contradict the run, but changes nothing: not its tracker, not its epochs.
    given = _list_keys(words)
    has_recipe = any(word.key_or_group in RECIPES for word in words)
    of_recipe = [key for key in requested if key not in ("resume", *given)] if has_recipe else []
    for place in [*given, *of_recipe]:
        before, now = _get(saved, place), _get(requested, place)
        differences = {} if now is _MISSING else dict(_compare(before, now, place))
        forbidden = {key: values for key, values in differences.items() if not _is_within(key, CHANGEABLE)}
        rejected |= forbidden
        if differences and not forbidden and place not in of_recipe:
            _set(final, place, copy.deepcopy(now))
    if not rejected:
        return final, check(final)
    lines = [f"{key}: {before} in {run}, {now} requested" for key, (before, now) in rejected.items()]
    is_same_shape = not any(_is_within(key, _SHAPE) for key in rejected)
    weights = (
        f" and write {format_override('model.weights', Path(run))} to start from its weights" if is_same_shape else ""
    )
    return final, [*lines, f"resume: a resumed run keeps its settings; for a new run leave out resume{weights}"]


def _list_keys(words: Sequence[Override]) -> list[str]:
    """Returns the dotted keys that overrides set."""
    keys = [word.key_or_group for word in words if not word.is_hydra_override()]
    keys = [key for key in keys if key not in ("resume", *RECIPES)]
    return list(dict.fromkeys(key.replace("/", ".") if (CONF_DIR / key).is_dir() else key for key in keys))


def compare_settings(before: Any, now: Any, place: str = "") -> Iterator[tuple[str, str, str]]:
    """Yields key, value before and value now of each setting that differs between two runs.

    A setting that an earlier version did not have counts as its default.

    Args:
        before: Settings of the earlier run, as in its config.json.
        now: Settings of the other one.
        place: Key of both in larger settings.
    """
    for key, (earlier, later) in _compare(before, now, place):
        yield key.removeprefix("."), earlier, later


def _compare(before: Any, now: Any, place: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yields each dotted key whose values differ, with both values formatted."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            earlier = before.get(key, _get_default(before.get("_target_"), key))
            yield from _compare(earlier, now.get(key, _MISSING), f"{place}.{key}")
    elif before != now or isinstance(before, bool) != isinstance(now, bool):
        yield place, (_format(before), _format(now))


def _get_default(target: Any, key: str) -> Any:
    """Returns the value of a setting that a run of an earlier version does not have yet."""
    setting = read_signature(target).get(key) if isinstance(target, str) else None
    if setting is None or setting.is_required:
        return _MISSING
    return list(setting.default) if isinstance(setting.default, tuple) else setting.default


def _format(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("_target_", "settings")).rpartition(".")[2]
    return "nothing" if value is _MISSING else value if isinstance(value, str) else format_value(value)


def _is_within(key: str, places: Sequence[str]) -> bool:
    return any(key == place or key.startswith(f"{place}.") for place in places)


def _get(tree: Any, place: str) -> Any:
    for step in place.split("."):
        if not isinstance(tree, dict) or step not in tree:
            return _MISSING
        tree = tree[step]
    return tree


def _set(tree: dict[str, Any], place: str, value: Any) -> None:
    *parents, last = place.split(".")
    for step in parents:
        if not isinstance(tree.get(step), dict):
            tree[step] = {}
        tree = tree[step]
    tree[last] = value


def _read_run_settings(path: Path) -> tuple[dict[str, Any], str]:
    """Reads the settings of a run folder or checkpoint file, and returns them with the file they came from."""
    if not path.exists():
        siblings = [sibling.name for sibling in path.parent.iterdir()] if path.parent.is_dir() else []
        raise SettingError(f"resume: {path}: no such run folder or checkpoint file{did_you_mean(path.name, siblings)}")
    if path.is_dir():
        if not (path / "config.json").exists():
            raise SettingError(f"resume: {path} has no config.json; give the folder of a run, or a checkpoint file")
        return _read_json(path / "config.json"), str(path / "config.json")
    if run := find_run_folder(path):
        return _read_json(run / "config.json"), str(run / "config.json")
    return _read_checkpoint(path), str(path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        check_regular_file(path)
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FiresegError, OSError, ValueError) as error:
        raise SettingError(f"resume: {path} cannot be read ({error}); give another run or checkpoint") from error
    return _check_content(content, path)


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        content = load_tensors(path).get("config")
    except FiresegError as error:
        raise SettingError(*(f"resume: {fault}" for fault in error.faults)) from error
    return _check_content(content, path)


def _check_content(content: Any, path: Path) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise SettingError(f"resume: {path} has no settings; give another run or checkpoint")
    return update_targets(content)
