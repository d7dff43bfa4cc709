"""The plan of a sweep: `plan.json` in its folder, with the settings of every job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from fireseg.console import format_command, format_count
from fireseg.errors import FiresegError, SettingError, join_names
from fireseg.files import SWEEP_PLAN, atomic_write, convert_disk_errors, read_error
from fireseg.runs.folder import RunFolder

FORMAT = 1

_MAX_SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training run of a sweep.

    Attributes:
        number: Position in the sweep, from 0.
        name: The overrides that differ between the jobs; may be empty for a single job.
        subdir: Run folder, relative to that of the sweep.
        overrides: All overrides of the job.
        settings: Checked settings, complete: the content of `config.json`.
    """

    number: int
    name: str
    subdir: str
    overrides: tuple[str, ...]
    settings: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All jobs of a sweep.

    Attributes:
        path: Folder of the sweep.
        cwd: Working folder of the jobs, absolute: relative paths in their settings start there.
        swept: Keys of the settings that differ between the jobs.
        jobs: The jobs, in the order in which they are started.
    """

    path: Path
    cwd: Path
    swept: tuple[str, ...]
    jobs: tuple[Job, ...]

    def get_folder(self, job: Job) -> RunFolder:
        """Returns the run folder of a job, which need not exist yet."""
        return RunFolder(self.path / job.subdir)


def name_job(job: Job) -> str:
    """Returns the number and the name of a job: `job 3 (seed=3)`."""
    return f"job {job.number}" + (f" ({job.name})" if job.name else "")


def is_sweep(path: Path) -> bool:
    """Returns True if a folder has a plan."""
    return (path / SWEEP_PLAN).is_file()


def read_plan(path: Path) -> Plan:
    """Reads the plan of a sweep.

    Args:
        path: Folder of the sweep.

    Raises:
        SettingError: If the folder has no plan.
        FiresegError: If the plan cannot be read, or has another format.
    """
    file = path / SWEEP_PLAN
    try:
        content = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SettingError(
            f"{path}: no sweep: {SWEEP_PLAN} not found; give the folder of a sweep, which "
            "`python -m fireseg.train -m …` creates in multirun/"
        ) from error
    except OSError as error:
        raise read_error(file, error) from error
    except (ValueError, RecursionError):
        content = None
    cure = "restore it, or start the sweep anew in another folder"
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = f"format {content.get('format')}" if isinstance(content, dict) else "no JSON object"
        raise FiresegError(f"{file}: {found}, but format {FORMAT} is needed; {cure}")
    try:
        jobs = tuple(Job(**{**job, "overrides": tuple(job["overrides"])}) for job in content["jobs"])
        return Plan(path=path, cwd=Path(content["cwd"]), swept=tuple(content["swept"]), jobs=jobs)
    except (LookupError, TypeError) as error:
        raise FiresegError(f"{file}: damaged ({type(error).__name__}: {error}); {cure}") from error


def choose_job(plan: Plan, number: int) -> Plan:
    """Returns a plan that has only one of the jobs.

    Raises:
        SettingError: If there is no such job.
    """
    jobs = tuple(job for job in plan.jobs if job.number == number)
    if not jobs:
        raise SettingError(f"--job: {number}, but {plan.path} has the jobs 0 to {len(plan.jobs) - 1}; choose one")
    return replace(plan, jobs=jobs)


def settle_plan(plan: Plan) -> bool:
    """Writes `plan.json`, or checks that the one in the folder is the same.

    Returns:
        True if the folder held the same plan already, so that the sweep goes on.

    Raises:
        SettingError: If the folder holds another sweep; with all differences.
        FiresegError: If the folder cannot be written.
    """
    with convert_disk_errors(plan.path):
        plan.path.mkdir(parents=True, exist_ok=True)
        with FileLock(plan.path / ".lock"):  # two commands that start at the same time
            if is_sweep(plan.path):
                _check_same(read_plan(plan.path), plan)
                return True
            _write(plan)
    return False


def append_job(plan: Plan, job: Job) -> Plan:
    """Adds a job to `plan.json`; the caller holds the lock of the folder.

    Raises:
        FiresegError: If the file cannot be written.
    """
    plan = replace(plan, jobs=(*plan.jobs, job))
    _write(plan)
    return plan


def _write(plan: Plan) -> None:
    content = {
        "format": FORMAT,
        "cwd": str(plan.cwd),
        "swept": list(plan.swept),
        "jobs": [asdict(job) for job in plan.jobs],
    }
    with atomic_write(plan.path / SWEEP_PLAN) as part:
        part.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _check_same(there: Plan, new: Plan) -> None:
    if not (differences := list(_compare(there, new))):
        return
    shown = differences[:_MAX_SHOWN]
    if num_more := len(differences) - len(shown):
        shown.append(f"{num_more} more")
    raise SettingError(
        f"hydra.sweep.dir: {new.path} holds another sweep: {'; '.join(shown)}; choose another folder for this one, "
        f"or continue that one: {format_command('sweep', 'run', new.path)}"
    )


def _compare(there: Plan, new: Plan) -> Iterator[str]:
    """Yields the differences of two plans as texts, each setting once with the jobs that it concerns."""
    if there.cwd != new.cwd:
        yield f"it was started in {there.cwd}, this one in {new.cwd}"
    names, new_names = ([(job.subdir, job.name) for job in plan.jobs] for plan in (there, new))
    if names != new_names:
        numbers = format_count(len(names), "job")
        lacking = [name or subdir for subdir, name in names if (subdir, name) not in new_names]
        added = [name or subdir for subdir, name in new_names if (subdir, name) not in names]
        yield f"{numbers} there, {len(new_names)} here"
        for label, some in (("only there", lacking), ("only here", added)):
            if some:
                yield f"{label}: {join_names(some, _MAX_SHOWN)}"
        return
    from fireseg.config.resume import compare_settings  # imports Hydra, which jobs do without

    jobs_of: dict[str, list[str]] = {}
    for job, other in zip(there.jobs, new.jobs, strict=True):
        for key, before, now in compare_settings(job.settings, other.settings):
            jobs_of.setdefault(f"{key} is {before} there and {now} here", []).append(str(job.number))
    for text, numbers in jobs_of.items():
        yield text + ("" if len(numbers) == len(new.jobs) else f" (job {join_names(numbers, _MAX_SHOWN)})")
