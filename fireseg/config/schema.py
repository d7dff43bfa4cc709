"""The signature as the schema: what a callable takes says what its settings may be."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fireseg.errors import FiresegError, SettingError, did_you_mean

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError
    from pydantic_core import ErrorDetails


_PACKAGE = Path(__file__).resolve().parents[1]

CONF_DIR = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""The folder of all choices: inside an installed package, or beside it in a checkout."""

FORMER_TARGETS = {"fireseg.data.sample.make_sample": "fireseg.synthetic.make_sample"}
"""Addresses of callables in the settings of earlier versions, and where they are now."""

RECIPES = ("experiment", "sweep")
"""Groups whose files set keys of the root, not of a part of their own name."""


def read_yaml(path: Path) -> dict[str, Any]:
    """The content of a file of conf/ as it stands, nothing composed or resolved."""
    import yaml

    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def describe_group(group: str) -> dict[str, dict[str, Any]]:
    """The files of a group by choice, each as it stands. Empty where there is no such group."""
    return {path.stem: read_yaml(path) for path in sorted((CONF_DIR / group).glob("*.yaml"))}


@cache
def get_offered() -> dict[str, dict[str, bool]]:
    """The `_target_`s of conf/ by the key of the root that they stand under.

    Nothing else is ever called: a config.json that somebody made up can name no other callable.

    Returns:
        For each key of the root, which callables there are, and whether each is called later
        (`_partial_`).
    """
    offered: dict[str, dict[str, bool]] = {}
    for path in sorted(CONF_DIR.rglob("*.yaml")):
        folder = path.relative_to(CONF_DIR).parts[0]
        content = read_yaml(path)
        is_root = path.parent == CONF_DIR or folder in RECIPES
        for key, node in content.items() if is_root else [(folder, content)]:
            if key != "hydra":
                offered.setdefault(key, {}).update(_find_targets(node))
    return offered


def find_target_fault(node: dict[str, Any], place: str) -> str | None:
    """Says what is wrong with the `_target_` of a node, if anything is."""
    offered = get_offered().get(place.partition(".")[0], {})
    target = node.get("_target_")
    if target is None:
        return f"{place}._target_: missing; it says what is built, as {_first(offered)}"
    if not isinstance(target, str) or target not in offered:
        return f"{place}._target_: {target}, but conf/ offers no such thing here{did_you_mean(str(target), offered)}"
    if "_partial_" in node and not offered[target]:
        return f"{place}._partial_: no such setting"
    if offered[target] and node.get("_partial_") is not True:
        return f"{place}._partial_: must be true, as in conf/"
    return None


def is_offered(target: str) -> bool:
    """Whether any file of conf/ names this callable."""
    return any(target in targets for targets in get_offered().values())


def update_targets(settings: Any) -> Any:
    """Replaces the addresses of earlier versions in the settings of an old run by those of today.

    Args:
        settings: A run's settings, or a part of them.

    Returns:
        A copy with `_target_`s of today; everything else is unchanged.
    """
    if isinstance(settings, dict):
        updated = {key: update_targets(value) for key, value in settings.items()}
        if isinstance(target := updated.get("_target_"), str):
            updated["_target_"] = FORMER_TARGETS.get(target, target)
        return updated
    return [update_targets(value) for value in settings] if isinstance(settings, list) else settings


def locate(target: str) -> Any:
    """Imports what a `_target_` names. Only for what conf/ offers."""
    module, _, name = target.rpartition(".")
    return getattr(import_module(module), name)


def _find_targets(node: Any) -> Iterator[tuple[str, bool]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"], bool(node.get("_partial_", False))
        for child in node.values():
            yield from _find_targets(child)
    elif isinstance(node, list):
        for child in node:
            yield from _find_targets(child)


def _first(names: dict[str, bool]) -> str:
    return next(iter(names), "in conf/")


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


_LONGEST_SLUG = 80


def slug(text: str) -> str:
    """A name for a folder: letters, digits, `.`, `_` and `-`, never empty, at most 80 characters.

    The number of the job stands before it, so that the folders of a sweep are distinct and their
    names stay within 90.

    Example:
        >>> slug("model.encoder=resnet18,optimizer.lr=1e-3")
        'model.encoder-resnet18_optimizer.lr-1e-3'
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", str(text).replace(",", "_")).strip("._-")
    if len(name) > _LONGEST_SLUG:
        name = f"{name[: _LONGEST_SLUG - 9]}-{hashlib.sha256(str(text).encode()).hexdigest()[:8]}"
    return name or "base"


def count(items: Any) -> int:
    """How many items a list has. What is no list counts as one, and is told by the check of the list itself."""
    return len(items) if isinstance(items, ListConfig | list | tuple) else 1


def register() -> None:
    """Makes `${count:...}` and `${slug:...}` known to conf/."""
    OmegaConf.register_new_resolver("count", count, replace=True)
    OmegaConf.register_new_resolver("slug", slug, replace=True)


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """The settings as a plain dict, without Hydra's own: what config.json holds.

    Args:
        cfg: What Hydra composed.

    Raises:
        SettingError: If an interpolation stands for nothing; all such faults at once.
    """
    tree, faults = resolve_all(cfg)
    if faults:
        raise SettingError(*faults)
    return tree


def resolve_all(cfg: DictConfig) -> tuple[dict[str, Any], list[str]]:
    """The same, with the faults beside it; what cannot be resolved is left out."""
    faults: list[str] = []
    tree = {str(key): _plain(cfg, key, str(key), faults) for key in cfg if key != "hydra"}
    return {key: value for key, value in tree.items() if value is not _UNKNOWN}, faults


_UNKNOWN = object()


def _plain(parent: DictConfig | ListConfig, key: Any, place: str, faults: list[str]) -> Any:
    try:
        if OmegaConf.is_missing(parent, key):
            return "???"
        value = parent[key]
    except (OmegaConfBaseException, ValueError) as error:
        line = re.sub(r"^\w+ raised while resolving interpolation: ", "", str(error).splitlines()[0]).strip('"')
        faults.append(f"{place}: {line}; write a value that can be resolved")
        return _UNKNOWN
    if isinstance(value, DictConfig):
        children = {str(inner): _plain(value, inner, f"{place}.{inner}", faults) for inner in value}
        return {inner: child for inner, child in children.items() if child is not _UNKNOWN}
    if isinstance(value, ListConfig):
        items = [_plain(value, number, f"{place}[{number}]", faults) for number in range(len(value))]
        return [item for item in items if item is not _UNKNOWN]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


register()
