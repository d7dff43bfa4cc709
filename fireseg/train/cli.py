"""Door: one training run, or a sweep of them."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from fireseg import config
from fireseg.errors import FiresegError
from fireseg.runs.folder import create_folder

_failed: list[str] = []


def main() -> None:
    """Checks the command line, then trains what it asks for.

    Ends with 2 for a setting that cannot be, 1 for another fault, 130 or 143 where a signal ended it.
    """
    # Faults of our own making come with their whole trace; those of the user are one line each.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        plan = config.preflight(sys.argv[1:])
        if plan.is_multirun:
            sys.argv += _sweep_overrides(plan)
        job()
    except FiresegError as error:
        _say(error)
        sys.exit(error.exit_code)
    if _failed:
        print(f"fireseg: {len(_failed)} of {len(plan.jobs)} jobs failed: {', '.join(_failed)}", file=sys.stderr)
        sys.exit(1)


@hydra.main(version_base="1.3", config_path=str(config.CONF_DIR), config_name="train")
def job(cfg: DictConfig) -> None:
    """One run; of a sweep, one of its jobs."""
    hydra_config = HydraConfig.get()
    is_sweep = hydra_config.mode == RunMode.MULTIRUN
    try:
        settings = config.finalize(cfg, hydra_config.overrides.task)
        run_job(
            settings, Path(hydra_config.runtime.output_dir) if is_sweep else None, hydra_config.job.override_dirname
        )
    except FiresegError as error:
        # Hydra's own launcher goes on with the next job if this one returns; other launchers run
        # jobs in processes of their own and are told by the exception.
        if not is_sweep:
            _say(error)
            sys.exit(error.exit_code)
        if not hydra_config.launcher._target_.endswith("BasicLauncher"):
            raise
        _say(error)
        _failed.append(hydra_config.job.override_dirname)


def run_job(settings: dict[str, Any], sweep_folder: Path | None, swept: str) -> None:
    """Finds the run its folder, and trains in it.

    Args:
        settings: The checked settings.
        sweep_folder: The job's folder in a sweep, None for a run of its own.
        swept: What sets the job apart from the others of its sweep.
    """
    # Only now: a second or ten that --help need not wait for.
    from fireseg.console import start_logging
    from fireseg.engine import Interrupted, Interrupts
    from fireseg.runs.folder import ResumePoint, RunFolder, find_resume_point
    from fireseg.train.run import train

    start_logging()
    point = find_resume_point(Path(settings["resume"])) if settings["resume"] else ResumePoint(None, None, None)
    tags: dict[str, str] = {}
    run_name = ""
    if sweep_folder is not None:
        folder, tags, run_name = RunFolder(sweep_folder), {"sweep": sweep_folder.parent.name}, swept
    elif point.folder is not None:
        folder = point.folder
    else:
        folder = RunFolder.create(Path(settings["output_dir"]), _folder_name(settings))
    try:
        with Interrupts() as interrupts, folder.locked(), folder.logging_to_file():
            train(
                settings,
                folder,
                point=point,
                interrupts=interrupts,
                run_name=settings["tracker"].get("run_name") or run_name,
                tags=tags,
            )
    except Interrupted as request:
        sys.exit(request.exit_code)


def _folder_name(settings: dict[str, Any]) -> str:
    model = settings["model"]
    return f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{settings['task']['name']}_{model['arch']}_{model['encoder']}"


def _sweep_overrides(plan: config.Preflight) -> list[str]:
    """Gives a sweep a folder of its own, and its jobs names that say only what differs between them."""
    extra = []
    if not any(argument.startswith("hydra.sweep.dir=") for argument in sys.argv):
        folder = create_folder(Path("multirun"), f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
        extra.append(f"hydra.sweep.dir={folder}")
    typed = {override.partition("=")[0] for job in plan.jobs for override in job}
    fixed = sorted(typed - set(plan.swept)) if len(plan.jobs) > 1 else []
    return [*extra, f"hydra.job.config.override_dirname.exclude_keys=[{','.join(fixed)}]"]


def _say(error: FiresegError) -> None:
    for fault in error.faults:
        print(f"fireseg: {fault}", file=sys.stderr)
