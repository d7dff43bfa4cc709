"""Checks settings against the signatures of the callables that they build, and builds them."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any, TypeGuard, TypeVar, get_args, get_origin

from fireseg.config.targets import RECIPES, find_target_fault, get_targets, is_allowed, locate, update_targets
from fireseg.errors import FiresegError, SettingError, did_you_mean
from fireseg.indices import find_missing_bands
from fireseg.pairs import PRE_SUFFIX, add_pre_bands

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError
    from pydantic_core import ErrorDetails

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """A part of a run that is built from settings.

    Attributes:
        given: Parameters that the run passes itself, which settings must not name.
        can_be_null: True if a run can do without the part.
    """

    given: tuple[str, ...] = ()
    can_be_null: bool = False


PARTS = {
    "task": Part(),
    "data": Part(given=("task", "seed", "pin_memory", "sharding")),
    "model": Part(),
    "loss": Part(given=("class_counts", "ignore_index")),
    "optimizer": Part(given=("parameters",)),
    "scheduler": Part(given=("optimizer", "epochs"), can_be_null=True),
    "engine": Part(),
    "stopping": Part(),
    "checkpoint": Part(given=("folder",)),
    "tracker": Part(),
}

VALUES = ("seed", "resume", "output_dir")
"""Keys of the root that are plain values."""

_FOLLOWERS = {
    "data.bands": ("model.bands", "model.in_channels", "data.augment.bands"),
    "data.pre": (
        *("model.bands", "model.in_channels", "data.augment.bands"),
        *(f"data.augment.{part}pre" for part in ("", "standard.", "strong.", "base.standard.", "base.strong.")),
    ),
    "data.indices": ("model.indices",),
    "task.num_classes": ("model.num_classes",),
    "task.auxiliary": ("model.auxiliary",),
    "task.name": ("data.maker.task_name",),
}
"""Settings that conf/ copies from another one by interpolation."""


def check(tree: Mapping[str, Any]) -> list[str]:
    """Checks the settings of a whole run.

    Args:
        tree: Resolved settings, as returned by `resolve` or read from a config.json.

    Returns:
        One sentence for each fault, worded *place: what came, what is wanted, what to do*.
    """
    faults = [_describe_unknown(str(key)) for key in tree if key not in VALUES and key not in PARTS]
    missing = [key for key in (*VALUES, *PARTS) if key not in tree]
    faults += [f"{key}: missing; every run has it, so leave it in" for key in missing]
    for key in VALUES:
        if key in tree:
            faults += _check_plain(_get_annotation(key), tree[key], key)
    for key, part in PARTS.items():
        if key in tree:
            faults += _check_part(tree[key], key, part)
    if not any(fault.startswith("data.bands") for fault in faults):
        faults += _check_bands_of_indices(tree.get("data"))
    return _drop_followers(faults) or _check_together(tree)


def make(node: Mapping[str, Any], kind: type[T], **given: Any) -> T:
    """Builds one part of a run from its settings.

    Args:
        node: Settings of the part, from checked settings or the config.json of this or an earlier version.
        kind: Expected type of the result.
        **given: Arguments that only the run knows. Those that the part does not take are left out.

    Raises:
        SettingError: If a setting is invalid.
        FiresegError: If the callable itself rejects its settings.

    Example:
        >>> from fireseg.task import Task
        >>> names = ["background", "fire"]
        >>> make({"_target_": "fireseg.task.Task", "name": "del", "num_classes": 2, "class_names": names}, Task).name
        'del'
    """
    settings: dict[str, Any] = update_targets(dict(node))
    places = (key for key, targets in get_targets().items() if settings.get("_target_") in targets)
    place = next(places, "settings")
    if faults := _check_node(settings, place, given):
        raise SettingError(*faults)
    built = _build_node(settings, **given)
    # isinstance does not work for a protocol that is only for type checkers.
    is_checkable = not getattr(kind, "_is_protocol", False) or getattr(kind, "_is_runtime_protocol", False)
    if is_checkable and not isinstance(built, kind):
        raise SettingError(f"{place}._target_: builds a {type(built).__name__}, but a {kind.__name__} is expected")
    return built


def _describe_unknown(key: str) -> str:
    if key in RECIPES:
        return f"{key}: its file sets nothing at the root; begin it with the line '# @package _global_'"
    return f"{key}: no such setting{did_you_mean(key, [*VALUES, *PARTS])}"


def _check_part(node: Any, place: str, part: Part) -> list[str]:
    if node is None and part.can_be_null:
        return []
    if not isinstance(node, dict):
        return [f"{place}: {format_value(node)}, but it must be {_AN_OBJECT}"]
    return _check_node(node, place, part.given)


def _drop_followers(faults: list[str]) -> list[str]:
    """Drops the faults of settings that are wrong only because the setting they are copied from is."""
    for source, followers in _FOLLOWERS.items():
        if any(fault.startswith((f"{source}:", f"{source}[")) for fault in faults):
            faults = [fault for fault in faults if not fault.startswith(tuple(f"{key}:" for key in followers))]
    return faults


def _check_bands_of_indices(data: Any) -> list[str]:
    bands, indices = (data.get(key) for key in ("bands", "indices")) if isinstance(data, dict) else (None, None)
    if not (_is_list_of_texts(bands) and _is_list_of_texts(indices)):
        return []
    pre = data.get("pre") is True
    shown = f"data.bands is {format_value(bands)}" + (" and data.pre is true" if pre else "")
    return [
        f"data.indices: {clause}, but {shown}; "
        + ("set data.pre=true" if PRE_SUFFIX in clause and not pre else "add the band")
        + ", or leave out the index"
        for clause in find_missing_bands(dict.fromkeys(indices), add_pre_bands(bands, pre))
    ]


def _is_list_of_texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _check_together(tree: Mapping[str, Any]) -> list[str]:
    """Finds settings that contradict each other in a tree without other faults."""
    faults = []
    try:
        _build_node(tree["task"])
    except FiresegError as error:
        faults += error.faults
    model, bands, loss = tree["model"], tree["data"].get("bands"), tree["loss"]
    if bands is not None:
        bands = list(add_pre_bands(bands, tree["data"].get("pre", False)))
    expected = [("num_classes", tree["task"]["num_classes"], "task.num_classes")]
    if bands is not None:
        expected += [("in_channels", len(bands), "the number of data.bands"), ("bands", bands, "data.bands")]
    expected.append(("auxiliary", tree["task"].get("auxiliary"), "task.auxiliary"))
    expected.append(("indices", tree["data"].get("indices", []), "data.indices"))
    augment = tree["data"].get("augment") or {}
    copies = [(f"model.{key}", model.get(key, value), value, source) for key, value, source in expected]
    if bands is not None:
        copies.append(("data.augment.bands", augment.get("bands", bands), bands, "data.bands"))
    for key, value, original, source in copies:
        if value != original:
            shown, right = (f"[{','.join(v)}]" if isinstance(v, list) else format_value(v) for v in (value, original))
            setting = source.removeprefix("the number of ")
            faults.append(f"{key}: {shown}, but {source} is {right}; set {setting} and leave out {key}")
    weights = {f"loss.{key}": value for key, value in loss.items() if key.endswith("_weight")}
    if weights and not any(weights.values()):
        faults.append(f"{', '.join(weights)}: all 0; one of them must be greater than 0")
    if tree["task"]["num_classes"] == 2:
        faults += [
            f"loss.{key}: {loss[key]}, but a task of two classes has no order of grades; set task=gra, or loss.{key}=0"
            for key in ("ordinal_weight", "soft_labels")
            if loss.get(key)
        ]
    unlabelled, teacher = (tree["data"].get(key) for key in ("unlabelled", "teacher"))
    if unlabelled and not teacher:
        faults.append("data.teacher: null, but data.unlabelled needs a run that labels it; set data.teacher=RUN")
    if teacher and not unlabelled:
        faults.append("data.unlabelled: null, but data.teacher labels such patches; set data.unlabelled=FOLDER")
    shards, batch_size = tree["engine"].get("shards", 1), tree["data"].get("batch_size", 2)
    if shards > 1 and (batch_size % shards or batch_size < 2 * shards):
        sizes = " or ".join(str(shards * (max(2, batch_size // shards) + more)) for more in (0, 1))
        faults.append(
            f"data.batch_size: {batch_size}, but engine.shards={shards} needs a multiple of {shards}, with two patches "
            f"or more in each shard; use {sizes}"
        )
    return faults


def _get_annotation(key: str) -> Any:
    from pydantic import Field

    return {"seed": Annotated[int, Field(ge=0, le=2**32 - 1)], "resume": str | None, "output_dir": str}[key]


@dataclass(frozen=True)
class Setting:
    """A parameter of a callable as a setting.

    Attributes:
        parameter: Name of the parameter. Its key in the settings differs if the annotation has an alias.
        is_required: True if there is no default.
        annotation: Evaluated type and bounds, without the alias.
        default: Default of the parameter, if it is not required.
    """

    parameter: str
    is_required: bool
    annotation: Any
    default: Any = None


@cache
def read_signature(target: str) -> dict[str, Setting]:
    """Returns the settings that the callable at an address takes, by key."""
    function = locate(target)
    scope = vars(sys.modules[function.__module__])
    settings = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        # Not get_type_hints: a parameter that the run passes may have an annotation imported for type checkers only.
        key, annotation = _split_alias(_evaluate(parameter.annotation, scope))
        is_required = parameter.default is parameter.empty
        settings[key or parameter.name] = Setting(parameter.name, is_required, annotation, parameter.default)
    return settings


def _evaluate(annotation: Any, scope: dict[str, Any]) -> Any:
    if annotation is inspect.Parameter.empty:
        return Any
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, scope)
    except NameError:
        return Any


def _split_alias(annotation: Any) -> tuple[str | None, Any]:
    """Splits `Annotated[Path, Field(alias="root")]` into `root` and `Path`; a TypeAdapter takes no alias."""
    from pydantic.fields import FieldInfo

    if get_origin(annotation) is not Annotated:
        return None, annotation
    kind, *notes = get_args(annotation)
    aliases = [note.alias for note in notes if isinstance(note, FieldInfo) and note.alias]
    if not aliases:
        return None, annotation
    rest = [part for note in notes for part in (note.metadata if isinstance(note, FieldInfo) else [note])]
    return aliases[0], Annotated[kind, *rest] if rest else kind


def _check_node(node: dict[str, Any], place: str, given: Collection[str] = ()) -> list[str]:
    """Checks the settings of one object, and of the objects inside.

    Args:
        node: Resolved settings with a `_target_`.
        place: Dotted key of the node.
        given: Parameters that the run passes itself.
    """
    if fault := find_target_fault(node, place):
        return [fault]
    known = read_signature(node["_target_"])
    free = {key: setting for key, setting in known.items() if setting.parameter not in given}
    faults = []
    for key, value in node.items():
        if key in free:
            faults += _check_value(free[key], value, f"{place}.{key}")
        elif key in known:
            faults.append(f"{place}.{key}: passed by the run itself; leave it out")
        elif key not in ("_target_", "_partial_"):
            faults.append(f"{place}.{key}: no such setting{did_you_mean(str(key), free)}")
    required = [key for key, setting in free.items() if setting.is_required and key not in node]
    if node.get("_partial_"):  # the first argument is passed when it is called
        required = [key for key in required if key != next(iter(known))]
    return faults + [f"{place}.{key}: missing and without a default; give {place}.{key}=..." for key in required]


def _check_value(setting: Setting, value: Any, place: str) -> list[str]:
    if isinstance(value, dict) and "_target_" in value:
        return _check_node(value, place)
    if _holds_nodes(value):
        return [
            fault
            for number, item in enumerate(value)
            for fault in (_check_node(item, f"{place}[{number}]") if isinstance(item, dict) else ())
        ]
    return _check_plain(setting.annotation, value, place)


def _check_plain(annotation: Any, value: Any, place: str) -> list[str]:
    from pydantic import ValidationError

    if isinstance(value, str) and value == "???":
        return [f"{place}: has no value yet; give {place}=..."]
    if isinstance(value, str) and not value.strip():
        return [f"{place}: is empty; give it a value, or leave it out"]
    if unresolved := next((text for text in _iterate_texts(value) if "${" in text), None):
        return [f"{place}: '{unresolved}' is not resolved; write the value itself"]
    try:
        _get_adapter(annotation).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        return _describe_faults(error, value, place)
    return []


def _build_node(node: dict[str, Any], **given: Any) -> Any:
    """Builds the object of checked settings, and the objects inside.

    Values are converted to their annotations: a list to a tuple, a text to a `Path`.

    Args:
        node: Settings with a `_target_`.
        **given: Arguments that the run passes itself; those that the callable does not take are left out.
    """
    target = node["_target_"]
    if not is_allowed(target):
        raise SettingError(f"_target_: {target}, but conf/ uses no such address")
    known = read_signature(target)
    arguments = {known[key].parameter: _build_value(known[key], value) for key, value in node.items() if key in known}
    parameters = {setting.parameter for setting in known.values()}
    arguments |= {name: value for name, value in given.items() if name in parameters}
    function = locate(target)
    return partial(function, **arguments) if node.get("_partial_") else function(**arguments)


def _build_value(setting: Setting, value: Any) -> Any:
    if isinstance(value, dict) and "_target_" in value:
        return _build_node(value)
    if _holds_nodes(value):
        return [_build_node(item) for item in value]
    return _get_adapter(setting.annotation).validate_json(json.dumps(value), strict=True)


def _holds_nodes(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) and "_target_" in item for item in value)


def _iterate_texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            yield from _iterate_texts(child)


@cache
def _get_adapter(annotation: Any) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter

    # pydantic accepts infinity as a number, but no setting means it.
    return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False))


_AN_OBJECT = "settings with a _target_, as in conf/"

_REQUIREMENTS = {
    "none_required": "null",
    "path_type": "a path",
    "missing": "longer",
    "dict_type": "a mapping, as {a: 1}",
    **dict.fromkeys(("list_type", "tuple_type"), "a list, as [a,b]"),
    **dict.fromkeys(("callable_type", "is_instance_of", "needs_python_object", "is_subclass_of"), _AN_OBJECT),
}
"""Wording of pydantic's error types where its own message would not help in a YAML file."""


def format_value(value: Any) -> str:
    """Formats a value as it is typed on the command line, shortened to 60 characters."""
    if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        text = f"[{','.join(item if isinstance(item, str) else json.dumps(item) for item in value)}]"
    else:
        text = f"'{value}'" if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:56]} ..."


def _describe_faults(error: ValidationError, value: Any, place: str) -> list[str]:
    """Words each fault as *place: what came, what is wanted*; alternatives of a union are joined by "or"."""
    by_place: dict[str, tuple[Any, list[ErrorDetails]]] = {}
    for detail in error.errors():
        inner, part = _follow(detail, value, place)
        by_place.setdefault(inner, (part, []))[1].append(detail)
    return [_describe(inner, part, details) for inner, (part, details) in by_place.items()]


def _follow(detail: ErrorDetails, value: Any, place: str) -> tuple[str, Any]:
    """Follows the location of an error into a value, skipping the type names that pydantic puts into it."""
    for step in detail["loc"]:
        if isinstance(value, list) and isinstance(step, int) and step < len(value):
            value, place = value[step], f"{place}[{step}]"
        elif isinstance(value, dict) and step in value:
            value, place = value[step], f"{place}.{step}"
    return place, value


def _describe(place: str, value: Any, details: list[ErrorDetails]) -> str:
    for detail in details:
        if detail["type"] in ("value_error", "assertion_error"):
            return f"{place}: {detail.get('ctx', {}).get('error', detail['msg'])}"
    required = list(dict.fromkeys(_describe_requirement(detail, value) for detail in details))
    return (
        f"{place}: {format_value(value)}, but it must be {' or '.join(required)}{_describe_cure(place, value, details)}"
    )


def _describe_requirement(detail: ErrorDetails, value: Any) -> str:
    if detail["type"] == "literal_error":
        expected = detail.get("ctx", {})["expected"]
        names = re.findall(r"'([^']*)'", expected) or [expected]
        some = f"one of {', '.join(names)}" if len(names) > 1 else names[0]
        return some + (did_you_mean(value, names) if isinstance(value, str) else "")
    message = re.sub(r"^Input should be |^\w+ should (have|be) (?=at )", "", detail["msg"])
    return _REQUIREMENTS.get(detail["type"], message)


def _describe_cure(place: str, value: Any, details: list[ErrorDetails]) -> str:
    kinds = {detail["type"] for detail in details}
    if isinstance(value, str) and kinds & {"int_type", "float_type", "bool_type"}:
        try:
            json.loads(value)
        except ValueError:
            return ""
        return "; write it without quotes"
    if kinds & {"string_type", "path_type"} and isinstance(value, int | float):
        return f"; quote it twice for the shell: {place}='\"{json.dumps(value)}\"'"
    if kinds & {"list_type", "tuple_type"} and isinstance(value, str):
        return f"; for a list of one write [{value}]"
    return ""
