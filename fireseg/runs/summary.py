"""Reads what a run folder tells about its run: settings, outcome, cost, best score and evaluations."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from fireseg.console import format_command
from fireseg.errors import FiresegError, did_you_mean
from fireseg.files import (
    BEST_CHECKPOINT,
    FINAL_CHECKPOINT,
    LAST_CHECKPOINT,
    check_regular_file,
    load_tensors,
    read_error,
)
from fireseg.runs.folder import RunFolder, follow_latest

EVALUATION_FORMAT = 4
"""Format of `evaluation_<split>.json`; increased when earlier readers could not read the file."""

SPLITS = ("val", "test", "train")

_BUFFERS = frozenset({"mean", "std", "running_mean", "running_var", "num_batches_tracked", "class_weights"})
"""Last parts of the names of tensors in a checkpoint that are not trained."""

Results = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """A training run, as its folder tells it.

    Attributes:
        folder: Run folder.
        settings: Settings of the run, as in config.json.
        provenance: Content of run.json.
        rows: Metrics by epoch, as in metrics.jsonl.
        evaluations: Evaluations of its best model on its own patches, by split.
        stale: Reasons why further evaluations are not used, by split.
    """

    folder: RunFolder
    settings: dict[str, Any]
    provenance: dict[str, Any]
    rows: Sequence[Mapping[str, Any]]
    evaluations: Mapping[str, Results] = field(default_factory=dict)
    stale: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """Path of the run folder."""
        return self.folder.path

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.settings["seed"]

    @property
    def epochs(self) -> int:
        """Number of epochs trained."""
        return self.rows[-1]["epoch"] if self.rows else 0

    @cached_property
    def outcome(self) -> str:
        """Reason why the run has no final result; empty for a finished run."""
        status, total = self.provenance.get("tracked", {}).get("status"), self.settings["engine"]["epochs"]
        if self.rows and (status == "FINISHED" or (status is None and self._is_complete(total))):
            return ""
        after = f"after epoch {self.epochs} of {total}" if self.rows else "before the end of epoch 1"
        if status == "FAILED":
            return f"failed {after}; see {self.folder.log}"
        if "data" not in self.provenance:
            return f"failed at its start, or not begun; see {self.folder.log}"
        resumed = format_command("train", settings={"resume": self.path})
        return f"{'stopped' if status == 'KILLED' else 'running or killed'} {after}; continue with: {resumed}"

    def _is_complete(self, num_epochs: int) -> bool:
        """Returns True if the files of a run that noted no outcome are those of a finished run."""
        last, final = (_get_time(self.folder.checkpoints / name) for name in (LAST_CHECKPOINT, FINAL_CHECKPOINT))
        return self.epochs >= num_epochs or 0 < last <= final

    @cached_property
    def best(self) -> Mapping[str, Any]:
        """Metrics of the best model: of an epoch, the last one if none had a score or loss, or of a mean of weights."""
        if (swa := self.provenance.get("swa", {})).get("is_best"):
            return swa
        return next((row for row in reversed(self.rows) if row.get("best")), self.rows[-1] if self.rows else {})

    @property
    def best_epoch(self) -> int:
        """Epoch of the best model, the last one of a mean of weights; 0 without epochs."""
        return self.best.get("epoch", 0)

    @property
    def pruned_epoch(self) -> int:
        """Epoch after which the run was stopped because it was behind others of its sweep; 0 if it was not."""
        return self.provenance.get("pruned", {}).get("epoch", 0)

    @property
    def val_fire_iou(self) -> float:
        """Fire IoU of the best epoch over all pixels of val, 0 to 1; NaN if it is not defined."""
        value = self.best.get("val/fire_iou")
        return math.nan if value is None else value

    @property
    def val_loss(self) -> float:
        """Loss of the best epoch on val; NaN if it was no number."""
        value = self.best.get("val/loss")
        return math.nan if value is None else value

    @cached_property
    def num_parameters(self) -> int | None:
        """Number of trained parameters; None if it is not known."""
        if (number := self.provenance.get("model", {}).get("num_parameters")) is not None:
            return number
        # Runs of earlier versions: counted in the checkpoint.
        try:
            model = load_tensors(self.folder.checkpoints / BEST_CHECKPOINT)["model"]
        except (FiresegError, KeyError):
            return None
        return sum(value.numel() for name, value in model.items() if name.rpartition(".")[2] not in _BUFFERS)

    @property
    def seconds(self) -> float:
        """Training time of all epochs with validation, in seconds."""
        return sum(row.get("seconds") or 0.0 for row in self.rows)

    @property
    def peak_memory_bytes(self) -> int | None:
        """Peak memory on the accelerator, or that of the process on a CPU; None for runs of earlier versions."""
        peak = self.provenance.get("peak_memory", {})
        return peak.get("device_bytes") or peak.get("process_bytes")

    @property
    def data_key(self) -> tuple[Any, ...]:
        """Patches, fold and task: the scores of two runs are comparable only if these are equal."""
        task = self.settings["task"]
        return (
            self.provenance["data"]["fingerprint"],
            self.settings["data"].get("fold"),
            task["name"],
            tuple(task["class_names"]),
        )


def find_runs(folders: Sequence[Path]) -> list[RunFolder]:
    """Lists the run folders that are named or are in the sweep folders that are named, each once.

    Args:
        folders: Run folders and sweep folders.

    Raises:
        FiresegError: If a folder is neither; with all faults.
    """
    found: dict[Path, RunFolder] = {}
    faults = []
    for folder in map(follow_latest, folders):
        try:
            parts = [folder] if (folder / "config.json").is_file() else _list_jobs(folder)
        except OSError as error:
            faults.append(_describe_missing(folder, error))
            continue
        if not parts:
            faults.append(f"{folder}: no run folder, nor a folder of runs; runs are in outputs/ and multirun/")
        for part in parts:
            found.setdefault(part.resolve(), RunFolder(part))
    if faults:
        raise FiresegError(*faults)
    return list(found.values())


def _list_jobs(folder: Path) -> list[Path]:
    jobs = (part for part in folder.iterdir() if not part.is_symlink() and (part / "config.json").is_file())
    return sorted(jobs, key=lambda job: (_get_number(job.name), job.name))


def _get_number(name: str) -> float:
    """Returns the number that the name of a job of a sweep starts with."""
    number = name.partition("_")[0]
    return int(number) if number.isdecimal() else math.inf


def _describe_missing(folder: Path, error: OSError) -> str:
    try:
        siblings = [path.name for path in folder.parent.iterdir()]
    except OSError:
        siblings = []
    if isinstance(error, FileNotFoundError):
        return f"{folder}: no such folder{did_you_mean(folder.name, siblings)}; runs are in outputs/ and multirun/"
    return f"{folder}: cannot be read ({error.strerror or error}); give a run folder or a sweep folder"


def read_run(folder: RunFolder) -> RunSummary:
    """Reads a run folder, of this version or an earlier one.

    Args:
        folder: An existing run folder.

    Raises:
        FiresegError: If a file is damaged or cannot be read.
    """
    try:
        settings = json.loads(folder.config.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise FiresegError(f"{folder.config}: cannot be read ({error}); restore it, or delete the run") from error
    try:
        _ = settings["seed"], settings["engine"]["epochs"], settings["task"]["class_names"], settings["data"]
    except (LookupError, TypeError) as error:
        raise FiresegError(f"{folder.config}: no settings of a run of fireseg ({error} is missing)") from error
    summary = RunSummary(
        folder=folder, settings=settings, provenance=folder.read_provenance(), rows=folder.read_metrics()
    )
    evaluations, stale = {}, {}
    for split in SPLITS:
        path = folder.evaluation(split, "json")
        if not path.exists():
            continue
        results = read_evaluation(path)
        if results is None:
            stale[split] = f"{path}: of another version; evaluate again"
        elif (results["run"]["checkpoint"], results["run"]["epoch"]) != (BEST_CHECKPOINT, summary.best_epoch):
            stale[split] = f"{path}: not of the best model of the run; evaluate again"
        else:
            evaluations[split] = results
    return RunSummary(
        folder=folder,
        settings=settings,
        provenance=summary.provenance,
        rows=summary.rows,
        evaluations=evaluations,
        stale=stale,
    )


def read_evaluation(path: Path) -> Results | None:
    """Reads an evaluation; None if the file does not exist, has another format, or is damaged.

    Raises:
        FiresegError: If it cannot be read.
    """
    check_regular_file(path)
    try:
        results = json.loads(path.read_bytes())
        compared = TypeAdapter(_ComparedResults).validate_python(results)
        TypeAdapter(_Share).validate_python(compared.methods[0]["pixels"]["fire_iou"])
        TypeAdapter(dict[str, _Number]).validate_python(compared.methods[0]["unburned"])
    except (FileNotFoundError, ValueError, LookupError, TypeError, RecursionError):  # pydantic's are ValueErrors
        return None
    except OSError as error:
        raise read_error(path, error) from error
    return results


_Number = Annotated[float, Field(allow_inf_nan=False)] | None

_Share = Annotated[float, Field(ge=0, le=1)] | None


@dataclass(frozen=True, kw_only=True)
class _Fire:
    name: str
    iou: _Share
    truth_sha256: str


@dataclass(frozen=True, kw_only=True)
class _Run:
    name: str
    sha256: str
    task: str
    class_names: list[str]


@dataclass(frozen=True, kw_only=True)
class _Data:
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class _ComparedResults:
    """The part of an evaluation that a comparison with another run reads."""

    format: Literal[4]
    split: str
    run: _Run
    data: _Data
    methods: list[dict[str, Any]]
    fires: list[_Fire]


def list_differences(ours: Results, theirs: Results) -> list[str]:
    """Lists why two evaluations are not of the same labels of the same fires; empty if they are.

    Args:
        ours: An evaluation.
        theirs: Another one.
    """
    pairs = {
        "split": (ours["split"], theirs["split"]),
        "task": (ours["run"]["task"], theirs["run"]["task"]),
        "classes": (ours["run"]["class_names"], theirs["run"]["class_names"]),
        "input": tuple(results.get("inference", {}).get("input") for results in (ours, theirs)),
        "patches (fingerprint)": (ours["data"]["fingerprint"][:12], theirs["data"]["fingerprint"][:12]),
    }
    faults = [f"{what}: {our}, theirs {their}" for what, (our, their) in pairs.items() if our != their]
    labels = [{fire["name"]: fire["truth_sha256"] for fire in results["fires"]} for results in (ours, theirs)]
    for fire in sorted(labels[0].keys() | labels[1].keys()):
        if labels[0].get(fire) != labels[1].get(fire):
            faults.append(f"fire {fire}: {_describe_label_difference(fire, *labels)}")
    return faults


def _describe_label_difference(fire: str, ours: Mapping[str, str], theirs: Mapping[str, str]) -> str:
    if fire in ours and fire in theirs:
        return "labelled differently"
    return "only in ours" if fire in ours else "only in theirs"


def _get_time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
