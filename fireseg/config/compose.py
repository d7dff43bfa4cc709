"""Checks a command line before Hydra runs it: composes every job and reports all invalid settings at once."""

from __future__ import annotations

import copy
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from fireseg.config.flags import is_run, read_flags
from fireseg.config.overrides import (
    Groups,
    apply,
    check_choice,
    describe_several_values,
    expand_home,
    expand_sweep,
    first_line,
    parse,
    parse_all,
)
from fireseg.config.resume import finalize_all
from fireseg.config.schema import format_value
from fireseg.config.targets import CONF_DIR, read_yaml
from fireseg.console import format_count
from fireseg.errors import MAX_FAULTS_SHOWN, SettingError, join_names
from fireseg.files import LAST_CHECKPOINT, SWEEP_PLAN

_SEARCH_PATH = "hydra.searchpath"

_DIRNAME = "hydra.job.config.override_dirname"


@dataclass(frozen=True, kw_only=True)
class SweepJob:
    """One job of a sweep.

    Attributes:
        name: The overrides that differ between the jobs, Hydra's `override_dirname`.
        subdir: Folder within that of the sweep, from `hydra.sweep.subdir`.
        settings: Final settings.
    """

    name: str
    subdir: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Preflight:
    """The checked content of a command line.

    Attributes:
        is_run: True if something is trained; False if settings or help are only shown.
        is_multirun: True for a sweep.
        jobs: Overrides of each job, in the order of Hydra.
        swept: Keys that differ between the jobs.
        settings: Final settings of a single run; None for a sweep.
        sweep_dir: Folder of a sweep that a command line or file chose; None if a new one is to be created.
        sweep_jobs: Names, folders and settings of the jobs of a sweep.
    """

    is_run: bool = False
    is_multirun: bool = False
    jobs: tuple[tuple[str, ...], ...] = ()
    swept: tuple[str, ...] = ()
    settings: dict[str, Any] | None = None
    sweep_dir: Path | None = None
    sweep_jobs: tuple[SweepJob, ...] = ()


def compose_settings(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Composes, resolves and checks the settings of one run, as `python -m fireseg.train` does.

    Args:
        overrides: Overrides such as `task=gra` or `engine.epochs=3`.

    Raises:
        SettingError: If a setting is invalid; with all faults.
    """
    settings = preflight(overrides).settings
    if settings is None:
        raise SettingError(
            "overrides: these start a sweep, but the settings of one run are required; leave out -m, sweep= and --cfg"
        )
    return settings


def preflight(argv: Sequence[str]) -> Preflight:
    """Checks a command line before Hydra acts on it.

    Hydra alone would stop at the first fault, suggest `+` for a misspelt name, accept unknown names in
    files, and start a sweep whose last job is invalid.

    Args:
        argv: Command-line arguments, without the program name.

    Raises:
        SettingError: If any job is invalid; with all faults of all jobs, each listed once.
    """
    flags = read_flags(argv)
    if not is_run(flags) and not flags.cfg:
        return Preflight()
    words, faults = parse_all(expand_home(flags.overrides))
    with initialize_composer(flags, words) as composer:
        single = [word for word in words if not word.is_sweep_override()]
        cfg, wrong = composer.compose(single)
        if is_run(flags) and (flags.multirun or (cfg is not None and cfg.hydra.mode == RunMode.MULTIRUN)):
            plan, wrong = _check_sweep(words, cfg, composer)
        else:
            wrong = [describe_several_values(word, cfg) for word in words if word.is_sweep_override()] + wrong
            # The values of settings that are only shown are not checked: that imports torch.
            plan, more = _check_run(cfg, single) if is_run(flags) and cfg is not None else (Preflight(), [])
            wrong += more
    if faults := list(dict.fromkeys([*faults, *wrong])):
        raise SettingError(*faults)
    return plan


class Composer:
    """Composes settings override by override, collecting faults; reads the files of each set of choices once."""

    def __init__(self, config_name: str, search_path: list[str]) -> None:
        self.groups = Groups(search_path)
        self._config_name = config_name
        self._search_path = search_path
        self._composed: dict[tuple[str, ...], DictConfig | str] = {}

    def compose(self, words: Sequence[Override]) -> tuple[DictConfig | None, list[str]]:
        """Returns the settings with all valid overrides applied, and the faults of the others."""
        choices, values, faults = [], [], []
        for word in words:
            if word.key_or_group in self.groups and not isinstance(word.value(), dict):
                fault = check_choice(word, self.groups)
                (faults if fault else choices).append(fault or str(word.input_line))
            elif word.key_or_group != _SEARCH_PATH:
                values.append(word)
        base = self._read(tuple(choices))
        if isinstance(base, str):
            return None, [*faults, base]
        cfg = copy.deepcopy(base)
        faults += [fault for word in values if (fault := apply(word, cfg, self.groups))]
        return cfg, faults

    def _read(self, choices: tuple[str, ...]) -> DictConfig | str:
        if choices not in self._composed:
            overrides = [*self._search_path, *choices]
            try:
                self._composed[choices] = compose(self._config_name, overrides, return_hydra_config=True)
            except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
                self._composed[choices] = _describe_file_error(error)
        return self._composed[choices]


@contextmanager
def initialize_composer(flags: Namespace, words: Sequence[Override]) -> Iterator[Composer]:
    """Yields a composer for the folders of settings that flags of Hydra and overrides name.

    Raises:
        SettingError: If there is no such folder.
    """
    # Hydra resolves a relative --config-path from the folder of fireseg.train.cli.
    train = Path(__file__).resolve().parents[1] / "train"
    folder = CONF_DIR if flags.config_path is None else train / flags.config_path
    for flag, path in (("--config-path", folder), ("--config-dir", flags.config_dir)):
        if path is not None and not Path(path).is_dir():
            raise SettingError(f"{flag}: {path}: no such folder")
    paths = [] if flags.config_dir is None else [f"file://{Path(flags.config_dir).resolve()}"]
    for value in (word.value() for word in words if word.key_or_group == _SEARCH_PATH):
        if not isinstance(value, list) or not all(isinstance(path, str) for path in value):
            raise SettingError(f"{_SEARCH_PATH}: {format_value(value)}, but it must be a list, as ['file:///my/conf']")
        paths += value
    quoted = ",".join("'{}'".format(path.replace("'", r"\'")) for path in paths)
    # On leaving the context, Hydra's global state is restored.
    with initialize_config_dir(str(folder), job_name="train", version_base="1.3"):
        yield Composer(flags.config_name or "train", [f"{_SEARCH_PATH}=[{quoted}]"] if paths else [])


def _check_run(cfg: DictConfig, words: list[Override]) -> tuple[Preflight, list[str]]:
    faults = [
        f"{word.key_or_group}: applies only to the jobs of a sweep; add -m, which also takes a single job"
        for word in words
        if word.key_or_group in ("hydra/launcher", "hydra/sweeper", "hydra.sweep.dir", "hydra.sweep.subdir")
    ]
    faults += _check_run_folder(cfg, {word.key_or_group for word in words})
    settings, wrong = finalize_all(cfg, words)
    jobs = (tuple(str(word.input_line) for word in words if not word.is_hydra_override()),)
    return Preflight(is_run=True, jobs=jobs, settings=settings), [*faults, *wrong]


def _check_run_folder(cfg: DictConfig, given: set[str]) -> list[str]:
    """Finds contradictions between `hydra.run.dir`, the folder of the run itself, and other settings."""
    if "hydra.run.dir" not in given and _get_raw(cfg, "hydra.run.dir") == ".":
        return []
    faults, resume = [], cfg.get("resume")
    if "output_dir" in given:
        faults.append(
            "hydra.run.dir: names the folder of the run, and output_dir the folder in which it is created; "
            "leave one of them out"
        )
    if isinstance(resume, str) and (Path(resume).is_dir() or Path(resume).name == LAST_CHECKPOINT):
        faults.append("hydra.run.dir: a resumed run continues in its own folder; leave it out")
    return faults


def find_sweep_dir(cfg: DictConfig) -> tuple[Path | None, list[str]]:
    """Returns the folder of a sweep if it was chosen, and the fault if it holds runs, which would be overwritten."""
    if _get_raw(cfg, "hydra.sweep.dir") == read_yaml(CONF_DIR / "train.yaml")["hydra"]["sweep"]["dir"]:
        return None, []
    try:
        folder = Path(cfg.hydra.sweep.dir)
    except OmegaConfBaseException as error:
        return None, [f"hydra.sweep.dir: {first_line(error)}; write a value that can be resolved"]
    runs = sorted(path.parent for pattern in ("*/config.json", "*/*/config.json") for path in folder.glob(pattern))
    if not runs or (folder / SWEEP_PLAN).exists():  # the caller compares the plans
        return folder, []
    names = join_names([str(run.relative_to(folder)) for run in runs], MAX_FAULTS_SHOWN)
    fault = f"hydra.sweep.dir: {folder} holds {format_count(len(runs), 'run')} already ({names}); choose another folder"
    return folder, [fault]


def _get_raw(cfg: DictConfig, key: str) -> Any:
    """Returns a setting without resolving interpolations."""
    parent, _, name = key.rpartition(".")
    node: Any = OmegaConf.to_container(OmegaConf.select(cfg, parent), resolve=False)
    return node[name]


def _check_sweep(words: list[Override], cfg: DictConfig | None, composer: Composer) -> tuple[Preflight, list[str]]:
    of_hydra = [word for word in words if word.is_hydra_override()]
    swept, faults = [word for word in words if not word.is_hydra_override()], []
    if cfg is not None:
        in_file, faults = parse_all([f"{key}={value}" for key, value in (cfg.hydra.sweeper.params or {}).items()])
        swept = [*in_file, *swept]
        faults += _find_unsupported(cfg)
    jobs, more = expand_sweep(swept, composer.groups)
    faults += more + expand_sweep(of_hydra, composer.groups)[1]
    keys = dict.fromkeys(word.key_or_group for word in swept if word.is_sweep_override())
    fixed = [word for word in of_hydra if not word.is_sweep_override()]
    is_named = _choose_names(jobs, keys, fixed)
    checked = [check_job(number, job, fixed, is_named, composer) for number, job in enumerate(jobs)]
    sweep_dir, wrong = (None, []) if cfg is None else find_sweep_dir(cfg)
    faults += wrong
    if any(word.key_or_group == "hydra.run.dir" for word in of_hydra):
        faults.append("hydra.run.dir: applies only to a single run; write hydra.sweep.dir for the folder of a sweep")
    faults += _merge_faults([wrong for _, wrong in checked], jobs, keys)
    sweep_jobs = tuple(job for job, _ in checked if job is not None)
    plan = Preflight(
        is_run=True,
        is_multirun=True,
        jobs=tuple(map(tuple, jobs)),
        swept=tuple(keys),
        sweep_dir=sweep_dir,
        sweep_jobs=sweep_jobs,
    )
    return plan, faults or _find_shared_folders(sweep_jobs)


def _find_unsupported(cfg: DictConfig) -> list[str]:
    """Finds settings of Hydra that a sweep would ignore: its jobs are processes that do not run Hydra."""
    faults, job = [], cfg.hydra.job
    if _get_raw(cfg, "hydra.job.chdir"):
        faults.append("hydra.job.chdir: the jobs of a sweep run in the working folder; leave it out")
    if job.env_set:
        names = ", ".join(map(str, job.env_set))
        faults.append(f"hydra.job.env_set: not applied to the jobs of a sweep; set {names} before the command")
    if cfg.hydra.get("callbacks"):
        faults.append("hydra.callbacks: not called in a sweep; leave them out")
    for group in ("hydra/launcher", "hydra/sweeper"):  # chosen by a file
        if (choice := cfg.hydra.runtime.choices.get(group)) != "basic":
            faults.append(f"{group}: {choice}, but sweeps are run without plugins of Hydra; leave it out")
    return faults


def _choose_names(jobs: list[list[str]], keys: dict[str, None], fixed: list[Override]) -> Callable[[Override], bool]:
    """Returns the test of which overrides are part of a job's name: those that differ, or all of a single job."""
    given = next((word.value() for word in fixed if word.key_or_group == f"{_DIRNAME}.exclude_keys"), None)
    excluded = {*given} if isinstance(given, list) else set()
    is_single = len(jobs) == 1
    return lambda word: (is_single or word.key_or_group in keys) and word.key_or_group not in excluded


def check_job(
    number: int, job: list[str], fixed: list[Override], is_named: Callable[[Override], bool], composer: Composer
) -> tuple[SweepJob | None, list[str]]:
    """Composes a job of a sweep.

    Args:
        number: Position in the sweep.
        job: Overrides of the job.
        fixed: Overrides of Hydra's own settings, which hold for the whole sweep.
        is_named: True for an override that is part of the name of the job.
        composer: The composer.

    Returns:
        The job, or None, and all faults.
    """
    words = [parse(text) for text in job]
    cfg, faults = composer.compose([*fixed, *words])
    if cfg is None:
        return None, faults
    if cfg.get("resume") is not None:
        return None, [*faults, "resume: a sweep starts new runs; leave it out, or resume one run at a time without -m"]
    separators = cfg.hydra.job.config.override_dirname
    named = sorted(str(word.input_line) for word in words if is_named(word))
    name = separators.item_sep.join(named).replace("=", separators.kv_sep)
    for key, value in (("num", number), ("id", str(number)), ("override_dirname", name)):
        OmegaConf.update(cfg, f"hydra.job.{key}", value, force_add=True)
    settings, wrong = finalize_all(cfg, words)
    try:
        subdir = str(cfg.hydra.sweep.subdir)
    except OmegaConfBaseException as error:
        return None, [*faults, *wrong, f"hydra.sweep.subdir: {first_line(error)}; write a value that can be resolved"]
    if Path(subdir).is_absolute() or ".." in Path(subdir).parts or Path(subdir) == Path():
        wrong.append(f"hydra.sweep.subdir: {subdir}, but it must be a folder within that of the sweep")
    return SweepJob(name=name, subdir=subdir, settings=settings), [*faults, *wrong]


def _find_shared_folders(jobs: Sequence[SweepJob]) -> list[str]:
    """Finds two jobs whose folders are the same, or one within the other."""
    number_of: dict[Path, int] = {}
    for number, folder in sorted(
        ((number, Path(job.subdir)) for number, job in enumerate(jobs)), key=lambda one: one[1]
    ):
        if shared := [path for path in (folder, *folder.parents) if path in number_of]:
            return [
                f"hydra.sweep.subdir: jobs {number_of[shared[0]]} and {number} would share the folder {shared[0]}; "
                "write a value with ${hydra.job.num}"
            ]
        number_of[folder] = number
    return []


def _merge_faults(per_job: list[list[str]], jobs: list[list[str]], keys: dict[str, None]) -> list[str]:
    """Returns each fault once, followed by the jobs that have it unless all do."""
    numbers_of: dict[str, list[int]] = {}
    for number, faults in enumerate(per_job):
        for fault in dict.fromkeys(faults):
            numbers_of.setdefault(fault, []).append(number)
    merged = []
    for fault, numbers in numbers_of.items():
        if len(numbers) == len(jobs):
            merged.append(fault)
        elif len(numbers) == 1:
            swept = " ".join(text for text in jobs[numbers[0]] if parse(text).key_or_group in keys)
            merged.append(f"{fault} (job {numbers[0]}: {swept})")
        else:
            some = ", ".join(map(str, numbers[:6])) + (", ..." if len(numbers) > 6 else "")
            merged.append(f"{fault} (jobs {some} of {len(jobs)})")
    return merged


def _describe_file_error(error: BaseException) -> str:
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{mark.name}: {error.problem} in line {mark.line + 1}; fix the file"
    if isinstance(error, UnicodeDecodeError):
        return f"conf: a file is not UTF-8 text ({error}); save it as UTF-8"
    line = first_line(error)
    options = [option.strip() for option in str(error).split("Config search path")[0].split("\n\t")[1:]]
    available = f"; available: {', '.join(options)}" if isinstance(error, MissingConfigException) and options else ""
    return f"conf: {line.rstrip('.')}{available}; fix the file that names it"
