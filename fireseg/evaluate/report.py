"""HTML report of an evaluation: figures, table rows and previews for the template `evaluate.html.j2`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from fireseg.evaluate.mosaic import Mosaic
from fireseg.evaluate.results import Evaluation, Preview, Results
from fireseg.evaluate.scores import BASELINES, Classes
from fireseg.evaluate.summary import format_false_alarms
from fireseg.pairs import split_pair
from fireseg.plots import ERROR_COLOURS, choose_composite, colour_classes, colour_errors, render_composite
from fireseg.plots.html import (
    Cell,
    Picture,
    Strip,
    encode_pixels,
    format_number,
    format_p_value,
    format_percentage,
    format_text,
    make_interval_cell,
    write_page,
)
from fireseg.plots.scores import (
    Spread,
    plot_areas,
    plot_confusion,
    plot_groups,
    plot_paired_ious,
    plot_precision_recall,
    plot_reliability,
)
from fireseg.runs.checkpoint import SelfTraining
from fireseg.task import IGNORE_INDEX, Task

NUM_PREVIEWS = 6
"""Number of best and of worst fires in the report."""

_MAX_PLOTTED_GROUPS = 16

_NOT_LABELLED = ("not labelled", "repeating-linear-gradient(135deg, #fff 0 3px, #8c8c8c 3px 6px)")

_GROUP_TITLES = {
    "size": "By burned share of the tile",
    "country": "By country",
    "climate": "By climate",
    "year": "By year",
}

_FIRE_COLUMNS = {
    "iou": ("IoU", ".3f"),
    "index_tuned_iou": ("IoU, NBR tuned", ".3f"),
    "index_fixed_iou": ("IoU, NBR fixed", ".3f"),
    "true_ha": ("true ha", ",.1f"),
    "predicted_ha": ("predicted ha", ",.1f"),
    "burned_share": ("burned", "%"),
    "activation": ("activation", "text"),
    "country": ("country", "text"),
    "climate": ("climate", "text"),
    "date": ("date", "date"),
    "dice": ("Dice", ".3f"),
    "precision": ("precision", ".3f"),
    "recall": ("recall", ".3f"),
    "boundary_f1_2px": ("boundary F1 2 px", ".3f"),
    "boundary_iou_2px": ("boundary IoU 2 px", ".3f"),
    "hausdorff_95_px": ("Hausdorff 95 %, px", ".1f"),
}
"""Columns of the table of fires: key in `results["fires"]`, heading, and number format or `%`, `text`, `date`."""


def write_report(evaluation: Evaluation, path: Path) -> None:
    """Writes `evaluation_<split>.html` atomically.

    The bytes depend only on the evaluation and the file name, not on the folder or the time.

    Args:
        evaluation: Results and the previews to show.
        path: HTML file to write.

    Raises:
        FiresegError: If the file cannot be written.
    """
    results = evaluation.results
    run, fires = results["run"], results["fires"]
    task = Task(name=run["task"], num_classes=len(run["class_names"]), class_names=tuple(run["class_names"]))
    labels = task.labels
    errors = [(f"error: {kind}", colour) for kind, colour in ERROR_COLOURS.items()]
    write_page(
        path,
        "evaluate.html.j2",
        filters={
            "interval": make_interval_cell,
            "ends": _format_ends,
            "p_value": format_p_value,
            "row_shares": _format_row_shares,
        },
        **results,
        json_name=path.with_suffix(".json").name,
        self_training=str(SelfTraining(**run["self_training"])) if run.get("self_training") else "",
        by_name={method["name"]: method for method in results["methods"]},
        figures=_plot_figures(results, labels),
        group_titles=_GROUP_TITLES,
        wins_by_group=_count_wins(results) if results["against"] else {},
        class_labels=labels,
        predicted_columns=[f"predicted {label}" for label in labels],
        detections=_list_detections(results),
        num_areas=len(_select_with_area(fires)),
        false_alarms=format_false_alarms,
        fire_table=_tabulate_fires(fires),
        overview=_make_overview(results, evaluation.previews, task),
        galleries=_make_galleries(results, evaluation.previews, task),
        gallery_key=[*zip(labels, task.colours, strict=True), *errors, _NOT_LABELLED],
        error_key=[(kind, colour) for kind, colour in ERROR_COLOURS.items()],
        composite=choose_composite(run["bands"]).caption,
    )


def _format_ends(interval: Mapping[str, Any] | None) -> Cell:
    if interval is None or interval["mean"] is None:
        return Cell("-", None)
    if interval["low"] is None:
        return Cell(" ".join(f"{value:.3f}" for value in interval["values"]), None)
    return Cell(f"{interval['low']:.3f} to {interval['high']:.3f}", None)


def _format_row_shares(counts: Sequence[int]) -> list[Cell]:
    total = sum(counts)
    shares = [
        Cell(f"{count:,} ({format_percentage(count / total)})", count) if total else Cell("-", None) for count in counts
    ]
    return [*shares, format_number(total, ",d")]


def _plot_figures(results: Results, labels: Sequence[str]) -> dict[str, list[Picture]]:
    """Draws all figures, by section of the template."""
    fires, calibration, against = results["fires"], results["calibration"], results["against"]
    baseline = next(method["label"] for method in results["methods"] if method["name"] == BASELINES[0])
    groups = []
    if any(fire["index_tuned_iou"] is not None for fire in fires):
        ious = ([fire[key] for fire in fires] for key in ("iou", "index_tuned_iou"))
        groups.append(plot_paired_ious(*ious, other=baseline))
    for kind, rows in results["groups"].items():
        if 1 < len(rows) <= _MAX_PLOTTED_GROUPS:
            spreads = {row["name"]: (_to_spread(row["iou"]), _to_spread(row["index_tuned_iou"])) for row in rows}
            groups.append(plot_groups(spreads, title=_GROUP_TITLES[kind], other=baseline))
    rules = {
        method["label"]: (method["pixels"]["fire_recall"], method["pixels"]["fire_precision"])
        for method in results["methods"]
        if method["is_there"] and method["name"] in BASELINES
    }
    figures = {
        "groups": groups,
        "confusion": [plot_confusion(results["confusion"], labels)],
        "probabilities": [
            plot_reliability(calibration["reliability"]["before"], calibration["reliability"]["after"]),
            plot_precision_recall(calibration["precision_recall"], point=calibration["operating_point"], rules=rules),
        ],
    }
    if known := _select_with_area(fires):
        areas = ([fire[key] for fire in known] for key in ("true_ha", "predicted_ha"))
        figures["area"] = [plot_areas(*areas)]
    if against:
        ious = ([fire[key] for fire in against["fires"]] for key in ("ours", "theirs"))
        figures["against"] = [plot_paired_ious(*ious, other=against["name"])]
    return figures


def _to_spread(interval: Mapping[str, Any]) -> Spread:
    return Spread(interval["mean"], interval["low"], interval["high"], tuple(interval["values"] or ()))


def _select_with_area(fires: Sequence[Results]) -> list[Results]:
    return [fire for fire in fires if fire["true_ha"] is not None and fire["predicted_ha"] is not None]


def _list_detections(results: Results) -> list[tuple[str, Results]]:
    """Lists the detection scores of each method by label; empty scores if a band is missing."""
    detection = results["detection"]
    others = [(f"{method['label']}, any pixel", method["detection"] or {}) for method in results["methods"][1:]]
    return [("model, any pixel", detection["plain"]), ("model, by the rule", detection["rule"]), *others]


def _count_wins(results: Results) -> dict[str, list[Results]]:
    """Counts the fires of each group on which this run is better or worse than the other one."""
    fires = {fire["name"]: {**fire, "year": (fire["date"] or "")[:4]} for fire in results["fires"]}
    wins = {}
    for kind, groups in results["groups"].items():
        gains: dict[str, list[float]] = {group["name"]: [] for group in groups}
        for pair in results["against"]["fires"]:
            name = fires.get(pair["name"], {}).get(kind)
            if name in gains and pair["ours"] is not None and pair["theirs"] is not None:
                gains[name].append(pair["ours"] - pair["theirs"])
        wins[kind] = [
            {
                "name": name,
                "won": sum(gain > 0 for gain in each),
                "lost": sum(gain < 0 for gain in each),
                "equal": sum(gain == 0 for gain in each),
                "mean": fmean(each),
            }
            for name, each in gains.items()
            if each
        ]
    return wins


def _tabulate_fires(fires: Sequence[Results]) -> dict[str, Any]:
    """Builds the table of fires without columns in which no fire has a value."""
    keys = [key for key in _FIRE_COLUMNS if any(fire[key] not in (None, "") for fire in fires)]
    if all(fire["name"].startswith(fire["activation"] or "") for fire in fires):
        keys = [key for key in keys if key != "activation"]
    headings, formats = zip(*(_FIRE_COLUMNS[key] for key in keys), strict=True)
    return {
        "columns": ["fire", *headings],
        "align": "l" + "".join("l" if spec in ("text", "date") else "r" for spec in formats),
        "rows": [[fire["name"], *(_format_value(fire[key], _FIRE_COLUMNS[key][1]) for key in keys)] for fire in fires],
    }


def _format_value(value: Any, spec: str) -> str | Cell:
    if spec == "text":
        return format_text(value)
    if spec == "date":
        return format_text((value or "")[:10])
    return format_percentage(value) if spec == "%" else format_number(value, spec)


def _make_galleries(results: Results, previews: Mapping[str, Preview], task: Task) -> dict[str, list[Strip]]:
    """Makes the preview strips by title: worst and best fires, or all of them if they are few."""
    shown = sorted((fire for fire in results["fires"] if fire["name"] in previews), key=lambda fire: fire["iou"])
    half = (len(shown) + 1) // 2
    parts = {"Worst fires": shown[:half], "Best fires": shown[: half - 1 : -1]}
    if len(shown) == sum(fire["iou"] is not None for fire in results["fires"]):
        title = f"All {len(shown)} fires with an IoU, worst first" if len(shown) > 1 else "The one fire with an IoU"
        parts = {title: shown}
    return {
        title: [_make_strip(fire, previews[fire["name"]], results["run"]["bands"], task) for fire in group]
        for title, group in parts.items()
        if group
    }


def _make_overview(results: Results, previews: Mapping[str, Preview], task: Task) -> list[Strip]:
    """Makes the strips of the best and the worst fire for the first screen: image and errors."""
    shown = sorted((fire for fire in results["fires"] if fire["name"] in previews), key=lambda fire: fire["iou"])
    ends = {"Best fire": shown[-1:], "Worst fire": shown[:1] if len(shown) > 1 else []}
    if len(shown) == 1:
        ends = {"The one fire": shown}
    strips = []
    for title, fires in ends.items():
        for fire in fires:
            strip = _make_strip(fire, previews[fire["name"]], results["run"]["bands"], task)
            strips.append(Strip(f"{title}: {strip.title}", strip.caption, [strip.pictures[-4], strip.pictures[-1]]))
    return strips


def _make_strip(fire: Results, preview: Preview, bands: Sequence[str], task: Task) -> Strip:
    caption = f"IoU {fire['iou']:.3f}"
    if fire["index_tuned_iou"] is not None:
        caption += f" (NBR {fire['index_tuned_iou']:.3f})"
    if fire["true_ha"] is not None and fire["predicted_ha"] is not None:
        caption += f", {fire['true_ha']:,.1f} ha burned, {fire['predicted_ha']:,.1f} ha predicted"
    image = np.where(preview.predicted == task.ignore_index, np.float32(math.nan), preview.composite_image)
    post, pre = split_pair(bands)
    panels = {
        **({"before": (render_composite(image[len(post) :], pre), "Satellite image before")} if pre else {}),
        "image": (render_composite(image, bands), "Satellite image"),
        "truth": (colour_classes(preview.truth, task), "True mask"),
        "prediction": (colour_classes(preview.predicted, task), "Predicted mask"),
        "error": (colour_errors(preview.truth, preview.predicted, task), "Errors"),
    }
    pictures = [
        Picture(
            title,
            encode_pixels(pixels, "jpeg" if title in ("before", "image") else "png"),
            f"{description} of fire {fire['name']}, {caption}",
        )
        for title, (pixels, description) in panels.items()
    ]
    return Strip(fire["name"], caption, pictures)


class PreviewSelection:
    """Keeps the previews of the best and the worst fires while fires are scored one after another.

    Args:
        num_previews: Number of best and of worst fires.
    """

    def __init__(self, num_previews: int = NUM_PREVIEWS) -> None:
        self._num_previews = num_previews
        self._ranked: list[tuple[float, str, Preview]] = []

    @property
    def previews(self) -> dict[str, Preview]:
        """Selected previews by fire name, best fire first."""
        return {name: preview for _, name, preview in reversed(self._ranked)}

    def add(self, mosaic: Mosaic, classes: Classes, iou: float) -> None:
        """Adds a fire and drops the preview of a middling one if there are too many.

        Args:
            mosaic: Assembled fire.
            classes: Classes predicted by the model, `(H, W)`.
            iou: Score to rank by; fires with NaN (nothing burned, nothing predicted) are skipped.
        """
        if math.isnan(iou):
            return
        self._ranked.append((iou, mosaic.fire.name, make_preview(mosaic, classes)))
        self._ranked.sort(key=lambda entry: entry[:2])
        if len(self._ranked) > 2 * self._num_previews:
            del self._ranked[self._num_previews]


def make_preview(mosaic: Mosaic, classes: Classes) -> Preview:
    """Subsamples a fire to at most 320 pixels a side."""
    every = slice(None, None, mosaic.preview_step)
    predicted = np.where(mosaic.is_covered, classes, np.uint8(IGNORE_INDEX))
    return Preview(
        composite_image=mosaic.preview_image,
        truth=mosaic.truth[every, every].copy(),
        predicted=predicted[every, every].copy(),
    )
