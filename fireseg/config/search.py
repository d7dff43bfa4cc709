"""Search spaces: settings of which a search chooses the values, and the settings of each of its trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.types import IntervalSweep

from fireseg.config.compose import SweepJob, check_job, find_sweep_dir, initialize_composer
from fireseg.config.flags import read_flags
from fireseg.config.overrides import expand_home, expand_sweep, parse_all
from fireseg.errors import SettingError

Value = str | float | int


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Range of a number.

    Attributes:
        low: Smallest value.
        high: Largest value.
        is_log: True to draw the logarithm of the value.
        is_integer: True for whole numbers.
    """

    low: float
    high: float
    is_log: bool
    is_integer: bool


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """Settings of a search.

    Attributes:
        fixed: Overrides that all trials have.
        dimensions: Choices or range of each setting that differs, by its name.
        sweep_dir: Folder that was chosen for the search; None if a new one is to be created.
    """

    fixed: tuple[str, ...]
    dimensions: Mapping[str, tuple[str, ...] | Interval]
    sweep_dir: Path | None


def read_search_space(overrides: Sequence[str]) -> SearchSpace:
    """Reads the space from the overrides of a command line and the sweep file that they name.

    Every choice and the ends of every range are composed and checked once.

    Args:
        overrides: Overrides such as `sweep=search` or `optimizer.lr=interval(1e-4,1e-2)`.

    Raises:
        SettingError: If a setting is invalid, or none is searched; with all faults.
    """
    words, faults = parse_all(expand_home(list(overrides)))
    with initialize_composer(read_flags([]), words) as composer:
        single = [word for word in words if not word.is_sweep_override()]
        cfg, wrong = composer.compose(single)
        if cfg is None:
            raise SettingError(*faults, *wrong)
        in_file, more = parse_all([f"{key}={value}" for key, value in (cfg.hydra.sweeper.params or {}).items()])
        sweep_dir, misplaced = find_sweep_dir(cfg)
        faults += [*more, *misplaced]
        dimensions: dict[str, tuple[str, ...] | Interval] = {}
        for word in [*in_file, *(word for word in words if not word.is_hydra_override())]:
            key = word.get_key_element()
            dimensions.pop(key, None)  # the last one of a setting counts
            if isinstance(sweep := word.value(), IntervalSweep):
                low, high = sweep.start, sweep.end
                if low is None or high is None or not low < high or ("log" in sweep.tags and low <= 0):
                    wanted = "must be numbers above 0, the first one smaller" if "log" in sweep.tags else "must grow"
                    faults.append(f"{key}: interval({low},{high}), but its ends {wanted}")
                    continue
                is_integer = isinstance(low, int) and isinstance(high, int)
                dimensions[key] = Interval(
                    low=float(low), high=float(high), is_log="log" in sweep.tags, is_integer=is_integer
                )
            elif word.is_sweep_override():
                jobs, more = expand_sweep([word], composer.groups)
                faults += more
                dimensions[key] = tuple(job[0].partition("=")[2] for job in jobs)
    if not faults and not dimensions:
        faults.append(
            "sweep: no setting has several values; write sweep=search, or settings such as "
            "'optimizer.lr=interval(1e-4,1e-2)' or loss=ce_dice,focal_dice"
        )
    if faults:
        raise SettingError(*dict.fromkeys(faults))
    fixed = tuple(
        str(word.input_line)
        for word in single
        if word.get_key_element() not in dimensions and word.key_or_group != "hydra.sweep.dir"
    )
    space = SearchSpace(fixed=fixed, dimensions=dimensions, sweep_dir=sweep_dir)
    compose_trials(space, _list_probes(space))
    return space


def compose_trials(space: SearchSpace, trials: Sequence[tuple[int, Mapping[str, Value]]]) -> list[SweepJob]:
    """Composes the settings of trials.

    Args:
        space: The search space.
        trials: Number and chosen values of each.

    Raises:
        SettingError: If a setting is invalid; with all faults.
    """
    words, faults = parse_all(expand_home(space.fixed))
    fixed = [word for word in words if word.is_hydra_override()]
    texts = [str(word.input_line) for word in words if not word.is_hydra_override()]
    jobs: list[SweepJob] = []
    names = space.dimensions.keys()
    with initialize_composer(read_flags([]), words) as composer:
        for number, values in trials:
            chosen = [f"{key}={value}" for key, value in values.items()]
            job, wrong = check_job(number, [*texts, *chosen], fixed, lambda word: word.key_or_group in names, composer)
            faults += wrong
            jobs += [job] if job else []
    if faults:
        raise SettingError(*dict.fromkeys(faults))
    return jobs


def _list_probes(space: SearchSpace) -> list[tuple[int, Mapping[str, Value]]]:
    """Lists trials in which every choice and the ends of every range occur."""
    sides: dict[str, tuple[Value, ...]] = {}
    for key, dimension in space.dimensions.items():
        if isinstance(dimension, Interval):
            ends = (dimension.low, dimension.high)
            sides[key] = tuple(map(int, ends)) if dimension.is_integer else ends
        else:
            sides[key] = dimension
    count = max(map(len, sides.values()))
    return [(number, {key: side[number % len(side)] for key, side in sides.items()}) for number in range(count)]
