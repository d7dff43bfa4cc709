"""Every fire in a table, and the best and the worst as pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fireseg.evaluating.result import Evaluated, Look
from fireseg.evaluating.wording import count, is_known, show, show_share
from fireseg.render import AGREEMENT, choose_recipe, colour_agreement, colour_classes, composite
from fireseg.render.page import Cell, Picture, Section, Strip, Table, encode_pixels
from fireseg.task import Task

Content = Mapping[str, Any]

_STRIPES = "repeating-linear-gradient(135deg, #fff 0 3px, #8c8c8c 3px 6px)"
_COLUMNS = {
    "iou": ("IoU", ".3f"),
    "index_tuned_iou": ("IoU, index tuned", ".3f"),
    "index_fixed_iou": ("IoU, index fixed", ".3f"),
    "true_ha": ("true ha", ",.1f"),
    "predicted_ha": ("predicted ha", ",.1f"),
    "burned_share": ("burned", "%"),
    "activation": ("event", ""),
    "country": ("country", ""),
    "climate": ("climate", ""),
    "date": ("date", "day"),
    "dice": ("Dice", ".3f"),
    "precision": ("precision", ".3f"),
    "recall": ("recall", ".3f"),
    "boundary_f1_2px": ("boundary F1 2 px", ".3f"),
    "boundary_iou_2px": ("boundary IoU 2 px", ".3f"),
    "hausdorff_95_px": ("Hausdorff 95 %, px", ".1f"),
}
"""Of the table of fires: heading, and how a number is written; words have no such."""


def describe_fires(content: Content) -> Section:
    """Every fire in a row, without columns that say nothing."""
    fires = content["fires"]
    keys = [key for key in _COLUMNS if any(fire[key] not in (None, "") for fire in fires)]
    if all(fire["name"].startswith(fire["activation"] or "") for fire in fires):
        keys = [key for key in keys if key != "activation"]
    rows = [[fire["name"], *(_show_fact(fire[key], _COLUMNS[key][1]) for key in keys)] for fire in fires]
    align = "l" + "".join("l" if _COLUMNS[key][1] in ("", "day") else "r" for key in keys)
    heads = ["fire", *(_COLUMNS[key][0] for key in keys)]
    text = ["A row is one tile. A click on a heading sorts by it, another one turns the order around."]
    if without := sum(not is_known(fire["iou"]) for fire in fires):
        text.append(f"{count(without, 'fire')} without IoU: nothing burned there and nothing was predicted: right.")
    return Section(
        name="fires", title="Every fire", text=text, tables=[Table("Fires", heads, rows, align, False, True)]
    )


def _show_fact(value: Any, spec: str) -> str | Cell:
    if spec in ("", "day"):
        return (value[:10] if spec else value) if value else Cell("-", None)
    return show_share(value) if spec == "%" else show(value, spec)


def show_gallery(evaluated: Evaluated) -> Iterator[Section]:
    """The best and the worst, or all where there are few."""
    content, looks = evaluated.content, evaluated.looks
    shown = sorted((fire for fire in content["fires"] if fire["name"] in looks), key=_rank)
    if not shown:
        return
    run = content["run"]
    task = Task(name=run["task"], num_classes=len(run["class_names"]), class_names=tuple(run["class_names"]))
    half = (len(shown) + 1) // 2
    parts = {"Worst fires": shown[:half], "Best fires": shown[: half - 1 : -1]}
    if len(shown) == sum(fire["iou"] is not None for fire in content["fires"]):
        title = f"All {len(shown)} fires with an IoU, the worst first" if len(shown) > 1 else "The one fire with an IoU"
        parts = {title: shown}
    text = [
        f"Image: {choose_recipe(run['bands']).caption}. Error: where truth and prediction disagree on burned or not. "
        "Striped: nobody labelled it, or no patch lies there; it counts for nothing."
    ]
    key = [*zip(task.class_names, task.colours, strict=True)]
    key += [(f"error: {word}", colour) for word, colour in AGREEMENT.items()]
    for number, (title, fires) in enumerate(parts.items()):
        strips = [_show_fire(fire, looks[fire["name"]], run["bands"], task) for fire in fires]
        if strips:
            keys = [*key, ("not labelled", _STRIPES)]
            yield Section(name=f"gallery-{number + 1}", title=title, text=text, strips=strips, key=keys)
        text = []


def _show_fire(fire: Content, look: Look, bands: Sequence[str], task: Task) -> Strip:
    name = fire["name"]
    image = np.where(look.predicted == task.ignore_index, np.float32(math.nan), look.composite_image)
    drawn = {
        "image": (composite(image, bands), "Satellite image"),
        "truth": (colour_classes(look.truth, task), "True mask"),
        "prediction": (colour_classes(look.predicted, task), "Predicted mask"),
        "error": (colour_agreement(look.truth, look.predicted, task), "Errors"),
    }
    caption = f"IoU {show(fire['iou']).text}"
    if is_known(fire["index_tuned_iou"]):
        caption += f" (index {fire['index_tuned_iou']:.3f})"
    if is_known(fire["true_ha"]) and is_known(fire["predicted_ha"]):
        caption += f", {fire['true_ha']:,.1f} ha burned, {fire['predicted_ha']:,.1f} ha predicted"
    pictures = [
        Picture(title, encode_pixels(pixels, "jpeg" if title == "image" else "png"), f"{alt} of fire {name}, {caption}")
        for title, (pixels, alt) in drawn.items()
    ]
    return Strip(name, caption, pictures)


def _rank(fire: Content) -> float:
    """Worst first; a false alarm where nothing burned and no IoU is to be had comes before all."""
    return fire["iou"] if is_known(fire["iou"]) else -1.0
