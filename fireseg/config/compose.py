"""A command line before Hydra gets it: every job composed and checked, so that none starts where one would fail."""

from __future__ import annotations

import copy
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from fireseg.config.overrides import (
    apply,
    describe_unswept,
    expand,
    find_group_fault,
    is_group,
    is_run,
    parse,
    read_flags,
    squeeze,
    take_first,
)
from fireseg.config.resume import settle_all
from fireseg.config.schema import CONF_DIR, show
from fireseg.errors import SettingError

_SEARCH_PATH = "hydra.searchpath"

_OF_A_SWEEP = ("hydra/launcher", "hydra/sweeper")

_SWEEP_ONLY = "{}: counts for the jobs of a sweep alone; add -m, which also takes a single job"


@dataclass(frozen=True)
class Preflight:
    """What a command line comes to.

    Attributes:
        is_run: Whether anything is trained; else something is only shown, and nothing was checked.
        is_multirun: Whether it is a sweep.
        jobs: The settings typed or swept for each job, as Hydra will run them.
        swept: Keys that differ from job to job.
        settings: The settled settings of the one run; None for a sweep.
    """

    is_run: bool = False
    is_multirun: bool = False
    jobs: tuple[tuple[str, ...], ...] = ()
    swept: tuple[str, ...] = ()
    settings: dict[str, Any] | None = None


def preflight(argv: Sequence[str]) -> Preflight:
    """Checks a command line before Hydra acts on it.

    Hydra would stop at the first fault, hint at `+` for a misspelt name, take unknown names in
    files in silence, and start a sweep whose last job cannot be.

    Args:
        argv: The words after the program's name.

    Returns:
        What is going to run. Nothing heavy is imported where something is only shown.

    Raises:
        SettingError: If any job would be refused; with all faults of all jobs, each named once.
    """
    flags = read_flags(argv)
    if not is_run(flags):
        if flags.cfg:
            _check_words(flags)
        return Preflight()
    words, faults = _parse_all(flags.overrides)
    with _open(flags, words) as composer:
        first = [text for word in words if (text := take_first(word, composer.loader))]
        cfg, _ = composer.compose(_parse_all(first)[0])
        mode = cfg.hydra.mode if cfg is not None else None
        if flags.multirun or mode == RunMode.MULTIRUN:
            found, more = _check_sweep(words, cfg, first, composer)
        else:
            found, more = _check_run(words, composer)
    if faults := list(dict.fromkeys([*faults, *more])):
        raise SettingError(*faults)
    return found


class _Composer:
    """Composes settings word by word; what Hydra reads from files is kept, for a sweep needs it often."""

    def __init__(self, loader: ConfigLoader, config_name: str) -> None:
        self.loader = loader
        self._config_name = config_name
        self._kept: dict[tuple[str, ...], DictConfig | str] = {}

    def compose(self, words: Sequence[Override]) -> tuple[DictConfig | None, list[str]]:
        """The settings with all sound words laid on, and the faults of the others."""
        choices, values, faults = [], [], []
        for word in words:
            if is_group(self.loader, word.key_or_group) and not isinstance(word.value(), dict):
                fault = find_group_fault(self.loader, word)
                (faults if fault else choices).append(fault or str(word.input_line))
            elif word.key_or_group != _SEARCH_PATH:
                values.append(word)
        base = self._read(tuple(choices))
        if isinstance(base, str):
            return None, [*faults, base]
        cfg = copy.deepcopy(base)
        faults += [fault for word in values for fault in apply(word, cfg, self.loader)]
        return cfg, faults

    def _read(self, choices: tuple[str, ...]) -> DictConfig | str:
        if choices not in self._kept:
            try:
                self._kept[choices] = compose(self._config_name, list(choices), return_hydra_config=True)
            except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
                self._kept[choices] = _describe_uncomposed(error)
        return self._kept[choices]


@contextmanager
def _open(flags: Namespace, words: Sequence[Override]) -> Iterator[_Composer]:
    # Hydra reads --config-path from the folder of the program, which is that of the package.
    folder = CONF_DIR if flags.config_path is None else Path(__file__).resolve().parents[1] / flags.config_path
    for flag, path in (("--config-path", folder), ("--config-dir", flags.config_dir)):
        if path is not None and not Path(path).is_dir():
            raise SettingError(f"{flag}: {path}: no such folder")
    search_path = create_config_search_path(str(folder))
    more = [f"file://{Path(flags.config_dir).resolve()}"] if flags.config_dir is not None else []
    more += [path for word in words if word.key_or_group == _SEARCH_PATH for path in _read_paths(word)]
    for path in more:
        search_path.prepend("command-line", path, SearchPathQuery(provider="schema"))
    # The context puts Hydra's globals back at the end, whoever had set them.
    with initialize_config_dir(str(folder), job_name="train", version_base="1.3"):
        GlobalHydra.instance().clear()
        loader = Hydra.create_main_hydra2("train", search_path).config_loader
        yield _Composer(loader, flags.config_name or "train")


def _read_paths(word: Override) -> list[str]:
    value = word.value()
    if not isinstance(value, list) or not all(isinstance(path, str) for path in value):
        raise SettingError(f"{_SEARCH_PATH}: {show(value)}, but it must be a list, as ['file:///my/conf']")
    return value


def _parse_all(texts: Sequence[str]) -> tuple[list[Override], list[str]]:
    words, faults = [], []
    for text in texts:
        try:
            words.append(parse(text))
        except SettingError as error:
            faults += error.faults
    return words, faults


def _check_words(flags: Namespace) -> None:
    """For settings that are only shown: whether there are such, not what they may be, which is slow to know."""
    words, faults = _parse_all(flags.overrides)
    with _open(flags, words) as composer:
        cfg, more = composer.compose([word for word in words if not word.is_sweep_override()])
        faults += [describe_unswept(word, cfg) for word in words if word.is_sweep_override()] + more
    if faults:
        raise SettingError(*faults)


def _check_run(words: list[Override], composer: _Composer) -> tuple[Preflight, list[str]]:
    single = [word for word in words if not word.is_sweep_override()]
    cfg, more = composer.compose(single)
    faults = [describe_unswept(word, cfg) for word in words if word.is_sweep_override()]
    faults += [_SWEEP_ONLY.format(word.key_or_group) for word in single if word.key_or_group in _OF_A_SWEEP]
    if cfg is None:
        return Preflight(), [*faults, *more]
    settings, wrong = settle_all(cfg, single)
    jobs = (tuple(str(word.input_line) for word in single if not word.is_hydra_override()),)
    return Preflight(is_run=True, jobs=jobs, settings=settings), [*faults, *more, *wrong]


def _check_sweep(
    words: list[Override], cfg: DictConfig | None, first: list[str], composer: _Composer
) -> tuple[Preflight, list[str]]:
    hydra_words = [word for word in words if word.is_hydra_override()]
    swept: list[Override] = []
    jobs, faults = [[text for text in first if not parse(text).is_hydra_override()]], []
    if cfg is not None and cfg.hydra.runtime.choices["hydra/sweeper"] == "basic":
        params = [f"{key}={value}" for key, value in (cfg.hydra.sweeper.params or {}).items()]
        said, faults = _parse_all(params)
        swept = [*said, *(word for word in words if not word.is_hydra_override())]
        jobs, more = expand(swept, composer.loader)
        faults += more + expand(hydra_words, composer.loader)[1]
    keys = dict.fromkeys(word.key_or_group for word in swept if word.is_sweep_override())
    single = [word for word in hydra_words if not word.is_sweep_override()]
    per_job = [_check_job([*single, *_parse_all(job)[0]], composer) for job in jobs]
    found = Preflight(is_run=True, is_multirun=True, jobs=tuple(tuple(job) for job in jobs), swept=tuple(keys))
    return found, [*faults, *_merge(per_job, jobs, keys)]


def _check_job(words: list[Override], composer: _Composer) -> list[str]:
    cfg, faults = composer.compose(words)
    if cfg is None:
        return faults
    if cfg.get("resume") is not None:
        return [*faults, "resume: a sweep starts new runs; leave it out, or resume one run at a time without -m"]
    return [*faults, *settle_all(cfg, words)[1]]


def _merge(per_job: list[list[str]], jobs: list[list[str]], keys: dict[str, None]) -> list[str]:
    """Each fault once, with the jobs that have it where not all do."""
    holders: dict[str, list[int]] = {}
    for number, faults in enumerate(per_job):
        for fault in dict.fromkeys(faults):
            holders.setdefault(fault, []).append(number)
    merged = []
    for fault, numbers in holders.items():
        if len(numbers) == len(jobs):
            merged.append(fault)
        elif len(numbers) == 1:
            swept = " ".join(text for text in jobs[numbers[0]] if parse(text).key_or_group in keys)
            merged.append(f"{fault} (job {numbers[0]}: {swept})")
        else:
            some = ", ".join(map(str, numbers[:6])) + (", ..." if len(numbers) > 6 else "")
            merged.append(f"{fault} (jobs {some} of {len(jobs)})")
    return merged


def _describe_uncomposed(error: BaseException) -> str:
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{mark.name}: {error.problem} in line {mark.line + 1}; mend the file"
    if isinstance(error, UnicodeDecodeError):
        return f"conf: a file is not UTF-8 text ({error}); save it as UTF-8"
    line = squeeze(error)
    if "submitit" in line:
        return "hydra/launcher: Slurm needs a plugin that is not installed; pip install 'fireseg[slurm]'"
    options = [option.strip() for option in str(error).split("Config search path")[0].split("\n\t")[1:]]
    offer = f"; there are {', '.join(options)}" if isinstance(error, MissingConfigException) and options else ""
    return f"conf: {line.rstrip('.')}{offer}; mend the file that asks for it"
