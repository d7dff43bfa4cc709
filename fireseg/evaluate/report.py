"""The page of an evaluation: the gain over the index first, then all numbers, curves and fires."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fireseg.evaluate.mosaic import Mosaic
from fireseg.evaluate.results import Evaluation, Preview
from fireseg.evaluate.scores import Classes
from fireseg.plots import ERROR_COLOURS, choose_composite, colour_classes, colour_errors, render_composite
from fireseg.plots.html import Cell, Picture, Section, Strip, Table, encode_pixels, render_page
from fireseg.plots.scores import (
    Spread,
    plot_areas,
    plot_confusion,
    plot_groups,
    plot_paired_ious,
    plot_precision_recall,
    plot_reliability,
)
from fireseg.task import IGNORE_INDEX, Task

FEW_FIRES = 10
"""With fewer than so many fires an interval says little."""

INDEX = "a threshold on the burn ratio"

_CHANCE = "the interval holds 0: on these fires the difference may be chance"


def spell_headline(content: Mapping[str, Any]) -> str:
    """The gain over the index in plain words, or the plain truth where there is none to speak of."""
    model, index = get_method(content, "model"), get_method(content, "index_tuned")
    iou = model["pixels"]["fire_iou"]
    if not is_known(iou):
        return "Nothing burns here, neither in truth nor on the map: there is no fire IoU to tell."
    if not index["is_there"]:
        return f"Fire IoU {iou:.3f}; no index to compare it with: {_continue(index['note'])}"
    gain, theirs = content["gain"]["pooled"], index["pixels"]["fire_iou"]
    if not is_known(gain) or not is_known(theirs):
        return f"Fire IoU {iou:.3f}; {INDEX} has none to compare it with."
    if round(gain, 3) == 0:
        return f"Fire IoU {iou:.3f}: no better than {INDEX} ({theirs:.3f}), which learns nothing."
    if gain < 0:
        return f"Fire IoU {iou:.3f}: {-gain:.3f} below {INDEX} ({theirs:.3f}), which learns nothing."
    return f"Fire IoU {iou:.3f}: {gain:.3f} above {INDEX} ({theirs:.3f})."


def spell_summary(content: Mapping[str, Any]) -> str:
    """What stands below the headline: fire by fire, and what was judged."""
    run, data = content["run"], content["data"]
    judged = (
        f"Run {run['name']} on split {content['split']}: {count(data['fires'], 'fire')} in "
        f"{count(data['patches'], 'patch', 'patches')}, {data['labelled_pixels']:,} labelled pixels."
    )
    paired = content["gain"]["per_fire"]
    return f"{spell_paired(paired, INDEX)} {judged}" if paired else judged


def spell_paired(paired: Mapping[str, Any], rival: str) -> str:
    """A paired comparison over fires in a sentence.

    Args:
        paired: `difference`, an interval, with `wins`, `losses`, `ties` and `p_value`.
        rival: What it is compared with.
    """
    difference, wins, losses = paired["difference"], paired["wins"], paired["losses"]
    if not is_known(difference["mean"]):
        return f"No fire has an IoU by both the model and {rival}."
    ties = f", the same on {paired['ties']}" if paired["ties"] else ""
    said = (
        f"Per fire, IoU {spell_interval(difference, signed=True, places=2)}: better than {rival} on {wins} of "
        f"{count(wins + losses + paired['ties'], 'fire')}, worse on {losses or 'none'}{ties}"
    )
    if not is_known(difference["low"]):
        return f"{said}. Too few fires for an interval."
    sign = f" (sign test {spell_p_value(paired['p_value'])})" if is_known(paired["p_value"]) else ""
    return f"{said}{sign}; {_CHANCE}." if difference["low"] <= 0 <= difference["high"] else f"{said}{sign}."


def list_warnings(content: Mapping[str, Any]) -> Iterator[str]:
    """What to know before believing a number."""
    data, decision, split = content["data"], content["decision"], content["split"]
    if split == "train":
        yield "These are the fires that the model learnt from: the scores say nothing about others."
    if decision["chosen_on"] and decision["is_optimistic"]:
        yield f"Temperature, threshold and rule were chosen on {split}, the very fires judged here: the scores flatter."
    if decision["chosen_on"] is None:
        yield (
            f"There was nothing to choose a threshold on: {decision['threshold']:g} and temperature "
            f"{decision['temperature']:g} are as good as any."
        )
    if data["leaks"]:
        found = f"{count(len(data['leaks']), 'leak')} between the splits accepted"
        yield f"{found}: fires judged here are partly known from training, and the scores flatter. See How it was made."
    if not data["is_same"]:
        yield (
            "These are not the patches that the run was trained on (their fingerprints differ). That may be meant; "
            "whether a fire judged here was also learnt from was not checked."
        )
    if data["fires"] < FEW_FIRES:
        yield f"Only {count(data['fires'], 'fire')}: another handful may give quite other numbers."
    for method in content["methods"]:
        if not method["is_there"]:
            yield f"No scores for {method['label']}: {method['note']}."


def get_method(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """One of the methods, by its name."""
    return next(method for method in content["methods"] if method["name"] == name)


def is_known(value: float | None) -> bool:
    """Whether there is a number to read."""
    return value is not None and math.isfinite(value)


def show(value: float | None, spec: str = ".3f") -> Cell:
    """A number for a table, `-` where there is none."""
    if value is None or not math.isfinite(value):
        return Cell("-", None)
    return Cell(f"{value:{spec}}", value)


def show_interval(interval: Mapping[str, Any] | None, *, signed: bool = False) -> Cell:
    """A mean with its interval for a table."""
    known = interval is not None and is_known(interval["mean"])
    return Cell(spell_interval(interval, signed=signed), interval["mean"]) if interval and known else Cell("-", None)


def show_share(value: float | None, *, signed: bool = False) -> Cell:
    """A share in percent, to as many digits as tell something."""
    if value is None or not math.isfinite(value):
        return Cell("-", None)
    places = 2 if 0 < abs(value) < 0.1 else 1
    return Cell(f"{100 * value:{'+' if signed else ''}.{places}f} %", value)


def spell_interval(interval: Mapping[str, Any], *, signed: bool = False, places: int = 3) -> str:
    """A mean and what it may be by chance.

    Example:
        >>> spell_interval({"mean": 0.12, "low": 0.08, "high": 0.17, "num": 16}, signed=True, places=2)
        '+0.12 [0.08, 0.17]'
    """
    mean = f"{interval['mean']:{'+' if signed else ''}.{places}f}"
    if not is_known(interval["low"]):
        return mean
    return f"{mean} [{interval['low']:.{places}f}, {interval['high']:.{places}f}]"


def spell_p_value(value: float) -> str:
    """As many digits as matter."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}" if value < 0.1 else f"p = {value:.2f}"


def count(number: int, noun: str, nouns: str = "") -> str:
    """A number and its noun."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def join(words: Sequence[str]) -> str:
    """Words as a list in a sentence."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _continue(note: str) -> str:
    return note if note.endswith(".") else f"{note}."


Content = Mapping[str, Any]

_MEASURES = {"iou": "IoU", "dice": "Dice", "precision": "precision", "recall": "recall"}

_DETECTION = ("accuracy", "precision", "recall", "f1")

_MOST_DRAWN = 16


def warn(content: Content) -> Iterator[Section]:
    """What to know before believing a number, where there is anything."""
    if lines := list(list_warnings(content)):
        yield Section(name="first", title="Look at this first", text=lines, tone="warn")


def describe_scores(content: Content) -> Section:
    """Every method on every score: over all pixels, and over fires."""
    text = [
        "IoU: the area burned in both truth and prediction, of the area burned in either; 1 is perfect, 0 is nothing "
        "in common. Precision: of what is called burned, the share that burned. Recall: of what burned, the share "
        "found. Dice weighs the two alike.",
        "Over all pixels, a large fire counts more than a small one. Over fires, each counts the same; the brackets "
        "hold the mean of such fires with 95 % confidence (bootstrap over fires, 2,000 draws). The burn ratio learns "
        "nothing but a threshold: it costs nothing, and a model should beat it.",
    ]
    columns = {f"fire {word}": _pick("pixels", f"fire_{key}") for key, word in _MEASURES.items()}
    columns["mean IoU of classes"] = _pick("pixels", "mean_iou")
    tables = [
        _tabulate(content, "Over all pixels", columns, has_notes=True),
        _tabulate(content, "Over fires: mean and 95 % interval", _pick_intervals()),
    ]
    if len(content["run"]["class_names"]) > 2:
        tables.append(_list_classes(content))
        text.append(_describe_grades(get_method(content, "model")["pixels"]))
    return Section(name="scores", title="Scores", text=text, tables=tables)


def describe_groups(content: Content) -> Section:
    """The model beside the index, for fires of one kind each."""
    rival = get_method(content, "index_tuned")["label"]
    pictures, tables = [], []
    ours, theirs = ([fire[key] for fire in content["fires"]] for key in ("iou", "index_tuned_iou"))
    if any(is_known(iou) for iou in theirs):
        pictures.append(plot_paired_ious(ours, theirs, rival=rival))
    for kind, rows in content["groups"].items():
        title = name_groups(kind)
        cells = [[row["name"], *_compare_group(row)] for row in rows]
        columns = [kind, "fires", "IoU of model", f"IoU of {rival}", "difference"]
        tables.append(Table(title, columns, cells, "lrrrr", len(rows) > _MOST_DRAWN))
        if 1 < len(rows) <= _MOST_DRAWN:
            drawn = {row["name"]: (_to_spread(row["iou"]), _to_spread(row["index_tuned_iou"])) for row in rows}
            pictures.append(plot_groups(drawn, title=title, rival=rival))
    text = [
        "Mean IoU over the fires of each group. A fire without an IoU (nothing burned, and nothing predicted) counts "
        "under fires, not in the mean; the difference is the mean over the fires where both methods have one. A group "
        "of one fire has no interval."
    ]
    return Section(name="groups", title="By kind of fire", text=text, pictures=pictures, tables=tables)


def describe_confusion(content: Content) -> Section:
    """Counts and row shares of the confusion matrix, as picture and table."""
    names, counts = content["run"]["class_names"], content["confusion"]
    rows = []
    for name, row in zip(names, counts, strict=True):
        total = sum(row)
        shares = [f"{value:,} ({show_share(value / total).text})" if total else "-" for value in row]
        rows.append([name, *shares, f"{total:,}"])
    table = Table(
        "Pixels, and share of the row",
        ["truth", *(f"predicted {name}" for name in names), "all"],
        rows,
        "l" + "r" * (len(names) + 1),
    )
    text = ["A row is what the pixels truly are, a column what the model calls them; the diagonal is right."]
    picture = plot_confusion(counts, names)
    return Section(name="confusion", title="Confusion matrix", text=text, pictures=[picture], tables=[table])


def describe_probabilities(content: Content) -> Section:
    """Calibration before and after the temperature, and every threshold."""
    found, decision = content["calibration"], content["decision"]
    text = [
        "A probability is calibrated if, of all pixels given 0.7, seven in ten burned. One number, the temperature "
        f"({decision['temperature']:.3g} here), softens or sharpens all probabilities; it changes neither their "
        "order nor the average precision. Expected calibration error (ECE): how far predicted and burned shares lie "
        "apart, on average over the pixels. Brier score and log loss: mean squared and mean logarithmic error of the "
        "probability. All three: lower is better. An index gives no probability.",
    ]
    before, after = found["before"]["ece"], found["after"]["ece"]
    if is_known(before) and is_known(after) and after > before:
        text.append("The temperature is the one with the least log loss on val; the ECE here is worse with it.")
    keys = {"ECE": "ece", "Brier score": "brier", "log loss": "nll", "average precision": "average_precision"}
    rows = [
        [label, *(show(found[when][key], ".4f") for key in keys.values())]
        for label, when in (("as the model gives it", "before"), ("with the temperature", "after"))
    ]
    point = found["operating_point"]
    rules = {
        method["label"]: (method["pixels"]["fire_recall"], method["pixels"]["fire_precision"])
        for method in content["methods"]
        if method["is_there"] and method["name"].startswith("index")
    }
    pictures = [
        plot_reliability(found["reliability"]["before"], found["reliability"]["after"]),
        plot_precision_recall(found["precision_recall"], point=point, rules=rules),
    ]
    used = [["model", show(point["threshold"]), show(point["precision"]), show(point["recall"])]]
    used += [[label, Cell("-", None), show(precision), show(recall)] for label, (recall, precision) in rules.items()]
    tables = [
        Table("Probabilities of fire", ["probability", *keys], rows, "lrrrr"),
        Table("The threshold in use", ["method", "threshold", "precision", "recall"], used, "lrrr"),
    ]
    return Section(name="probabilities", title="Probabilities", text=text, pictures=pictures, tables=tables)


def describe_detection(content: Content) -> Section:
    """Does a patch burn at all: any pixel against the rule."""
    rule = content["decision"]["rule"]
    chosen = content["decision"]["chosen_on"]
    text = [
        "Does anything burn in a patch? By the plain rule, if one pixel is called burned. By the rule "
        f"{f'chosen on {chosen}' if chosen else 'in use'}, if one connected area has at least {rule['min_pixels']:,} "
        f"px and a largest probability of at least {rule['min_probability']:.3g}."
    ]
    found = [("model, any pixel", content["detection"]["plain"]), ("model, by the rule", content["detection"]["rule"])]
    found += [
        (f"{method['label']}, any pixel", method["detection"])
        for method in content["methods"]
        if method["name"] != "model"
    ]
    columns = ["method", "accuracy", "precision", "recall", "F1", "found", "false alarms", "missed", "rightly none"]
    rows = []
    for label, known in found:
        scores = known or {}
        counts = [show(scores.get(key), ",.0f") for key in ("tp", "fp", "fn", "tn")]
        rows.append([label, *(show(scores.get(f"detection_{key}")) for key in _DETECTION), *counts])
    table = Table("Patches", columns, rows, "l" + "r" * 8)
    return Section(name="detection", title="Detection of patches", text=text, tables=[table])


def describe_edges(content: Content) -> Section:
    """How well outlines are drawn."""
    text = [
        "Boundary F1: the share of the drawn outline that lies within so many pixels of the true one, and the other "
        "way round, as one score. Boundary IoU: IoU of the bands of that width along the two outlines. Both pool all "
        "fires; higher is better. Hausdorff 95 %, in pixels: 95 % of either outline lies nearer than that to the other "
        "one; the median over fires; lower is better."
    ]
    columns = {
        f"{word}, {width} px": _pick("edges", f"boundary_{key}_{width}px")
        for key, word in (("f1", "F1"), ("iou", "IoU"))
        for width in (1, 2, 3)
    }
    columns["Hausdorff 95 %"] = _pick("edges", "hausdorff_95_px", ".1f")
    table = _tabulate(content, "Boundary F1, boundary IoU and Hausdorff distance", columns)
    return Section(name="edges", title="Edges", text=text, tables=[table])


def describe_area(content: Content) -> Section:
    """Hectares, true and predicted."""
    fires = [fire for fire in content["fires"] if is_known(fire["true_ha"]) and is_known(fire["predicted_ha"])]
    if not fires:
        text = ["Not known in hectares: these patches do not say where on the ground they lie."]
        return Section(name="area", title="Burned area", text=text)
    text = [
        "Geodesic hectares of the labelled pixels that burned, and of those called burned. Error: predicted less true."
    ]
    if not content["data"]["hectares_known"]:
        text.append(f"Known for {len(fires)} of {len(content['fires'])} fires; the others are left out here.")
    columns = {
        **{
            word: _pick("area", key, ",.1f") for word, key in (("true ha", "true_ha"), ("predicted ha", "predicted_ha"))
        },
        "error ha": _pick("area", "error_ha", "+,.1f"),
        "relative error": lambda method: show_share(method["area"]["relative_error"], signed=True),
    }
    picture = plot_areas([fire["true_ha"] for fire in fires], [fire["predicted_ha"] for fire in fires])
    table = _tabulate(content, "All fires together", columns)
    return Section(name="area", title="Burned area", text=text, pictures=[picture], tables=[table])


def name_groups(kind: str) -> str:
    """What fires are grouped by, as a heading."""
    return "By burned share of the tile" if kind == "size" else f"By {kind}"


def _tabulate(
    content: Content, caption: str, columns: Mapping[str, Callable[[Content], Cell]], *, has_notes: bool = False
) -> Table:
    """A row a method; one that lacks a band has its row, too, and no numbers."""
    rows: list[Sequence[str | Cell]] = []
    for method in content["methods"]:
        cells = [read(method) if method["is_there"] else Cell("-", None) for read in columns.values()]
        rows.append([method["label"], *cells, *([method["note"]] if has_notes else [])])
    heads = ["method", *columns, *(["what it is"] if has_notes else [])]
    return Table(caption, heads, rows, "l" + "r" * len(columns) + "l" * has_notes)


def _pick(part: str, key: str, spec: str = ".3f") -> Callable[[Content], Cell]:
    return lambda method: show(method[part].get(key), spec)


def _pick_intervals() -> dict[str, Callable[[Content], Cell]]:
    columns: dict[str, Callable[[Content], Cell]] = {
        "fires with IoU": lambda method: show(method["fires"]["iou"]["num"], ",.0f")
    }
    for key, word in _MEASURES.items():
        columns[word] = lambda method, key=key: show_interval(method["fires"][key])
    return columns


def _list_classes(content: Content) -> Table:
    """Scores of each class; grades are the model's alone, since an index has none."""
    pixels, plain = (get_method(content, name)["pixels"] for name in ("model", "model_argmax"))
    rows = [
        [name, *(show(pixels.get(f"{key}_{name}")) for key in _MEASURES), show(plain.get(f"iou_{name}"))]
        for name in content["run"]["class_names"]
    ]
    columns = ["class", *_MEASURES.values(), "IoU of the most likely class"]
    return Table("By class, over all pixels (an index has no grades)", columns, rows, "lrrrrr")


def _describe_grades(pixels: Mapping[str, float | None]) -> str:
    return (
        f"Grades: IoU over the classes above 0 {show(pixels.get('severity_iou')).text}, mean error where it truly "
        f"burned {show(pixels.get('grade_mae'), '.2f').text} grades, agreement beyond chance (weighted kappa) "
        f"{show(pixels.get('grade_kappa')).text}. The fire scores ask only whether a pixel burned, whatever its grade."
    )


def _compare_group(row: Mapping[str, Any]) -> list[Cell]:
    intervals = [show_interval(row[key]) for key in ("iou", "index_tuned_iou")]
    return [show(row["num"], ",.0f"), *intervals, show(row["difference"]["mean"], "+.3f")]


def _to_spread(interval: Mapping[str, Any]) -> Spread:
    return Spread(interval["mean"], interval["low"], interval["high"])


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


def show_gallery(evaluated: Evaluation) -> Iterator[Section]:
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
        f"Image: {choose_composite(run['bands']).caption}. Error: truth and prediction disagree on burned. "
        "Striped: nobody labelled it, or no patch lies there; it counts for nothing."
    ]
    key = [*zip(task.class_names, task.colours, strict=True)]
    key += [(f"error: {word}", colour) for word, colour in ERROR_COLOURS.items()]
    for number, (title, fires) in enumerate(parts.items()):
        strips = [_show_fire(fire, looks[fire["name"]], run["bands"], task) for fire in fires]
        if strips:
            keys = [*key, ("not labelled", _STRIPES)]
            yield Section(name=f"gallery-{number + 1}", title=title, text=text, strips=strips, key=keys)
        text = []


def _show_fire(fire: Content, look: Preview, bands: Sequence[str], task: Task) -> Strip:
    name = fire["name"]
    image = np.where(look.predicted == task.ignore_index, np.float32(math.nan), look.composite_image)
    drawn = {
        "image": (render_composite(image, bands), "Satellite image"),
        "truth": (colour_classes(look.truth, task), "True mask"),
        "prediction": (colour_classes(look.predicted, task), "Predicted mask"),
        "error": (colour_errors(look.truth, look.predicted, task), "Errors"),
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


_LONG = 20


def describe_rival(content: Content) -> Iterator[Section]:
    """The other run that this one was held against."""
    against = content["against"]
    if against is None:
        return
    name, pairs = against["name"], against["fires"]
    rows = []
    for pair in pairs:
        gain = _subtract(pair["ours"], pair["theirs"])
        cells = [show(pair["ours"]), show(pair["theirs"]), show(gain, "+.3f")]
        rows.append([pair["name"], *cells])
    pooled = [
        [f"{content['run']['name']} (this run)", show(against["pooled"]["ours"])],
        [f"{name} (the other)", show(against["pooled"]["theirs"])],
        *([method["label"], show((method["pixels"] or {}).get("fire_iou"))] for method in content["methods"][2:]),
    ]
    tables = [
        Table("Over all pixels, both runs", ["run", "fire IoU"], pooled, "lr"),
        *_list_wins(content, pairs),
        Table(
            f"Fire by fire against {name}",
            ["fire", "ours", "theirs", "difference"],
            rows,
            "lrrr",
            len(rows) > _LONG,
            True,
        ),
    ]
    text = [
        spell_paired(against, name),
        f"The other run: {name}, checkpoint {against['sha256'][:12]}, on the same pixels of split {against['split']}.",
    ]
    picture = plot_paired_ious([pair["ours"] for pair in pairs], [pair["theirs"] for pair in pairs], rival=name)
    yield Section(name="against", title="Against another run", text=text, pictures=[picture], tables=tables)


def _list_wins(content: Content, pairs: Sequence[Content]) -> Iterator[Table]:
    """Who wins where."""
    fires = {fire["name"]: {**fire, "year": (fire["date"] or "")[:4]} for fire in content["fires"]}
    for kind, groups in content["groups"].items():
        gains: dict[str, list[float]] = {group["name"]: [] for group in groups}
        for pair in pairs:
            gain, name = _subtract(pair["ours"], pair["theirs"]), fires.get(pair["name"], {}).get(kind)
            if name in gains and gain is not None:
                gains[name].append(gain)
        rows = [
            [name, *(f"{number:,}" for number in _tally(each)), show(float(np.mean(each)), "+.3f")]
            for name, each in gains.items()
            if each
        ]
        if rows:
            columns = [kind, "won", "lost", "same", "mean difference"]
            title = f"Who wins where, {name_groups(kind).lower()}"
            yield Table(title, columns, rows, "lrrrr", len(rows) > _LONG)


def _subtract(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or theirs is None else ours - theirs


def _tally(gains: Sequence[float]) -> tuple[int, int, int]:
    return sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains), sum(gain == 0 for gain in gains)


def write_report(evaluated: Evaluation, path: Path) -> None:
    """Writes `evaluation_<split>.html`, whole or not at all.

    The bytes depend on the evaluation alone, not on the place or the time of day.

    Args:
        evaluated: What is said, and the fires that are shown.
        path: The HTML file.

    Raises:
        FiresegError: If the file cannot be written.
    """
    content = evaluated.content
    sections = [
        *warn(content),
        describe_scores(content),
        *describe_rival(content),
        describe_groups(content),
        describe_confusion(content),
        describe_probabilities(content),
        describe_detection(content),
        describe_edges(content),
        describe_area(content),
        describe_fires(content),
        *show_gallery(evaluated),
        _describe_origin(content),
    ]
    tab = f"{content['run']['name']} on {content['split']}"
    title, summary = spell_headline(content), spell_summary(content)
    render_page(path, title=title, summary=summary, sections=sections, tab=tab)


def _describe_origin(content: Content) -> Section:
    """Everything to make the same numbers again."""
    run, data, decision = content["run"], content["data"], content["decision"]
    rule = decision["rule"]
    chosen = (
        f"chosen on {decision['chosen_on']}" if decision["chosen_on"] else "not chosen: there was nothing to choose on"
    )
    facts = {
        "run": run["name"],
        "folder": run["folder"],
        "checkpoint": f"{run['checkpoint']}, epoch {run['epoch']}",
        "SHA-256 of the checkpoint": run["sha256"],
        "model": f"{run['arch']} with encoder {run['encoder']}",
        "task": f"{run['task']}: {join(run['class_names'])}",
        "bands": " ".join(run["bands"]),
        "data": data["root"],
        "fingerprint of the data": data["fingerprint"],
        "trained on": "the same data" if data["is_same"] else data["trained_on"],
        "threshold": f"{decision['threshold']:.4g}, {chosen}",
        "temperature": f"{decision['temperature']:.4g}, {chosen}",
        "rule for patches": f"{rule['min_pixels']:,} px with probability {rule['min_probability']:.3g}, {chosen}",
        "fireseg": run["version"],
    }
    tables = [
        Table("Run, data and decisions", ["what", "which"], [[key, str(value)] for key, value in facts.items()], "ll")
    ]
    if data["leaks"]:
        rows = [[kind, between] for kind, _, between in (leak.partition(": ") for leak in data["leaks"])]
        tables.append(Table("Leaks accepted", ["kind", "between"], rows, "ll", len(rows) > _LONG))
    text = [f"evaluation_{content['split']}.json beside this page has every number to its last digit."]
    return Section(name="origin", title="How it was made", text=text, tables=tables)


NUM_LOOKS = 6
"""Fires at either end."""


class PreviewSelection:
    """Keeps the fires at both ends, and lets go of those in between as soon as it is clear that they are.

    Args:
        num_looks: Fires at either end.
    """

    def __init__(self, num_looks: int = NUM_LOOKS) -> None:
        self._num_looks = num_looks
        self._kept: list[tuple[float, str, Preview]] = []

    @property
    def looks(self) -> dict[str, Preview]:
        """What was kept, the best fire first."""
        return {name: look for _, name, look in reversed(self._kept)}

    def add(self, fire: Mosaic, classes: Classes, iou: float) -> None:
        """Shows a fire to the gallery.

        Args:
            fire: In one piece.
            classes: What the model draws, `(H, W)`.
            iou: By this it is ranked. NaN, nothing there and nothing found, shows nothing.
        """
        if math.isnan(iou):
            return
        self._kept.append((iou, fire.fire.name, make_preview(fire, classes)))
        self._kept.sort(key=lambda kept: kept[:2])
        if len(self._kept) > 2 * self._num_looks:
            del self._kept[self._num_looks]


def make_preview(fire: Mosaic, classes: Classes) -> Preview:
    """Every n-th pixel of a fire, so that it is at most 320 pixels wide and high."""
    thin = slice(None, None, fire.step)
    predicted = np.where(fire.is_covered, classes, np.uint8(IGNORE_INDEX))
    return Preview(
        composite_image=fire.thin_image,
        truth=fire.truth[thin, thin].copy(),
        predicted=predicted[thin, thin].copy(),
    )
