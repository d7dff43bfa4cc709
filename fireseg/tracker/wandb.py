"""A run in W&B: the same content as in MLflow."""

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
from fireseg.tracker.protocol import Status, Tracker, finite, shorten, strip

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
) -> Tracker:
    """A tracker that tells W&B, or with `mode=offline` the folder `wandb/`, for `wandb sync` to send.

    A server that cannot be reached does not cost the training: the run is kept offline. One that goes
    away later is W&B's own affair, which writes everything to `wandb/` first.

    Args:
        project: The project that the run belongs to.
        entity: The user or team; None for one's own.
        mode: `online`, `offline` (no network at all) or `disabled`; None for WANDB_MODE, online where that is not set.
        run_name: What the run is called, in place of the name that it would get.

    Returns:
        A tracker for one run.

    Raises:
        FiresegError: If W&B is not installed, or WANDB_MODE is of no mode.

    Example:
        >>> tracker = create_wandb_tracker(project="burned-area", mode="offline")
    """
    if importlib.util.find_spec("wandb") is None:
        raise FiresegError(
            f"tracker.project: {project} is to be a project in W&B, which is not installed; "
            "pip install 'fireseg[wandb]', or choose tracker=mlflow"
        )
    return WandbTracker(project, entity, mode or _mode_from_environment(), run_name)


class WandbTracker:
    """One run in W&B. See `create_wandb_tracker`."""

    def __init__(self, project: str, entity: str | None, mode: WandbMode, run_name: str | None) -> None:
        self._project, self._entity, self._mode, self._run_name = project, entity, mode, run_name
        self._run: Run | None = None
        self._run_id = ""
        self._last_step = -1

    @property
    def run_ids(self) -> dict[str, str]:
        """`{"wandb": id}` once the run has begun."""
        return {"wandb": self._run_id} if self._run_id else {}

    def start(
        self,
        *,
        run_name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        dataset: Mapping[str, str],
        run_ids: Mapping[str, str] | None = None,
    ) -> None:
        """Begins a run, or takes up an earlier one. Offline that is a second folder with the same id.

        Raises:
            FiresegError: If W&B does not know who is asking, or refuses a setting.
        """
        run_id = (run_ids or {}).get("wandb")
        self._run = self._init(
            id=run_id or uuid.uuid4().hex[:12],
            name=self._run_name or run_name,
            config={**strip(params), "dataset": dict(dataset)},
            tags=[shorten(f"{key}={value}", _MAX_TAG) for key, value in tags.items()],
            group=tags.get("sweep"),
            allow_val_change=True,
        )
        if self._run.disabled:
            self._run = None
            return
        log.info("W&B: the run is at %s", self._run.url or self._run.dir)
        self._run_id = self._run.id
        # A score is plotted over epochs, not over W&B's own count of calls, which a resumed run shifts.
        self._run.define_metric("epoch")
        self._run.define_metric("*", step_metric="epoch")
        if run_id and self._run.resumed:
            self._last_step = int(self._run.summary.get("epoch", -1))

    def log(self, metrics: Mapping[str, float | None], step: int) -> None:
        """Records an epoch, unless the run that was resumed has told it before."""
        if step > self._last_step:
            self._last_step = step
            self._tell(lambda run: run.log({"epoch": step, **finite(metrics)}))

    def artifact(self, path: Path, folder: str = "") -> None:
        """Keeps a file: linked into W&B's folder, uploaded from there."""
        if path.exists():
            self._tell(lambda run: _link(run, path.absolute(), folder))

    def finish(self, status: Status) -> None:
        """Closes the run; W&B sends what it still has for up to two minutes, the rest stays for `wandb sync`."""
        self._tell(lambda run: run.finish(exit_code=_EXIT_CODES[status]))
        self._run = None

    def _tell(self, tell: Callable[[Run], object]) -> None:
        """Tells the run something; should W&B's own process have died, that is all that is lost."""
        if self._run is None:
            return
        wandb = _import_wandb()
        try:
            tell(self._run)
        except (wandb.Error, OSError) as error:
            log.warning(
                "W&B: %s; training goes on untracked there, every number stays in the run folder (metrics.jsonl)", error
            )
            self._run = None

    def _init(self, **run: Any) -> Run:
        wandb = _import_wandb()
        project = {"project": self._project, "entity": self._entity, "save_code": False, "settings": _settings()}
        try:
            resume = {"resume": "allow"} if self._mode == "online" else {}
            return wandb.init(mode=self._mode, **project, **run, **resume)
        except (wandb.errors.UsageError, wandb.errors.AuthenticationError) as error:  # no key, a wrong one, a bad name
            raise FiresegError(
                f"tracker.project: W&B does not take {self._project} ({error}); wandb login, or WANDB_MODE=offline"
            ) from error
        except (wandb.errors.CommError, OSError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            log.warning("W&B: %s; training goes on, the run is kept in wandb/ for `wandb sync`", first)
            wandb.teardown()  # its service still holds the id of the run that did not begin
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
    wished = os.environ.get("WANDB_MODE") or "online"
    modes = get_args(WandbMode)
    if wished not in modes:
        raise SettingError(f"WANDB_MODE: '{wished}', but it is {', '.join(modes)}{did_you_mean(wished, modes)}")
    return cast(WandbMode, wished)


def _settings() -> Settings:
    from wandb import Settings

    wished = {"console": "off", "init_timeout": _INIT_SECONDS, "finish_timeout": _FINISH_SECONDS}
    return Settings(**{name: value for name, value in wished.items() if name in Settings.model_fields})
