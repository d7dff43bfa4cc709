"""Reports runs to W&B, with the same content as in MLflow."""

from __future__ import annotations

import glob
import importlib.util
import logging
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args

from pydantic import Field

from fireseg.errors import FiresegError, SettingError, did_you_mean
from fireseg.files import CHECKPOINT_FOLDER
from fireseg.tracker.protocol import Status, TrackedModel, TrackedRun, finite, shorten, strip

if TYPE_CHECKING:
    from wandb import Run, Settings


WandbMode = Literal["online", "offline", "disabled"]

log = logging.getLogger("fireseg")

_MAX_TAG = 64

_INIT_SECONDS = 30.0

_FINISH_SECONDS = 120.0

_EXIT_CODES: dict[Status, int] = {"FINISHED": 0, "FAILED": 1, "KILLED": 130}


def create_wandb_tracker(
    *,
    project: Annotated[str, Field(min_length=1, max_length=128)] = "fireseg",
    entity: str | None = None,
    mode: WandbMode | None = None,
    run_name: str | None = None,
) -> WandbTracker:
    """Creates a tracker that reports to W&B, or with `mode=offline` to the folder `wandb/`, for `wandb sync`.

    A server that cannot be reached does not stop the training: the run is recorded offline. W&B itself
    handles a server that fails later, because it writes everything to `wandb/` first.

    Args:
        project: The project of the run.
        entity: The user or team; None for the default one of the account.
        mode: `online`, `offline` (no network at all) or `disabled`; None for WANDB_MODE, or online if that is not set.
        run_name: Display name of the run, in place of the default one.

    Returns:
        A tracker for one run.

    Raises:
        FiresegError: If W&B is not installed, or WANDB_MODE is invalid.

    Example:
        >>> tracker = create_wandb_tracker(project="burned-area", mode="offline")
    """
    if importlib.util.find_spec("wandb") is None:
        raise FiresegError(
            f"tracker.project: {project}: W&B is not installed; pip install 'fireseg[wandb]', or choose tracker=mlflow"
        )
    return WandbTracker(project, entity, mode or _mode_from_environment(), run_name)


class WandbTracker:
    """Sends one run to W&B; see `create_wandb_tracker`."""

    def __init__(self, project: str, entity: str | None, mode: WandbMode, run_name: str | None) -> None:
        self._project, self._entity, self._mode, self._run_name = project, entity, mode, run_name
        self._run: Run | None = None
        self._record: TrackedRun | None = None
        self._run_id = ""
        self._last_epoch = 0
        self._has_failed = False

    @property
    def run_ids(self) -> dict[str, str]:
        """`{"wandb": id}` once the run has started."""
        return {"wandb": self._run_id} if self._run_id else {}

    @property
    def is_complete(self) -> bool:
        """True unless W&B's process has died; everything before that is at least in `wandb/`."""
        return not self._has_failed

    def start(self, run: TrackedRun, run_ids: Mapping[str, str] | None = None) -> None:
        """Starts a run, or continues an earlier one; offline, that makes a second folder with the same id.

        Raises:
            FiresegError: If W&B accepts neither the account nor a setting.
        """
        run_id = (run_ids or {}).get("wandb")
        self._record = run
        self._run = self._init(
            id=run_id or uuid.uuid4().hex[:12],
            name=self._run_name or run.name,
            config={**strip(run.params), "dataset": dict(run.dataset)},
            tags=[shorten(f"{key}={value}", _MAX_TAG) for key, value in run.tags.items()],
            group=run.tags.get("sweep"),
            allow_val_change=True,
        )
        if self._run.disabled:
            self._run = None
            return
        log.info("W&B: the run is at %s", self._run.url or self._run.dir)
        self._run_id = self._run.id
        # Charts use the epoch as their axis, because W&B's own count of calls shifts when a run is resumed.
        self._run.define_metric("epoch")
        self._run.define_metric("*", step_metric="epoch")
        if run_id and self._run.resumed:
            self._last_epoch = int(self._run.summary.get("epoch", 0))
        elif run_id and self._run.offline:  # every earlier epoch is in the folder of the earlier process
            self._last_epoch = max((epoch for epoch, _ in run.read_epochs()), default=0)

    def sync(self) -> None:
        """Sends the epochs that were not sent before."""
        if self._run is None or self._record is None:
            return
        for epoch, metrics in self._record.read_epochs():
            if epoch > self._last_epoch:
                self._last_epoch = epoch
                row = {"epoch": epoch, **finite(metrics)}
                self._call(lambda run, row=row: run.log(row))

    def artifact(self, path: Path, folder: str = "") -> None:
        """Sends a file: linked into W&B's folder, uploaded from there."""
        if path.exists():
            self._call(lambda run: _link(run, path.absolute(), folder))

    def model(self, checkpoint: Path, describe: Callable[[], TrackedModel]) -> None:
        """Sends the best checkpoint as a file."""
        self.artifact(checkpoint, CHECKPOINT_FOLDER)

    def finish(self, status: Status) -> None:
        """Ends the run; W&B sends for up to two minutes, and `wandb sync` sends the rest later."""
        self._call(lambda run: run.finish(exit_code=_EXIT_CODES[status]))
        self._run = None

    def _call(self, function: Callable[[Run], object]) -> None:
        """Calls a function on the run; if W&B's process has died, only the tracking by W&B ends."""
        if self._run is None:
            return
        wandb = _import_wandb()
        try:
            function(self._run)
        except (wandb.Error, OSError) as error:
            log.warning(
                "W&B: %s; training continues without W&B, all results are in the run folder (metrics.jsonl)", error
            )
            self._run, self._has_failed = None, True

    def _init(self, **run: Any) -> Run:
        wandb = _import_wandb()
        project = {"project": self._project, "entity": self._entity, "save_code": False, "settings": _settings()}
        try:
            resume = {"resume": "allow"} if self._mode == "online" else {}
            return wandb.init(mode=self._mode, **project, **run, **resume)
        except (
            wandb.errors.UsageError,
            wandb.errors.AuthenticationError,
        ) as error:  # no API key, a wrong one, an invalid name
            raise FiresegError(
                f"tracker.project: W&B refuses {self._project} ({error}); run `wandb login`, or set WANDB_MODE=offline"
            ) from error
        except (wandb.errors.CommError, OSError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            log.warning("W&B: %s; training continues, the run is recorded in wandb/ for `wandb sync`", first)
            wandb.teardown()  # its process still holds the id of the run that did not start
            return wandb.init(mode="offline", **project, **run)


def _import_wandb() -> Any:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # no crash reports to a third party
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    return wandb


def _link(run: Run, path: Path, folder: str) -> None:
    root = Path(run.dir)
    link = root / folder / path.name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(path)
    run.save(glob.escape(str(link)), base_path=str(root), policy="now")


def _mode_from_environment() -> WandbMode:
    mode = os.environ.get("WANDB_MODE") or "online"
    modes = get_args(WandbMode)
    if mode not in modes:
        raise SettingError(f"WANDB_MODE: '{mode}', but it must be {', '.join(modes)}{did_you_mean(mode, modes)}")
    return cast(WandbMode, mode)


def _settings() -> Settings:
    from wandb import Settings

    values = {"console": "off", "init_timeout": _INIT_SECONDS, "finish_timeout": _FINISH_SECONDS}
    return Settings(**{name: value for name, value in values.items() if name in Settings.model_fields})
