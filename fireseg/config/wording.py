"""What pydantic found wrong, in plain words."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from fireseg.errors import did_you_mean

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_WANTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_too_short": "at least {min_length} characters long",
    "string_too_long": "at most {max_length} characters long",
    "path_type": "a path",
    "none_required": "null",
    "finite_number": "a finite number",
    "greater_than": "greater than {gt}",
    "greater_than_equal": "greater than or equal to {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "less than or equal to {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "list_type": "a list, as [a,b]",
    "tuple_type": "a list, as [a,b]",
    "dict_type": "a mapping, as {{a: 1}}",
    "too_short": "at least {min_length} long",
    "too_long": "at most {max_length} long",
}

# What stands for an object: it is built from settings of its own, and a plain value is none.
_OBJECT = {"callable_type", "is_instance_of", "needs_python_object", "is_subclass_of"}


def describe_faults(error: ValidationError, value: Any, place: str) -> list[str]:
    """Words each fault as *place: what came, what is wanted*.

    Where a value may be one of several things, what each of them asks for is joined by "or".

    Args:
        error: What pydantic raised.
        value: What it was given.
        place: Dotted key of the value.
    """
    grouped: dict[str, tuple[Any, list[ErrorDetails]]] = {}
    for detail in error.errors():
        inner, came = _descend(detail, value, place)
        grouped.setdefault(inner, (came, []))[1].append(detail)
    return [_describe(inner, came, details) for inner, (came, details) in grouped.items()]


def show(value: Any) -> str:
    """A value as one would type it, at most 60 characters."""
    if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        text = f"[{','.join(item if isinstance(item, str) else json.dumps(item) for item in value)}]"
    else:
        text = f"'{value}'" if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:56]} ..."


def _descend(detail: ErrorDetails, value: Any, place: str) -> tuple[str, Any]:
    """Follows the location as far as it is one: pydantic also puts names of types in there."""
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
    wanted = list(dict.fromkeys(_word(detail, value) for detail in details))
    return f"{place}: {show(value)}, but it must be {' or '.join(wanted)}{_hint(place, value, details)}"


def _word(detail: ErrorDetails, value: Any) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "literal_error":
        names = re.findall(r"'([^']*)'", context["expected"]) or [context["expected"]]
        some = f"one of {', '.join(names)}" if len(names) > 1 else names[0]
        return some + (did_you_mean(value, names) if isinstance(value, str) else "")
    if kind == "missing":
        return "longer by at least one"
    if kind in _OBJECT:
        return "settings of its own, as in conf/"
    template = _WANTED.get(kind)
    return template.format(**context) if template else detail["msg"].removeprefix("Input should be ")


def _hint(place: str, value: Any, details: list[ErrorDetails]) -> str:
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
