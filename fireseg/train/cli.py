"""Command line of `python -m fireseg.train`: one training run, or a sweep."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydra.conf import HydraConf
    from omegaconf import DictConfig

    from fireseg.config import Preflight
    from fireseg.errors import FiresegError

_failed_jobs: list[str] = []


def main() -> int:
    """Checks the command line and trains.

    Returns:
        The exit code: 0 on success, 2 for an invalid setting, 1 for another error. After Ctrl-C, SIGTERM or
        SIGHUP the process exits with 130, 143 or 129.
    """
    if sys.argv[1:] in (["--help"], ["-h"]):
        sys.stdout.write(_read_help())
        return 0
    import hydra

    from fireseg.config import CONF_DIR, preflight
    from fireseg.config.overrides import expand_home
    from fireseg.errors import FiresegError, SettingError

    # Errors of users are printed in one line each; a programming error should show its whole traceback.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    if is_launched():
        _join_processes()
    try:
        sys.argv[1:] = expand_home(sys.argv[1:])
        plan = preflight(sys.argv[1:])
        if plan.is_multirun and is_launched():
            raise SettingError(
                "torchrun: several processes train a single run, but -m starts a sweep; leave out -m, or start the "
                "sweep with python -m fireseg.train"
            )
        if plan.is_multirun:
            sys.argv += _sweep_overrides(plan)
        hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="train")(run_job)()
    except FiresegError as error:
        return _report(error)
    if _failed_jobs:
        names = ", ".join(_failed_jobs)
        print(f"fireseg: {len(_failed_jobs)} of {len(plan.jobs)} jobs failed: {names}", file=sys.stderr)
    return int(bool(_failed_jobs))


def run_job(cfg: DictConfig) -> None:
    """Trains one run, or one job of a sweep; called by Hydra and its launchers."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from fireseg import config
    from fireseg.errors import FiresegError

    hydra_config = HydraConfig.get()
    job_name = hydra_config.job.override_dirname
    is_sweep = hydra_config.mode == RunMode.MULTIRUN
    try:
        settings = config.finalize(cfg, hydra_config.overrides.task)
        if is_sweep:
            train_in_folder(settings, sweep_folder=Path(hydra_config.runtime.output_dir), job_name=job_name)
        else:
            train_in_folder(settings, run_folder=_get_run_folder(hydra_config))
    except FiresegError as error:
        # Hydra prints an extra line for an exception, and its launcher starts the next job only if this
        # one returns. Launchers that run jobs in other processes learn of a failure by the exception.
        if not is_sweep:
            sys.exit(_report(error))
        if not hydra_config.launcher._target_.endswith("BasicLauncher"):
            raise
        _report(error)
        _failed_jobs.append(job_name)


def train_in_folder(
    settings: dict[str, Any], *, run_folder: Path | None = None, sweep_folder: Path | None = None, job_name: str = ""
) -> None:
    """Creates or finds the folder of a run and trains in it.

    Args:
        settings: Checked settings.
        run_folder: Folder of a single run, if its user chose it (`hydra.run.dir`); else one is created in output_dir.
        sweep_folder: Folder of the job in a sweep; None for a single run.
        job_name: The overrides that differ between the jobs of a sweep.
    """
    # Imported here: torch and mlflow take seconds.
    from fireseg.console import start_logging
    from fireseg.engine import Interrupted, Interrupts, Processes
    from fireseg.runs.folder import ResumePoint, RunFolder, find_resume_point
    from fireseg.train.run import train, train_along

    processes = Processes.current()
    processes.check_shards(settings["engine"].get("shards", 1))
    if not processes.is_main:
        logging.getLogger("fireseg").disabled = True  # the main process logs the same
        try:
            with Interrupts() as interrupts:
                train_along(interrupts, processes)
        except Interrupted as request:
            sys.exit(request.exit_code)
        return
    start_logging()
    point = find_resume_point(Path(settings["resume"])) if settings["resume"] else ResumePoint()
    if sweep_folder is not None:
        folder = RunFolder(sweep_folder)
    elif run_folder is not None:
        _check_is_empty(run_folder)
        settings = {**settings, "output_dir": str(run_folder.parent)}
        folder = RunFolder(run_folder)
    else:
        folder = point.folder or RunFolder.create(Path(settings["output_dir"]), _name_folder(settings))
    is_new = sweep_folder is None and point.folder is None
    try:
        with Interrupts() as interrupts, folder.locked(), folder.logging_to_file():
            train(
                settings,
                folder,
                point=point,
                interrupts=interrupts,
                processes=processes,
                # Hydra names a single run by its overrides as well; the name of its folder says more.
                run_name=job_name,
                sweep="" if sweep_folder is None else sweep_folder.parent.name,
            )
    except Interrupted as request:
        sys.exit(request.exit_code)
    finally:
        # A start that failed leaves no run.json, and nothing was trained.
        if is_new and not folder.provenance.exists():
            shutil.rmtree(folder.path, ignore_errors=True)


def _get_run_folder(hydra_config: HydraConf) -> Path | None:
    """Returns the folder that `hydra.run.dir` names, or None for the value of conf/, with which Hydra makes none."""
    is_given = any(text.startswith("hydra.run.dir=") for text in hydra_config.overrides.hydra)
    if not is_given and hydra_config.run.dir == ".":
        return None
    folder, here = Path(hydra_config.runtime.output_dir), Path(hydra_config.runtime.cwd)
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def _check_is_empty(folder: Path) -> None:
    """Raises an error if a folder that is to become a run folder has content; Hydra has created it already."""
    from fireseg.console import format_command
    from fireseg.errors import SettingError

    if (folder / "config.json").exists():
        resumed = format_command("train", settings={"resume": folder})
        raise SettingError(
            f"hydra.run.dir: {folder} holds a run already; choose another folder, or continue: {resumed}"
        )
    if any(folder.iterdir()):
        raise SettingError(f"hydra.run.dir: {folder} holds other files; choose a new or empty folder")


def is_launched() -> bool:
    """Returns True if torchrun, or a launcher with the same environment variables, started several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()


def _join_processes() -> None:
    import atexit

    from fireseg.engine.distributed import connect, disconnect

    connect()
    atexit.register(disconnect)


def _report(error: FiresegError) -> int:
    """Prints an error, unless another process of the run was the first to do so, and returns the exit code."""
    from fireseg.console import print_error

    if is_launched():
        from fireseg.engine.distributed import is_first_report

        if not is_first_report(error):
            return error.exit_code
    return print_error(error)


def _read_help() -> str:
    """Reads the help text that Hydra would print, without the second that importing and composing takes."""
    from fireseg.config.targets import CONF_DIR, read_yaml

    return read_yaml(CONF_DIR / "hydra/help/fireseg.yaml")["template"] + "\n"


def _name_folder(settings: dict[str, Any]) -> str:
    model = settings["model"]
    return f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{settings['task']['name']}_{model['arch']}_{model['encoder']}"


def _sweep_overrides(plan: Preflight) -> list[str]:
    """Returns overrides that give a sweep its own folder and name its jobs only by what differs between them."""
    from fireseg.runs.folder import create_folder

    extra = []
    if plan.sweep_dir is None:
        folder = create_folder(Path("multirun"), f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
        extra.append(f"hydra.sweep.dir={folder}")
    keys = {override.partition("=")[0] for job in plan.jobs for override in job}
    fixed = sorted(keys - set(plan.swept)) if len(plan.jobs) > 1 else []
    return [*extra, f"hydra.job.config.override_dirname.exclude_keys=[{','.join(fixed)}]"]
