"""Command line of `python -m fireseg.train`: one training run, or a sweep."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fireseg.errors import FiresegError, SettingError

if TYPE_CHECKING:
    from hydra.conf import HydraConf
    from omegaconf import DictConfig

    from fireseg.config import Preflight
    from fireseg.sweep.options import EngineOptions
    from fireseg.sweep.plan import Plan


def main() -> int:
    """Checks the command line, and trains one run, or all jobs of a sweep.

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

    # Errors of users are printed in one line each; a programming error should show its whole traceback.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    if is_launched():
        _join_processes()
    try:
        words, request = _read_request(sys.argv[1:])
        sys.argv[1:] = expand_home(words)
        checked = preflight(sys.argv[1:])
        if checked.is_multirun and is_launched():
            raise SettingError(
                "torchrun: several processes train a single run, but -m starts a sweep; leave out -m, or start the "
                "sweep with python -m fireseg.train"
            )
        if checked.is_multirun:
            return _run_sweep(checked, request)
        if request.given:
            raise SettingError(*(f"{name}: applies only to a sweep; add -m" for name in request.given))
        hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="train")(run_single)()
    except FiresegError as error:
        return _report(error)
    return 0


def run_single(cfg: DictConfig) -> None:
    """Trains one run; called by Hydra."""
    from hydra.core.hydra_config import HydraConfig

    from fireseg import config

    hydra_config = HydraConfig.get()
    try:
        settings = config.finalize(cfg, hydra_config.overrides.task)
        train_in_folder(settings, run_folder=_get_run_folder(hydra_config))
    except FiresegError as error:
        sys.exit(_report(error))  # Hydra prints an extra line for an exception


def train_in_folder(settings: dict[str, Any], *, run_folder: Path | None = None) -> None:
    """Creates or finds the folder of a run and trains in it.

    Args:
        settings: Checked settings.
        run_folder: Folder of the run, if its user chose it (`hydra.run.dir`); else one is created in output_dir.
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
    if run_folder is not None:
        _check_is_empty(run_folder)
        settings = {**settings, "output_dir": str(run_folder.parent)}
        folder = RunFolder(run_folder)
    else:
        folder = point.folder or RunFolder.create(Path(settings["output_dir"]), _name_folder(settings))
    is_new = point.folder is None
    try:
        with Interrupts() as interrupts, folder.locked(), folder.logging_to_file():
            train(settings, folder, point=point, interrupts=interrupts, processes=processes)
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


@dataclass(frozen=True, kw_only=True)
class _SweepRequest:
    """How the jobs of a sweep are run, and the names of the options that say so."""

    options: EngineOptions
    is_dry: bool
    given: tuple[str, ...]


def _read_request(words: Sequence[str]) -> tuple[list[str], _SweepRequest]:
    """Separates the options of sweeps from the words that Hydra understands."""
    from fireseg.sweep.options import EngineOptions, parse_engine_options, split_engine_options

    rest = [word for word in words if word != "--dry-run"]
    is_dry = len(rest) < len(words)
    rest, ours = split_engine_options(rest)
    given = (*(["--dry-run"] if is_dry else []), *(word.partition("=")[0] for word in ours if word.startswith("--")))
    options = parse_engine_options(ours) if ours else EngineOptions()
    return rest, _SweepRequest(options=options, is_dry=is_dry, given=given)


def _run_sweep(checked: Preflight, request: _SweepRequest) -> int:
    """Writes the plan of a sweep, or finds it in its folder, and runs what is missing."""
    from fireseg.runs.folder import create_folder
    from fireseg.sweep.plan import Job, Plan, settle_plan
    from fireseg.sweep.run import run_sweep

    folder = checked.sweep_dir
    if folder is None:
        name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
        folder = Path("multirun", name) if request.is_dry else create_folder(Path("multirun"), name)
    jobs = [
        Job(number=number, name=job.name, subdir=job.subdir, overrides=overrides, settings=job.settings)
        for number, (job, overrides) in enumerate(zip(checked.sweep_jobs, checked.jobs, strict=True))
    ]
    plan = Plan(path=folder, cwd=Path.cwd(), swept=checked.swept, jobs=tuple(jobs))
    if request.is_dry:
        sys.stdout.write("\n".join([*list_jobs(plan), ""]))
        return 0
    is_known = settle_plan(plan)
    sys.stdout.write("\n".join([*list_jobs(plan), ""]) if not is_known else f"{folder}: this sweep goes on\n")
    return run_sweep(plan, request.options)


def list_jobs(plan: Plan) -> list[str]:
    """Lists the jobs of a sweep with their folders."""
    from fireseg.console import format_count, format_table

    rows = [[str(job.number), job.name or "-", str(plan.get_folder(job).path)] for job in plan.jobs]
    table = format_table([["job", "settings", "folder"], *rows], align="><<")
    return [*table, f"{format_count(len(plan.jobs), 'job')} in {plan.path}"]
