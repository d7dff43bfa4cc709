"""What the page of an evaluation says of all fires together, part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fireseg.evaluating.wording import get_method, is_known, list_warnings, show, show_interval, show_share
from fireseg.render.evaluation import (
    Spread,
    show_areas,
    show_confusion,
    show_groups,
    show_pairs,
    show_precision_recall,
    show_reliability,
)
from fireseg.render.page import Cell, Section, Table

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
        pictures.append(show_pairs(ours, theirs, rival=rival))
    for kind, rows in content["groups"].items():
        title = name_groups(kind)
        cells = [[row["name"], *_compare_group(row)] for row in rows]
        columns = [kind, "fires", "IoU of model", f"IoU of {rival}", "difference"]
        tables.append(Table(title, columns, cells, "lrrrr", len(rows) > _MOST_DRAWN))
        if 1 < len(rows) <= _MOST_DRAWN:
            drawn = {row["name"]: (_to_spread(row["iou"]), _to_spread(row["index_tuned_iou"])) for row in rows}
            pictures.append(show_groups(drawn, title=title, rival=rival))
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
    picture = show_confusion(counts, names)
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
        show_reliability(found["reliability"]["before"], found["reliability"]["after"]),
        show_precision_recall(found["precision_recall"], point=point, rules=rules),
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
    picture = show_areas([fire["true_ha"] for fire in fires], [fire["predicted_ha"] for fire in fires])
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
