"""Search for the best settings with Optuna: a sweep whose jobs are chosen one after the other, from earlier scores.

The study is a journal in the folder of the sweep, which several commands may share. Trial N of the study is job N of
the plan; a job is added to the plan under the lock of the folder, so that a command that is killed in between leaves a
trial that the next one adds.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import secrets
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from fireseg.config.search import Interval, SearchSpace, Value, compose_trials, read_search_space
from fireseg.console import format_command, format_score
from fireseg.errors import SettingError
from fireseg.files import atomic_write, convert_disk_errors
from fireseg.runs.folder import create_folder
from fireseg.sweep.options import SearchOptions
from fireseg.sweep.plan import Job, Plan, append_job, is_sweep, read_plan, settle_plan
from fireseg.sweep.queue import read_status
from fireseg.sweep.run import run_jobs

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

log = logging.getLogger("fireseg")

_STUDY = "study.log"
"""Journal of the study, in the folder of the sweep."""

_SPACE = "search.json"


class Search:
    """The study of a sweep, and its plan, which grows with each trial.

    Args:
        path: Folder of the sweep.
        space: Settings that are searched.
        num_trials: Number of trials, including those of earlier commands.
        seed: Seed of the sampler.
    """

    def __init__(self, path: Path, space: SearchSpace, *, num_trials: int, seed: int) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._path, self._space, self._num_trials, self._seed = path, space, num_trials, seed
        with FileLock(path / ".lock"):  # Optuna does not guard the creation of a study
            storage = JournalStorage(JournalFileBackend(str(path / _STUDY)))
            self.study: Study = optuna.create_study(
                storage=storage, study_name="fireseg", direction="maximize", load_if_exists=True
            )

    def extend(self) -> Plan | None:
        """Tells the study the scores of the jobs that have ended, and adds one job to the plan.

        Returns:
            The plan with the new job, the last one; None if all trials have begun.
        """
        from optuna.trial import Trial

        with convert_disk_errors(self._path), FileLock(self._path / ".lock"):
            plan = read_plan(self._path)
            trials = self._tell(plan)
            number = len(plan.jobs)
            if number < len(trials):  # of a command that was killed before it added the job
                trial = Trial(self.study, trials[number]._trial_id)
            elif number < self._num_trials:
                self.study.sampler = self._create_sampler(number)
                trial = self.study.ask()
            else:
                return None
            values = self._choose(trial)
            (job,) = compose_trials(self._space, [(number, values)])
            overrides = tuple(f"{key}={value}" for key, value in values.items())
            return append_job(
                plan, Job(number=number, name=job.name, subdir=job.subdir, overrides=overrides, settings=job.settings)
            )

    def close(self) -> None:
        """Tells the study the last scores; trials whose job was given up are told to have failed."""
        with convert_disk_errors(self._path), FileLock(self._path / ".lock"):
            plan = read_plan(self._path)
            for trial in self._tell(plan)[: len(plan.jobs)]:
                if (
                    not trial.state.is_finished()
                    and read_status(plan, plan.jobs[trial.number]).record.state != "running"
                ):
                    self._tell_failure(trial)

    def _tell(self, plan: Plan) -> list[FrozenTrial]:
        """Tells the study what has ended, and returns its trials."""
        from optuna.trial import TrialState

        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number >= len(plan.jobs):
                continue
            status = read_status(plan, plan.jobs[trial.number])
            if status.record.state == "finished" and status.best_iou is not None:
                # The score of a pruned job counts as well: it says how good its settings are at least.
                self.study.tell(trial.number, status.best_iou)
            elif status.record.state in ("finished", "failed"):
                self._tell_failure(trial)
        return self.study.get_trials(deepcopy=False)

    def _tell_failure(self, trial: FrozenTrial) -> None:
        from optuna.trial import TrialState

        self.study.tell(trial.number, state=TrialState.FAIL)

    def _create_sampler(self, number: int) -> Any:
        """Creates the sampler of a trial: seeded by its number, so that a resumed search goes on as it would have."""
        from optuna.samplers import TPESampler

        # The liar keeps jobs that run at the same time from choosing the same values.
        digest = hashlib.sha256(f"{self._seed} {number}".encode()).digest()
        return TPESampler(seed=int.from_bytes(digest[:4]), constant_liar=True)

    def _choose(self, trial: Trial) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for key, dimension in self._space.dimensions.items():
            if not isinstance(dimension, Interval):
                values[key] = str(trial.suggest_categorical(key, dimension))
            elif dimension.is_integer:
                values[key] = trial.suggest_int(key, int(dimension.low), int(dimension.high), log=dimension.is_log)
            else:
                drawn = trial.suggest_float(key, dimension.low, dimension.high, log=dimension.is_log)
                values[key] = min(max(float(f"{drawn:.3g}"), dimension.low), dimension.high)  # readable
        return values


def run_search(options: SearchOptions) -> int:
    """Runs a search, or goes on with the one in the folder `hydra.sweep.dir`.

    Returns:
        The exit code, as of `run_sweep`.

    Raises:
        SettingError: If a setting is invalid, Optuna is not installed, or the folder holds another search.
    """
    if importlib.util.find_spec("optuna") is None:
        raise SettingError("search: the package optuna is not installed; pip install 'fireseg[search]'")
    if options.engine == "slurm":
        raise SettingError(
            "--engine: slurm, but a search chooses each job from the scores of earlier ones; submit this command "
            "itself with sbatch, several times if you like: with the same hydra.sweep.dir=DIR they share the trials"
        )
    space = read_search_space(options.overrides)
    path = space.sweep_dir or create_folder(Path("multirun"), f"{datetime.now():%Y-%m-%d_%H-%M-%S}_search")
    _settle(path, space)
    (base,) = compose_trials(space, [(0, _get_first(space))])
    search = Search(path, space, num_trials=options.trials, seed=base.settings["seed"])
    words = [word for word in options.overrides if not word.startswith("hydra.sweep.dir=")]
    words += [f"hydra.sweep.dir={path}", f"--trials={options.trials}", *options.list_words()]
    again = format_command("sweep", "search", *words)
    exit_code = run_jobs(read_plan(path), options, secrets.token_hex(4), again=again, extend=search.extend)
    search.close()
    if any(trial.value is not None for trial in search.study.get_trials(deepcopy=False)):
        best = search.study.best_trial
        settings = " ".join(read_plan(path).jobs[best.number].overrides)
        sys.stdout.write(f"best: job {best.number}, val fire IoU {format_score(best.value)}: {settings}\n")
    return exit_code


def _settle(path: Path, space: SearchSpace) -> None:
    """Writes the space and an empty plan, or checks that those in the folder are of the same search.

    Raises:
        SettingError: If the folder holds something else.
    """
    content = {
        "fixed": list(space.fixed),
        "space": {key: _describe(dimension) for key, dimension in space.dimensions.items()},
    }
    with convert_disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        with FileLock(path / ".search.lock"):
            if not is_sweep(path):
                with atomic_write(path / _SPACE) as part:
                    part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
                settle_plan(Plan(path=path, cwd=Path.cwd(), swept=tuple(space.dimensions), jobs=()))
                return
            try:
                there = json.loads((path / _SPACE).read_bytes())
            except (OSError, ValueError):
                there = None
    if there != content:
        found = "a search of other settings" if there else "a sweep that is no search"
        raise SettingError(f"hydra.sweep.dir: {path} holds {found}; choose another folder")


def _describe(dimension: tuple[str, ...] | Interval) -> list[str] | Mapping[str, Any]:
    return vars(dimension) if isinstance(dimension, Interval) else list(dimension)


def _get_first(space: SearchSpace) -> dict[str, Value]:
    return {
        key: dimension.low if isinstance(dimension, Interval) else dimension[0]
        for key, dimension in space.dimensions.items()
    }
