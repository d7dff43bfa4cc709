"""Two runs held against each other, fire by fire."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fireseg.evaluating.chapters import name_groups
from fireseg.evaluating.wording import show, spell_paired
from fireseg.render.evaluation import show_pairs
from fireseg.render.page import Section, Table

Content = Mapping[str, Any]

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
    picture = show_pairs([pair["ours"] for pair in pairs], [pair["theirs"] for pair in pairs], rival=name)
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
