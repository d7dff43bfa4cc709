"""The signature as the schema: what a callable takes says what its settings may be."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from fireseg.config.offer import find_target_fault, is_offered, locate
from fireseg.config.wording import describe_faults
from fireseg.errors import SettingError, did_you_mean

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_OWN_KEYS = ("_target_", "_partial_")


@dataclass(frozen=True)
class Setting:
    """One parameter of a callable as a setting.

    Attributes:
        parameter: The parameter's name; its key in the settings may be another, given as an alias.
        is_required: Whether there is no default.
        annotation: Its type and bounds, evaluated, without the alias.
    """

    parameter: str
    is_required: bool
    annotation: Any

    @property
    def adapter(self) -> TypeAdapter[Any]:
        """What reads a value of the annotation."""
        return _get_adapter(self.annotation)


@cache
def read_signature(target: str) -> dict[str, Setting]:
    """The settings that a callable takes, by key."""
    called = locate(target)
    scope = vars(sys.modules[called.__module__])
    settings = {}
    for parameter in inspect.signature(called).parameters.values():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        # One by one: a parameter that the run gives may be annotated with what only a type checker imports.
        key, annotation = _take_alias(_evaluate(parameter.annotation, scope))
        settings[key or parameter.name] = Setting(parameter.name, parameter.default is parameter.empty, annotation)
    return settings


def check_node(node: dict[str, Any], place: str, given: Collection[str] = ()) -> list[str]:
    """All faults of the settings that build one thing, and of those inside.

    Args:
        node: Settings with a `_target_`, resolved and plain.
        place: Dotted key of the node.
        given: Parameters that the run itself gives.

    Returns:
        One sentence a fault, none if all is well.
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
            faults.append(f"{place}.{key}: comes from the run itself; leave it out")
        elif key not in _OWN_KEYS:
            faults.append(f"{place}.{key}: no such setting{did_you_mean(str(key), free)}")
    required = [key for key, setting in free.items() if setting.is_required and key not in node]
    # What is called later gets its first argument then.
    if node.get("_partial_"):
        required = [key for key in required if key != next(iter(known))]
    lost = "missing, and nothing stands in for it"
    return faults + [f"{place}.{key}: {lost}; give {place}.{key}=..." for key in required]


def build_node(node: dict[str, Any], **given: Any) -> Any:
    """Builds what checked settings say, and whatever is inside.

    Values arrive as their annotations have them: a list as a tuple, a text as a `Path`.

    Args:
        node: Settings with a `_target_`.
        **given: Parameters that the run itself gives; those that the callable does not take are left out.
    """
    target = node["_target_"]
    if not isinstance(target, str) or not is_offered(target):
        raise SettingError(f"_target_: {target}, but conf/ offers no such thing")
    known = read_signature(target)
    arguments = {known[key].parameter: _build_value(known[key], value) for key, value in node.items() if key in known}
    taken = {setting.parameter for setting in known.values()}
    arguments |= {name: value for name, value in given.items() if name in taken}
    called = locate(target)
    return partial(called, **arguments) if node.get("_partial_") else called(**arguments)


def check_plain(annotation: Any, value: Any, place: str) -> list[str]:
    """All faults of a value that builds nothing."""
    from pydantic import ValidationError

    if isinstance(value, str) and value == "???":
        return [f"{place}: has no value yet; give {place}=..."]
    if isinstance(value, str) and not value.strip():
        return [f"{place}: is empty; give it a value, or leave it out"]
    if unresolved := next((text for text in _texts(value) if "${" in text), None):
        return [f"{place}: '{unresolved}' is not resolved; write the value itself"]
    try:
        _get_adapter(annotation).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        return describe_faults(error, value, place)
    return []


def _check_value(setting: Setting, value: Any, place: str) -> list[str]:
    if isinstance(value, dict) and "_target_" in value:
        return check_node(value, place)
    if _holds_nodes(value):
        return [
            fault
            for number, item in enumerate(value)
            for fault in (check_node(item, f"{place}[{number}]") if isinstance(item, dict) else ())
        ]
    return check_plain(setting.annotation, value, place)


def _build_value(setting: Setting, value: Any) -> Any:
    if isinstance(value, dict) and "_target_" in value:
        return build_node(value)
    if _holds_nodes(value):
        return [build_node(item) for item in value]
    return setting.adapter.validate_json(json.dumps(value), strict=True)


def _holds_nodes(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) and "_target_" in item for item in value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            yield from _texts(child)


def _evaluate(annotation: Any, scope: dict[str, Any]) -> Any:
    if annotation is inspect.Parameter.empty:
        return Any
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, scope)
    except NameError:
        return Any


def _take_alias(annotation: Any) -> tuple[str | None, Any]:
    """Splits `Annotated[Path, Field(alias="root")]` into `root` and what is left, which pydantic wants without."""
    from pydantic.fields import FieldInfo

    if get_origin(annotation) is not Annotated:
        return None, annotation
    kind, *notes = get_args(annotation)
    aliases = [note.alias for note in notes if isinstance(note, FieldInfo) and note.alias]
    if not aliases:
        return None, annotation
    rest = [part for note in notes for part in (note.metadata if isinstance(note, FieldInfo) else [note])]
    return aliases[0], Annotated[kind, *rest] if rest else kind


@cache
def _get_adapter(annotation: Any) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter

    # A learning rate of infinity is a number to pydantic, but never what anybody meant.
    return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False))
