"""Writes the leaderboard of runs as a page, a table in Markdown and a CSV file."""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fireseg.console import format_count
from fireseg.files import atomic_write, convert_disk_errors
from fireseg.report.comparison import find_unevaluated, format_evaluations
from fireseg.report.options import ReportOptions
from fireseg.report.page import write_leaderboard_page
from fireseg.runs.leaderboard import Leaderboard, format_leaderboard, read_leaderboard, shorten_keys, tabulate

log = logging.getLogger("fireseg")

_NAME = "leaderboard"


def write_reports(options: ReportOptions) -> Path:
    """Reads and ranks runs and writes `leaderboard.html`, `leaderboard.csv` and `leaderboard.md`.

    Args:
        options: Options of the command.

    Returns:
        Folder of the files.

    Raises:
        FiresegError: If a folder holds no run, or the files cannot be written.
    """
    leaderboard = read_leaderboard(options.runs)
    folder = options.out or _choose_folder(options.runs[0])
    with convert_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for line in format_leaderboard(leaderboard):
        log.info("%s", line)
    _log_unevaluated(leaderboard, options.split)
    write_csv(leaderboard, folder / f"{_NAME}.csv", split=options.split)
    write_markdown(leaderboard, folder / f"{_NAME}.md", split=options.split)
    write_leaderboard_page(leaderboard, folder / f"{_NAME}.html", split=options.split, data=options.data)
    log.info("written: %s", ", ".join(str(folder / f"{_NAME}.{kind}") for kind in ("html", "csv", "md")))
    return folder


def _choose_folder(first: Path) -> Path:
    """Returns the first folder if it is a sweep folder, else the folder that the first run is in."""
    return first.parent if (first / "config.json").is_file() else first


def _log_unevaluated(leaderboard: Leaderboard, split: str) -> None:
    runs = [run for table in leaderboard.tables for run in find_unevaluated(table, split)]
    if not runs:
        return
    log.info("not evaluated on %s, so not compared fire by fire: %s", split, format_count(len(runs), "run"))
    for run in runs:
        if split in run.stale:
            log.warning("%s", run.stale[split])
    for command in format_evaluations(runs, split):
        log.info("  %s", command)


def write_csv(leaderboard: Leaderboard, path: Path, *, split: str) -> None:
    """Writes one row for each run, those that are not ranked at the end with the reason.

    Args:
        leaderboard: Ranked runs.
        path: CSV file to write.
        split: Split whose mean over fires is a column.
    """
    rows: list[dict[str, Any]] = []
    for number, table in enumerate(leaderboard.tables, start=1):
        short = shorten_keys(table.swept)
        for rank, entry in enumerate(table.entries, start=1):
            values = {short[key]: entry.values.get(key) for key in table.swept}
            for run in entry.runs:
                ious = [fire["iou"] for fire in run.evaluations.get(split, {}).get("fires", ())]
                known = [iou for iou in ious if iou is not None]
                rows.append(
                    {
                        "table": number,
                        "rank": rank,
                        "run": run.path,
                        **values,
                        "seed": run.seed,
                        "val_fire_iou": _nan_to_none(run.val_fire_iou),
                        "mean_of_seeds": _nan_to_none(entry.val_fire_iou),
                        "sd_of_seeds": _nan_to_none(entry.val_fire_iou_sd),
                        f"{split}_iou_over_fires": sum(known) / len(known) if known else None,
                        f"{split}_fires": len(known) or None,
                        "best_epoch": run.best_epoch,
                        "epochs": run.epochs,
                        "pruned_epoch": run.pruned_epoch or None,
                        "parameters": run.num_parameters,
                        "seconds": round(run.seconds, 1),
                        "peak_memory_bytes": run.peak_memory_bytes,
                        "fingerprint": table.fingerprint,
                        "fold": table.fold,
                        "task": table.task,
                    }
                )
    rows += [{"run": run, "not_ranked": reason} for run, reason in leaderboard.unranked]
    # Tables may have swept different settings: the columns of all, in the order of their first row.
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(path) as part:
        part.write_text(text.getvalue(), encoding="utf-8", newline="")


def _nan_to_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def write_markdown(leaderboard: Leaderboard, path: Path, *, split: str) -> None:
    """Writes the tables in Markdown, with the runs that are not ranked below them.

    Args:
        leaderboard: Ranked runs.
        path: Markdown file to write.
        split: Split whose mean over fires is a column.
    """
    lines = []
    for table in leaderboard.tables:
        lines += [f"## {_escape(table.title)}", "", *_format_rows(tabulate(table, split=split)), ""]
        lines += [f"Best run: `{table.best_run.path}`", ""]
    if leaderboard.unranked:
        lines += ["## Not ranked", ""]
        lines += [f"- `{run}`: {_escape(reason)}" for run, reason in leaderboard.unranked]
    with atomic_write(path) as part:
        part.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def _format_rows(rows: Sequence[Sequence[str]]) -> list[str]:
    heading, *others = ([_escape(cell) for cell in row] for row in rows)
    return [f"| {' | '.join(row)} |" for row in (heading, ["---", *["---:"] * (len(heading) - 1)], *others)]


def _escape(text: str) -> str:
    """Escapes the characters that end a cell or start markup."""
    return "".join(f"\\{letter}" if letter in "\\|`*_<>[]" else letter for letter in text)
