"""The protocol of a benchmark: folds, seeds, patches and recipes, read from a YAML file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import yaml
from pydantic import ConfigDict, Field, PositiveInt, TypeAdapter, ValidationError, field_validator
from pydantic.dataclasses import dataclass

from fireseg.errors import SettingError, did_you_mean
from fireseg.files import atomic_write, check_regular_file

Overrides = tuple[str, ...]

_NAME = r"^\w[\w +.-]*$"

_OWN = re.compile(r"(data\.root|data\.fold|data\.max_tiles|seed|resume|output_dir|hydra\..*)=")
"""Settings that the benchmark gives itself."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Recipe:
    """A way to train.

    Attributes:
        settings: Overrides of `python -m fireseg.train`.
        size: Patch size in pixels; that of the protocol if None.
        stride: Distance between training patches in pixels; that of the protocol if None.
    """

    settings: Overrides = ()
    size: PositiveInt | None = None
    stride: PositiveInt | None = None


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Protocol:
    """What is trained and judged.

    Attributes:
        recipes: Recipes by name; the others are compared with the first.
        folds: Number of parts that the fires are divided into.
        seeds: Seeds of the trainings.
        max_tiles: Numbers of tiles to learn from, for a learning curve; None for all.
        split_seed: Seed of the division.
        size: Patch size in pixels.
        stride: Distance between training patches in pixels.
        prepare: Further options of `python -m fireseg.prepare`.
        settings: Overrides of all recipes.
        ensembles: Names of recipes by the name of an ensemble: their models of all seeds are also judged together, as
            one model.
    """

    recipes: Annotated[dict[Annotated[str, Field(pattern=_NAME)], Recipe], Field(min_length=1)]
    folds: Annotated[int, Field(ge=3, le=100)] = 5
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    max_tiles: Annotated[tuple[PositiveInt | None, ...], Field(min_length=1)] = (None,)
    split_seed: int = 0
    size: PositiveInt = 128
    stride: PositiveInt = 64
    prepare: Overrides = ()
    settings: Overrides = ()
    ensembles: dict[Annotated[str, Field(pattern=_NAME)], tuple[str, ...]] = field(default_factory=dict)

    @field_validator("recipes", mode="before")
    @classmethod
    def _read_recipes(cls, value: Any) -> Any:
        """A recipe of settings alone may be a list."""
        if not isinstance(value, dict):
            return value
        return {str(name): {"settings": one} if isinstance(one, list) else one or {} for name, one in value.items()}

    @property
    def base(self) -> str:
        """Name of the recipe that the others are compared with."""
        return next(iter(self.recipes))

    def get_size(self, recipe: Recipe) -> tuple[int, int]:
        """Returns patch size and stride of a recipe."""
        return recipe.size or self.size, recipe.stride or self.stride


class Group(NamedTuple):
    """Trainings of one recipe on one number of tiles, over all folds and seeds.

    Attributes:
        recipe: Name of the recipe.
        max_tiles: Number of tiles to learn from; None for all.
    """

    recipe: str
    max_tiles: int | None

    @property
    def folder_name(self) -> str:
        """Name of the folder of its runs."""
        return f"{self.recipe.replace(' ', '_')}-{'all' if self.max_tiles is None else self.max_tiles}"


def read_protocol(path: Path) -> Protocol:
    """Reads and checks a protocol.

    Raises:
        SettingError: If it cannot be read, or is not valid; with all faults.
    """
    check_regular_file(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SettingError(f"{path}: no such file; write a protocol, see docs/benchmark.md") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SettingError(f"{path}: cannot be read ({' '.join(str(error).split())}); see docs/benchmark.md") from error
    try:
        protocol = TypeAdapter(Protocol).validate_python(content)
    except ValidationError as error:
        faults = [f"{path}: {'.'.join(map(str, one['loc'])) or 'content'}: {one['msg']}" for one in error.errors()]
        raise SettingError(*(f"{fault}; see docs/benchmark.md" for fault in faults)) from error
    if faults := _find_faults(protocol):
        raise SettingError(*(f"{path}: {fault}" for fault in faults))
    return protocol


def _find_faults(protocol: Protocol) -> list[str]:
    faults = []
    places = {"settings": protocol.settings}
    places |= {f"recipes.{name}.settings": recipe.settings for name, recipe in protocol.recipes.items()}
    for place, overrides in places.items():
        faults += [
            f"{place}: {override}: is given by the benchmark itself; remove it, or use folds, seeds or max_tiles"
            for override in overrides
            if _OWN.match(override.lstrip("+"))
        ]
    faults += [
        f"prepare: {word}: is given by the benchmark itself; remove it, or use size, stride or folds"
        for word in protocol.prepare
        if re.match(r"--(size|stride|folds|seed|split-by|split-csv|fractions|workers|audit)\b", word)
    ]
    for name, recipe in protocol.recipes.items():
        size, stride = protocol.get_size(recipe)
        if stride > size:
            faults.append(f"recipes.{name}: stride {stride} is larger than the patch size {size}, which leaves gaps")
    for name, values in (("seeds", protocol.seeds), ("max_tiles", protocol.max_tiles)):
        if len(set(values)) < len(values):
            faults.append(f"{name}: a value is there twice; remove it")
    faults += _find_ensemble_faults(protocol)
    folders = [name.replace(" ", "_").lower() for name in protocol.recipes]
    if len(set(folders)) < len(folders):
        faults.append("recipes: two names differ only in case or blanks; rename one")
    return faults


def _find_ensemble_faults(protocol: Protocol) -> Iterator[str]:
    for name, members in protocol.ensembles.items():
        place = f"ensembles.{name}"
        if name in protocol.recipes:
            yield f"{place}: is the name of a recipe, too; rename one"
        for member in members:
            if member not in protocol.recipes:
                yield f"{place}: {member}: no such recipe{did_you_mean(member, protocol.recipes)}; name some of recipes"
        if len(set(members)) < len(members):
            yield f"{place}: a recipe is there twice; remove it"
        sizes = {protocol.get_size(protocol.recipes[member]) for member in members if member in protocol.recipes}
        if len(sizes) > 1:
            yield f"{place}: recipes of different patch sizes, which are not judged together; name those of one"
        if len(members) * len(protocol.seeds) < 2:
            yield f"{place}: one model is no ensemble; name several recipes, or give several seeds"


def settle_protocol(protocol: Protocol, path: Path, source: Path) -> None:
    """Writes the protocol into the folder of a benchmark, or checks that it continues the one there.

    A protocol continues another if it adds recipes, seeds, numbers of tiles or ensembles, and leaves all else as it is.

    Args:
        protocol: The protocol.
        path: Its file in the folder of the benchmark.
        source: File that it was read from.

    Raises:
        SettingError: If the folder holds another benchmark; with all differences.
        FiresegError: If the file cannot be written.
    """
    if path.exists():
        there = read_protocol(path)
        differences = [
            f"{name}: {getattr(there, name)} there, {getattr(protocol, name)} here"
            for name in ("folds", "split_seed", "size", "stride", "prepare", "settings")
            if getattr(there, name) != getattr(protocol, name)
        ]
        differences += [
            f"recipes.{name}: {'has changed' if name in protocol.recipes else 'is missing here'}"
            for name, recipe in there.recipes.items()
            if protocol.recipes.get(name) != recipe
        ]
        if there.base != protocol.base:
            differences.append(f"recipes: the first is {there.base} there, {protocol.base} here")
        if differences:
            raise SettingError(
                f"--out {path.parent}: holds another benchmark: {'; '.join(differences)}; choose another folder"
            )
    with atomic_write(path) as part:
        part.write_bytes(source.read_bytes())
