"""Ranks runs by their score on val, with what they cost; runs that differ only in the seed are one entry."""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from fireseg.console import format_interval, format_score, format_seconds, format_table
from fireseg.errors import FiresegError
from fireseg.runs.summary import RunSummary, find_runs, read_run
from fireseg.tracker.protocol import flatten

if TYPE_CHECKING:
    from fireseg.metric import Interval

_WITHOUT_EFFECT = (
    *("task", "tracker", "checkpoint", "output_dir", "resume", "seed", "parent"),
    *("data.root", "data.fold", "data.maker", "data.num_workers", "data.on_bad", "data.allow_leaks"),
    *("model.bands", "model.in_channels", "model.num_classes", "engine.threads", "engine.accumulate"),
)
"""Settings that are no columns: they do not change the result, follow from others, or separate the tables."""

_PLAIN_VALUES = frozenset({"arch", "encoder", "optimizer", "scheduler", "task"})
"""Last parts of the keys whose values say what they are without the key."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Runs that differ only in their seed.

    Attributes:
        values: Value of each swept setting as text, by key; settings that the runs do not have are left out.
        runs: The runs, by seed.
    """

    values: Mapping[str, str]
    runs: tuple[RunSummary, ...]

    @cached_property
    def label(self) -> str:
        """The swept settings in words; arch and encoder if nothing was swept."""
        model = self.runs[0].settings["model"]
        return format_settings(self.values) or f"{model.get('arch')} {model.get('encoder')}"

    @property
    def val_fire_iou(self) -> float:
        """Mean over the seeds of the fire IoU on val, over all pixels, 0 to 1; NaN if a run has none."""
        return statistics.fmean(run.val_fire_iou for run in self.runs)

    @property
    def val_fire_iou_sd(self) -> float:
        """Standard deviation of that over the seeds; NaN for one run."""
        values = [run.val_fire_iou for run in self.runs]
        return statistics.stdev(values) if len(values) > 1 and not math.isnan(sum(values)) else math.nan

    @property
    def best_run(self) -> RunSummary:
        """Run with the highest fire IoU on val."""
        return min(self.runs, key=_rank)

    @property
    def num_parameters(self) -> int | None:
        """Number of trained parameters; None if it is not known."""
        return self.runs[0].num_parameters

    @property
    def seconds(self) -> float:
        """Mean training time of a run in seconds."""
        return statistics.fmean(run.seconds for run in self.runs)

    @property
    def peak_memory_bytes(self) -> int | None:
        """Highest peak memory of the runs; None if one is not known."""
        peaks = [run.peak_memory_bytes for run in self.runs]
        return None if None in peaks else max(peak for peak in peaks if peak is not None)

    def fire_ious(self, split: str) -> dict[str, float] | None:
        """Returns the IoU of each fire of a split, the mean over the seeds; None if a run is not evaluated on it.

        Args:
            split: Evaluated split.
        """
        if not all(split in run.evaluations for run in self.runs):
            return None
        fires: dict[str, list[float]] = defaultdict(list)
        for run in self.runs:
            for fire in run.evaluations[split]["fires"]:
                fires[fire["name"]].append(math.nan if fire["iou"] is None else fire["iou"])
        return {name: statistics.fmean(values) for name, values in fires.items()}

    def fire_interval(self, split: str) -> Interval | None:
        """Returns the mean IoU over the fires of a split with its interval; None if a run is not evaluated on it.

        Args:
            split: Evaluated split.
        """
        ious = self.fire_ious(split)
        if ious is None:
            return None
        from fireseg.metric import estimate_mean  # torch takes seconds to import

        return estimate_mean(list(ious.values()))


@dataclass(frozen=True, kw_only=True)
class Table:
    """Entries whose scores are comparable: of one task on the same patches and fold.

    Attributes:
        task: Name of the task.
        fingerprint: Fingerprint of the patches.
        fold: Fold of a cross-validation; None without folds.
        root: Folder of the patches at the time of the training.
        swept: Keys of the settings that differ between the entries.
        entries: Best first.
    """

    task: str
    fingerprint: str
    fold: int | None
    root: str
    swept: tuple[str, ...]
    entries: tuple[Entry, ...]

    @property
    def title(self) -> str:
        """Task, patches and fold in words."""
        fold = "" if self.fold is None else f", fold {self.fold}"
        return f"task {self.task}, patches {self.root} (fingerprint {self.fingerprint[:12]}){fold}"

    @property
    def best_run(self) -> RunSummary:
        """Best run of the first entry."""
        return self.entries[0].best_run

    @property
    def num_runs(self) -> int:
        """Number of ranked runs."""
        return sum(len(entry.runs) for entry in self.entries)


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """Ranked runs, one table for each set of comparable scores, and the runs that are not ranked.

    Attributes:
        tables: Tables, that with most runs first.
        unranked: Folder of each other run, and the reason.
    """

    tables: tuple[Table, ...]
    unranked: tuple[tuple[Path, str], ...]


def read_leaderboard(folders: Sequence[Path]) -> Leaderboard:
    """Reads and ranks runs.

    Entries are ranked by `val/fire_iou` of their best epoch, over all pixels of val; the mean over seeds. Runs of
    other patches, folds or tasks have a table of their own.

    Args:
        folders: Run folders, and sweep folders with the run folders of their jobs.

    Raises:
        FiresegError: If a folder holds no run.
    """
    groups: dict[tuple[object, ...], list[RunSummary]] = defaultdict(list)
    unranked: list[tuple[Path, str]] = []
    for folder in find_runs(folders):
        try:
            run = read_run(folder)
        except FiresegError as error:
            unranked.append((folder.path, "; ".join(error.faults)))
            continue
        if run.outcome:
            unranked.append((run.path, run.outcome))
        else:
            groups[run.data_key].append(run)
    tables = []
    for runs in groups.values():
        table, repeated = _make_table(runs)
        tables.append(table)
        unranked += repeated
    return Leaderboard(
        tables=tuple(sorted(tables, key=lambda table: -table.num_runs)),
        unranked=tuple(unranked),
    )


def _make_table(runs: Sequence[RunSummary]) -> tuple[Table, list[tuple[Path, str]]]:
    flat = [_flatten(run) for run in runs]
    swept = find_swept(flat)
    groups: dict[tuple[str | None, ...], dict[int, RunSummary]] = defaultdict(dict)
    repeated = []
    for run, values in zip(runs, flat, strict=True):
        seeds = groups[tuple(values.get(key) for key in (*swept, "parent"))]
        if (earlier := seeds.setdefault(run.seed, run)) is not run:
            repeated.append((run.path, f"the same settings and seed as {earlier.path}, which is ranked"))
    entries = [
        Entry(
            values={key: value for key, value in zip(swept, values, strict=False) if value is not None},
            runs=tuple(seeds[seed] for seed in sorted(seeds)),
        )
        for values, seeds in groups.items()
    ]
    fingerprint, fold, task, _ = runs[0].data_key
    root = runs[0].provenance["data"]["root"]
    table = Table(
        task=task,
        fingerprint=fingerprint,
        fold=fold,
        root=" and ".join(root) if isinstance(root, list) else root,
        swept=swept,
        entries=tuple(sorted(entries, key=_rank)),
    )
    return table, repeated


def _rank(scored: Entry | RunSummary) -> tuple[bool, float]:
    """Returns a sort key: the highest fire IoU first, and those without one by the lowest loss at the end."""
    iou = scored.val_fire_iou
    if not math.isnan(iou):
        return False, -iou
    losses = [run.val_loss for run in ([scored] if isinstance(scored, RunSummary) else scored.runs)]
    loss = statistics.fmean(losses)
    return True, math.inf if math.isnan(loss) else loss


def _flatten(run: RunSummary) -> dict[str, str]:
    """Returns the settings of a run as text by dotted key, in the words of the command line."""
    settings = run.settings
    flat = {key: _format_value(value) for key, value in flatten(settings).items()}
    for group in ("optimizer", "scheduler"):
        node = settings.get(group) or {}
        flat[group] = str(node.get("_target_", "none")).rpartition(".")[2]
    # A batch that is accumulated over several steps is one batch.
    accumulated = settings["engine"].get("accumulate", 1)
    if isinstance(size := settings["data"].get("batch_size"), int) and isinstance(accumulated, int):
        flat["data.batch_size"] = str(size * accumulated)
    # Runs of earlier versions had no teacher, and one that was trained again is another one.
    labels = run.provenance.get("self_training")
    flat["data.teacher"] = f"{Path(labels['teacher']).name} {labels['teacher_sha256'][:8]}" if labels else "none"
    if parent := run.provenance.get("parent"):
        flat["parent"] = str(parent)
    return flat


def _format_value(text: str) -> str:
    """Converts the JSON text of a value to words: `["B02", "B03"]` to `B02 B03`, `null` to `none`."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    if value is None:
        return "none"
    return " ".join(map(str, value)) if isinstance(value, list) else text


def find_swept(settings: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Finds the settings of which runs have different values, in the order of the settings.

    A setting that some runs do not have, as those of an earlier version or another optimizer, counts only if the
    others differ in it.

    Args:
        settings: Settings of each run as text by dotted key.

    Example:
        >>> find_swept([{"model.encoder": "a", "seed": "0"}, {"model.encoder": "b", "seed": "1"}])
        ('model.encoder',)
    """
    values: dict[str, set[str]] = defaultdict(set)
    for flat in settings:
        for key, value in flat.items():
            values[key].add(value)
    return tuple(key for key, each in values.items() if len(each) > 1 and not _has_no_effect(key))


def _has_no_effect(key: str) -> bool:
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in _WITHOUT_EFFECT)


def shorten_keys(keys: Iterable[str]) -> dict[str, str]:
    """Returns the shortest end of each dotted key that no other key has.

    Example:
        >>> shorten_keys(["model.encoder", "strong.flip", "standard.flip"])
        {'model.encoder': 'encoder', 'strong.flip': 'strong.flip', 'standard.flip': 'standard.flip'}
    """
    parts = {key: key.split(".") for key in keys}
    short = {}
    for key, own in parts.items():
        for length in range(1, len(own) + 1):
            short[key] = ".".join(own[-length:])
            if not any(other != key and names[-length:] == own[-length:] for other, names in parts.items()):
                break
    return short


def format_settings(values: Mapping[str, str]) -> str:
    """Formats settings as a short name.

    Args:
        values: Value as text by dotted key.

    Example:
        >>> format_settings({"model.encoder": "resnet18", "optimizer.lr": "0.001", "seed": "1"})
        'resnet18, lr 0.001, seed 1'
    """
    short = shorten_keys(values)
    return ", ".join(value if short[key] in _PLAIN_VALUES else f"{short[key]} {value}" for key, value in values.items())


def format_leaderboard(leaderboard: Leaderboard) -> list[str]:
    """Formats the tables, the best run of each, and the runs that are not ranked, for the terminal.

    Args:
        leaderboard: Ranked runs.
    """
    lines = []
    if len(leaderboard.tables) > 1:
        lines.append("runs on different patches, folds or tasks are not comparable: one table each")
    for table in leaderboard.tables:
        if len(leaderboard.tables) > 1:
            lines += ["", table.title]
        rows, num_texts = tabulate(table), 1 + max(len(table.swept), 1)
        lines += format_table(rows, align="<" * num_texts + ">" * (len(rows[0]) - num_texts))
        lines.append(f"best run: {table.best_run.path}")
    if leaderboard.unranked:
        lines += ["not ranked:", *(f"  {path}: {reason}" for path, reason in leaderboard.unranked)]
    return lines


def tabulate(table: Table, *, split: str | None = None) -> list[list[str]]:
    """Returns the cells of a table, the heading first; columns in which no entry has a value are left out.

    Args:
        table: Ranked entries.
        split: Split whose mean over fires is shown besides that of val.
    """
    short = shorten_keys(table.swept)
    splits = ["val", *([split] if split not in (None, "val") else [])]
    columns: dict[str, list[str]] = {"": [str(rank) for rank, _ in enumerate(table.entries, start=1)]}
    if not table.swept:
        columns["model"] = [entry.label for entry in table.entries]
    for key in table.swept:
        columns[short[key]] = [entry.values.get(key, "-") for entry in table.entries]
    columns["val fire IoU"] = [format_seeds(entry) for entry in table.entries]
    for name in splits:
        cells = [_format_fires(entry, name) for entry in table.entries]
        if any(cell != "-" for cell in cells):
            columns[f"IoU over fires, {name}"] = cells
    columns["best epoch"] = [format_epochs(entry) for entry in table.entries]
    columns["parameters"] = [format_parameters(entry.num_parameters) for entry in table.entries]
    columns["time"] = [format_seconds(entry.seconds) for entry in table.entries]
    columns["peak memory"] = [format_memory(entry.peak_memory_bytes) for entry in table.entries]
    return [list(columns), *map(list, zip(*columns.values(), strict=True))]


def format_seeds(entry: Entry) -> str:
    """Formats the score of an entry: `0.812`, or `0.812 ± 0.011 (n = 3)` over seeds."""
    score = format_score(entry.val_fire_iou)
    if len(entry.runs) == 1:
        return score
    return f"{score} ± {format_score(entry.val_fire_iou_sd)} (n = {len(entry.runs)})"


def _format_fires(entry: Entry, split: str) -> str:
    interval = entry.fire_interval(split)
    return "-" if interval is None else format_interval(interval._asdict())


def format_epochs(entry: Entry) -> str:
    """Formats the best epoch of an entry, or the range of its seeds, and the fact that a run was pruned."""
    epochs = sorted({run.best_epoch for run in entry.runs})
    text = str(epochs[0]) if len(epochs) == 1 else f"{epochs[0]}-{epochs[-1]}"
    pruned = sorted({run.pruned_epoch for run in entry.runs if run.pruned_epoch})
    return f"{text}, pruned at {', '.join(map(str, pruned))}" if pruned else text


def format_parameters(number: int | None) -> str:
    """Formats a number of parameters.

    Example:
        >>> format_parameters(14_330_000), format_parameters(950_000), format_parameters(None)
        ('14.3 M', '0.95 M', '-')
    """
    if number is None:
        return "-"
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number / 1e6:.2f} M"


def format_memory(number: int | None) -> str:
    """Formats a number of bytes in GB of 10^9 bytes.

    Example:
        >>> format_memory(1_234_000_000), format_memory(None)
        ('1.2 GB', '-')
    """
    return "-" if number is None else f"{number / 1e9:.1f} GB"
