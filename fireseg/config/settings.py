"""The whole tree of settings: which parts there are, what each must be, and how they hang together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from fireseg.config.offer import RECIPES, get_offered
from fireseg.config.schema import build_node, check_node, check_plain
from fireseg.config.wording import show
from fireseg.errors import FiresegError, SettingError, did_you_mean

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """A part of a run that settings build.

    Attributes:
        given: Parameters that the door gives when it builds the part.
        can_be_null: Whether a run can do without.
    """

    given: tuple[str, ...] = ()
    can_be_null: bool = False


PARTS = {
    "task": Part(),
    "data": Part(given=("task", "seed", "pin_memory")),
    "model": Part(),
    "loss": Part(given=("class_counts", "ignore_index")),
    "optimizer": Part(given=("parameters",)),
    "scheduler": Part(given=("optimizer", "epochs"), can_be_null=True),
    "engine": Part(),
    "stopping": Part(),
    "checkpoint": Part(given=("folder",)),
    "tracker": Part(),
}

FOLLOWERS = {
    "data.bands": ("model.bands", "model.in_channels"),
    "task.num_classes": ("model.num_classes",),
    "task.name": ("data.maker.task_name",),
}
"""Settings that conf/ takes from another one."""

VALUES = ("seed", "resume", "output_dir")
"""Keys of the root that are plain values."""


def check(tree: Mapping[str, Any]) -> list[str]:
    """All faults of a tree of settings.

    Args:
        tree: What `resolve` gives, or the content of a config.json.

    Returns:
        One sentence a fault, worded *place: what came, what is wanted, what to do*; none if all is well.
    """
    faults = [_describe_stray(str(key)) for key in tree if key not in VALUES and key not in PARTS]
    missing = [key for key in (*VALUES, *PARTS) if key not in tree]
    faults += [f"{key}: missing; every run has it, so leave it in" for key in missing]
    for key in VALUES:
        if key in tree:
            faults += check_plain(_get_annotation(key), tree[key], key)
    for key, part in PARTS.items():
        if key in tree:
            faults += _check_part(tree[key], key, part)
    return _leave_out_followers(faults) or _check_together(tree)


def make(node: Mapping[str, Any], kind: type[T], **given: Any) -> T:
    """Builds one part of a run.

    Args:
        node: The part's settings, from a checked tree or a config.json.
        kind: What has to come of it.
        **given: What only the run knows. Parameters that the part does not take are left out.

    Raises:
        SettingError: If a setting cannot be.
        FiresegError: If what is built refuses its settings.

    Example:
        >>> from fireseg.task import Task
        >>> names = ["background", "fire"]
        >>> make({"_target_": "fireseg.task.Task", "name": "del", "num_classes": 2, "class_names": names}, Task).name
        'del'
    """
    place = _find_place(node)
    if faults := check_node(dict(node), place, given):
        raise SettingError(*faults)
    built = build_node(dict(node), **given)
    # A protocol that is for type checkers only cannot be asked.
    can_ask = not getattr(kind, "_is_protocol", False) or getattr(kind, "_is_runtime_protocol", False)
    if can_ask and not isinstance(built, kind):
        raise SettingError(f"{place}._target_: makes a {type(built).__name__}, but a {kind.__name__} is wanted")
    return built


def _describe_stray(key: str) -> str:
    if key in RECIPES:
        return f"{key}: its file says nothing to the whole; begin it with the line '# @package _global_'"
    return f"{key}: no such setting{did_you_mean(key, [*VALUES, *PARTS])}"


def _check_part(node: Any, place: str, part: Part) -> list[str]:
    if node is None and part.can_be_null:
        return []
    if not isinstance(node, dict):
        return [f"{place}: {show(node)}, but it must be settings of its own, as in conf/"]
    return check_node(node, place, part.given)


def _leave_out_followers(faults: list[str]) -> list[str]:
    """Leaves out what is only wrong because the setting that it follows is."""
    shown = faults
    for followed, followers in FOLLOWERS.items():
        if any(fault.startswith((f"{followed}:", f"{followed}[")) for fault in faults):
            shown = [fault for fault in shown if not fault.startswith(tuple(f"{key}:" for key in followers))]
    return shown


def _check_together(tree: Mapping[str, Any]) -> list[str]:
    """Faults that only show when two settings are held side by side; for a tree that has no others."""
    faults = []
    try:
        build_node(tree["task"])
    except FiresegError as error:
        faults += error.faults
    model, bands, loss = tree["model"], tree["data"].get("bands"), tree["loss"]
    followed = [("num_classes", tree["task"]["num_classes"], "task.num_classes")]
    if bands is not None:
        followed += [("in_channels", len(bands), "the number of data.bands"), ("bands", bands, "data.bands")]
    for key, wanted, source in followed:
        if model.get(key, wanted) != wanted:
            faults.append(
                f"model.{key}: {_show_whole(model[key])}, but {source} is {_show_whole(wanted)}; "
                f"set {source.removeprefix('the number of ')} and leave model.{key} to follow"
            )
    if loss.get("ce_weight") == 0 and loss.get("dice_weight") == 0:
        faults.append("loss.ce_weight: 0, and loss.dice_weight is 0 too; one of them must be greater than 0")
    return faults


def _show_whole(value: Any) -> str:
    return show(value) if not isinstance(value, list) else f"[{','.join(value)}]"


def _find_place(node: Mapping[str, Any]) -> str:
    """Which part of a run a node builds: the one under which conf/ names its `_target_`."""
    places = (key for key, targets in get_offered().items() if node.get("_target_") in targets)
    return next(places, "settings")


def _get_annotation(key: str) -> Any:
    from typing import Annotated

    from pydantic import Field

    return {
        "seed": Annotated[int, Field(ge=0, le=2**32 - 1)],
        "resume": str | None,
        "output_dir": str,
    }[key]
