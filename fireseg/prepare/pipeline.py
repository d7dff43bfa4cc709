"""Pipeline of `prepare`: plans, cuts, audits and publishes; and formats the summary printed at the end."""

from __future__ import annotations

import logging
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fireseg.console import format_command, format_count, format_seconds, format_share, format_table
from fireseg.data.bands import BAND_NAMES
from fireseg.data.format import JOURNAL_NAME
from fireseg.data.patches import ALL, SPLITS, Fault
from fireseg.errors import FiresegError, SettingError
from fireseg.files import convert_disk_errors
from fireseg.prepare.audit import Audit
from fireseg.prepare.cut_job import CutJob, list_changed
from fireseg.prepare.footprints import Footprint
from fireseg.prepare.journal import Journal, TileRecord, check_no_differences, check_same_header
from fireseg.prepare.options import PrepareOptions, TilingOptions
from fireseg.prepare.output import AUDIT, UNFINISHED, StagingFolder, sum_left_out, write_tables
from fireseg.prepare.plan import (
    Plan,
    apply_splits,
    assign_splits,
    audit_parts,
    audit_splits,
    check_leaks,
    make_journal_header,
    make_plan,
    note_unknown_activations,
)
from fireseg.prepare.split import get_fold_split
from fireseg.prepare.workers import run_in_order, track_tiles
from fireseg.task import IGNORE_INDEX

log = logging.getLogger("fireseg")

REPORT = "report.html"

_MISSING = {
    "DEL": "without DEL: labelled only by GRA",
    "GRA": "without GRA: not used by task=gra",
    "CM": "without CM: clouds unknown",
    "LC": "without land cover",
    "json": "without json",
}

_MAX_FLAGS = 10

_MAX_WINDOW_SHARE = 0.6
"""Side of a window relative to that of its tile above which a model can learn the position of fires."""

_MIN_WINDOW_PX = 64
"""Smallest window that is advised; smaller ones show too little of the surroundings."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a run.

    Attributes:
        faults: Faults of tiles, one line each.
        was_finished: True if the output folder was finished before.
    """

    faults: tuple[str, ...]
    was_finished: bool


def prepare(options: PrepareOptions, *, write_report: Callable[[Path], None] | None = None) -> Outcome:
    """Cuts tiles into patches, or continues an interrupted run; does nothing if the output folder is finished.

    Args:
        options: Options of the command.
        write_report: Called with the finished output folder unless it contains a report.html.

    Raises:
        FiresegError: If the user must correct something; finished tiles are kept.
    """
    if options.tiles is None or options.patches is None:
        raise SettingError("tiles, patches: both folders are required")
    plan = make_plan(options.tiles, options)
    output = StagingFolder(options.patches)
    with output.locked(), convert_disk_errors(output.folder):
        was_finished = output.state == "finished"
        start = _start if output.state == "new" else _resume
        journal, plan = start(output, plan, options)
        if output.state == "unfinished":
            _cut_tiles(output, journal, plan, options)
            _finish(output, journal, plan, options)
        if output.state == "publish":
            output.publish()
        output.remove_staging()
        report = output.folder / REPORT
        if write_report is not None and not report.exists():
            write_report(output.folder)
    if was_finished:
        log.info("%s: already finished with the same tiles and options; nothing to do", output.folder)
    else:
        for line in format_summary(journal, output.folder, options.tiling):
            log.info("%s", line)
        for note in note_unknown_activations(journal.tiles, options):
            log.info("check %s", note)
    if report.exists():
        log.info("report: %s", report)
    log.info("next: %s", _next_command(output.folder, options))
    return Outcome(faults=tuple(_list_faults(journal, plan.other_faults)), was_finished=was_finished)


def _start(output: StagingFolder, plan: Plan, options: PrepareOptions) -> tuple[Journal, Plan]:
    """Assigns the splits and writes them to a new journal."""
    for note in note_unknown_activations(plan.tiles, options):
        log.warning("%s", note)
    plan, result = assign_splits(plan, options)
    for note in result.notes if result.is_clean else ():  # otherwise they are printed with the leaks
        log.warning("%s", note)
    _check_leaks(result, plan, options)
    header = make_journal_header(plan, options)
    return Journal.create(output.staging / JOURNAL_NAME, header), apply_splits(plan, header)


def _resume(output: StagingFolder, plan: Plan, options: PrepareOptions) -> tuple[Journal, Plan]:
    """Reads the journal and checks that options and tiles are the same."""
    journal = Journal(output.journal_path)
    check_same_header(journal.header, make_journal_header(plan, options), output.folder)
    plan = apply_splits(plan, journal.header)
    if output.state != "unfinished" and len(journal.tiles) != len(plan.tiles):
        raise FiresegError(
            f"{journal.path}: {len(journal.tiles)} of {len(plan.tiles)} tiles, although the folder is finished; "
            "delete the folder and prepare again"
        )
    changed = [
        f"{path}, which has changed since"
        for files, record in zip(plan.tiles, journal.tiles, strict=False)
        for path in list_changed(record, files, plan.root, options.tiling)
    ]
    check_no_differences(output.folder, changed)
    if output.state == "unfinished":
        log.info("%s: continuing after %d of %d tiles", output.folder, len(journal.tiles), len(plan.tiles))
    return journal, plan


def _cut_tiles(output: StagingFolder, journal: Journal, plan: Plan, options: PrepareOptions) -> None:
    """Cuts the remaining tiles. A tile is finished as soon as its line is in the journal."""
    store = options.tiling.open_writer(output.staging)
    names = journal.patch_names()
    store.truncate(names)
    counts = {split: len(patches) for split, patches in names.items()}

    def get_position(tile: TileRecord) -> int:
        first = counts.get(tile.split, 0)
        counts[tile.split] = first + len(tile.rows)
        return first

    job = CutJob(plan.root, plan.tiles, options.tiling, store, metadata=plan.metadata)
    remaining = range(len(journal.tiles), len(plan.tiles))
    with track_tiles(len(plan.tiles), done=len(journal.tiles)) as progress:
        for _, tile in run_in_order(job, remaining, get_position, workers=options.workers):
            journal.append(tile)
            progress.advance(f"{sum(counts.values()):,} patches")
    log.debug("cut in %s", format_seconds(progress.seconds))


def _finish(output: StagingFolder, journal: Journal, plan: Plan, options: PrepareOptions) -> None:
    """Audits the splits again, now including pixels, and writes the tables and the manifest."""
    if not journal.patch_names():
        raise FiresegError(
            f"{plan.root}: no tile gave a patch; check the faults below, --max-cloud and the masks",
            *_list_faults(journal, ()),
        )
    _check_burned(output, journal, plan)
    footprints = [Footprint.from_dict(tile.footprint) for tile in journal.tiles if tile.footprint]
    parts = journal.header.get("folds")
    result = audit_splits(footprints, options) if parts is None else audit_parts(footprints, parts)
    leaks = _check_leaks(result, plan, options, finished=output)
    result.write(output.staging / AUDIT)
    write_tables(journal, options.tiling, output.staging, leaks, [str(fault) for fault in plan.other_faults])


def _check_burned(output: StagingFolder, journal: Journal, plan: Plan) -> None:
    """Checks that the training patches have a burned pixel, and names the likely cause if they have not.

    Raises:
        FiresegError: If there are training patches, but no burned pixel in them.
    """
    burned, labelled, unknown = Counter[str](), Counter[str](), Counter[str]()
    for tile in journal.tiles:
        for row in tile.pixels.values():
            burned[tile.split] += sum(row[1:-1])
            labelled[tile.split] += sum(row[:-1])
            unknown[tile.split] += row[-1]
    if burned["train"] or not labelled["train"]:
        return
    others = [split for split in SPLITS[1:] if burned[split]]
    faults = _list_faults(journal, ())
    causes = ["fix the faults below"] if faults else []
    if others:
        causes.append(f"land burned only in {' and '.join(others)}: move such tiles to train, or draw other splits")
    else:
        share = format_share(unknown["train"] / (unknown["train"] + labelled["train"]))
        causes.append(
            f"{IGNORE_INDEX} means unknown ({share} of the pixels of the masks): if it marks what burned, "
            f"--classes {IGNORE_INDEX}=1 says so"
        )
    raise FiresegError(
        f"{plan.root}: none of the {labelled['train']:,} labelled pixels of train is burned, so there is nothing to "
        f"learn; {'; '.join(causes)}; then delete {output.folder} and prepare again",
        *faults,
    )


def _check_leaks(
    result: Audit, plan: Plan, options: PrepareOptions, finished: StagingFolder | None = None
) -> Sequence[str]:
    """Prints the leaks and checks that they are allowed; allowed leaks are printed only at the start."""
    if not result.is_clean and (finished is None or not options.allow_leaks):
        log.warning("%s", result.format_text())
    try:
        return check_leaks(result, plan.root, options)
    except FiresegError as error:
        if finished is None:
            raise
        hint = f"the patches are kept in {finished.folder / UNFINISHED}; delete {finished.folder} for other splits"
        raise FiresegError(f"{error}; {hint}") from error


def format_summary(journal: Journal, folder: Path, options: TilingOptions) -> Iterator[str]:
    """Formats the summary printed at the end, in the words of manifest.json.

    Args:
        journal: Journal with all tiles.
        folder: Output folder.
        options: Options of the patches.
    """
    tiles, names = journal.tiles, journal.patch_names()
    yield (
        f"{folder}: {format_count(sum(map(len, names.values())), 'patch', 'patches')} of size {options.size} x "
        f"{options.size}, bands {' '.join(options.stored_bands)}, layout {options.layout}"
    )
    rows = [["split", "tiles", "patches", "labelled pixels", "burned"]]
    for split in (*SPLITS, ALL):
        in_split = [tile for tile in tiles if tile.split == split]
        if not in_split:
            continue
        counts = [tile.pixels[options.masks[0]][:-1] for tile in in_split if tile.rows]
        labelled, burned = sum(map(sum, counts)), sum(sum(row[1:]) for row in counts)
        numbers = (len(in_split), sum(len(tile.rows) for tile in in_split), labelled)
        share = format_share(burned / labelled) if labelled else "-"
        rows.append([split, *(f"{number:,}" for number in numbers), share])
    yield from format_table(rows)
    if parts := journal.header.get("folds"):
        yield from format_table(_list_folds(tiles, parts))
    is_unlabelled = options.labels.unlabelled
    if (
        any(tile.split == "train" and len(tile.rows) > 1 for tile in tiles)
        and options.strides()["train"] < options.size
        and not is_unlabelled
    ):
        yield "train: pixels of overlapping patches are counted in each of them here; class weights count them once"
    if not is_unlabelled and (advice := advise_window_size(tiles, options.size)):
        yield advice
    reasons = {
        "cloud": f"more than {100 * options.max_cloud:.0f} % cloud (--max-cloud)",
        "unlabelled": "no clear pixel" if is_unlabelled else "no labelled pixel",
    }
    for reason, counts in sum_left_out(tiles).items():
        windows, pixels = counts["windows"], counts["labelled_pixels"]
        labelled = f", {format_count(pixels, 'labelled pixel')}" if pixels else ""
        yield f"left out: {format_count(windows, 'window')} with {reasons[reason]}{labelled}"
    missing = Counter(kind for tile in tiles for kind in tile.missing)
    for kind, words in _MISSING.items():
        if missing[kind] and not (is_unlabelled and kind in ("DEL", "GRA")):
            yield f"{format_count(missing[kind], 'tile')} {words}"
    if ignored := sorted({name for tile in tiles for name in tile.ignored}):
        count = format_count(sum(bool(tile.ignored) for tile in tiles), "tile")
        yield f"channels of {count} that are no Sentinel-2 band are not used: {', '.join(ignored)}"
    graded, delineated = (sum(tile.disagreements[side] for tile in tiles) for side in (0, 1))
    if graded or delineated:
        rules = {"keep": "kept (--disagreement ignore excludes them)", "ignore": "ignored (--disagreement ignore)"}
        yield (
            f"DEL and GRA disagree: {graded:,} pixels graded but not delineated, {delineated:,} delineated but not "
            f"graded; labels {rules[options.disagreement]}"
        )
    flags = [flag for tile in tiles for flag in tile.flags]
    for flag in flags[:_MAX_FLAGS]:
        yield f"check {flag}"
    if len(flags) > _MAX_FLAGS:
        yield f"... and {len(flags) - _MAX_FLAGS} more, see {JOURNAL_NAME}"
    for split in SPLITS[:2]:
        if split not in names and ALL not in names and not is_unlabelled:
            yield f"no patches for {split}, which training requires"


def advise_window_size(tiles: Sequence[TileRecord], size: int) -> str:
    """Advises smaller windows if the training tiles have room for few; empty if they are small enough.

    Tiles are cut around their fires: a model of windows as large as the tiles can learn where in a window a fire lies.

    Args:
        tiles: All tiles.
        size: Height and width of the windows in pixels.
    """
    used = [tile.rows[0] for tile in tiles if tile.rows and tile.split in ("train", ALL)]
    if not used:
        return ""
    side = statistics.median(min(int(row["tile_height"]), int(row["tile_width"])) for row in used)
    smaller = max(_MIN_WINDOW_PX, round(side / 2 / 32) * 32)
    if size <= _MAX_WINDOW_SHARE * side or smaller >= size:
        return ""
    return (
        f"windows of {size} px are nearly as large as the training tiles (median {side:.0f} px), which are cut around "
        f"their fires: a model can learn where in a window a fire lies, and be worse elsewhere; use --size "
        f"{smaller}, or train with data.crop={smaller}"
    )


def _list_folds(tiles: Sequence[TileRecord], parts: Mapping[str, int]) -> list[list[str]]:
    """Returns the number of patches of each split by fold, with a heading."""
    num_folds = max(parts.values()) + 1
    rows = [["patches of fold", *SPLITS]]
    for fold in range(num_folds):
        counts = Counter[str]()
        for tile in tiles:
            counts[get_fold_split(parts[tile.name], fold, num_folds)] += len(tile.rows)
        rows.append([str(fold), *(f"{counts[split]:,}" for split in SPLITS)])
    return rows


def _next_command(folder: Path, options: PrepareOptions) -> str:
    """Returns the training command for the patches."""
    if options.tiling.labels.unlabelled:
        return format_command("train", settings={"data.unlabelled": folder, "data.teacher": Path("outputs/latest")})
    settings: dict[str, str | Path | Sequence[str]] = {"data.root": folder}
    if options.tiling.task is not None:
        settings["task"] = options.tiling.task
    if options.tiling.bands != BAND_NAMES:
        settings["data.bands"] = options.tiling.bands
    pre = "" if options.tiling.labels.pre is None else " data.pre=true"
    if options.folds is None:
        return format_command("train", settings=settings) + pre
    folds = ",".join(map(str, range(options.folds)))
    return f"{format_command('train', '-m', settings=settings)}{pre} data.fold={folds}"


def _list_faults(journal: Journal, other_faults: Sequence[Fault]) -> list[str]:
    return [*(fault for tile in journal.tiles for fault in tile.faults), *map(str, other_faults)]
