"""An evaluation in a sentence or two, and its numbers as words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fireseg.render.page import Cell

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
