"""The page of an evaluation: the gain over the index first, then all numbers, curves and fires."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fireseg.evaluating.chapters import (
    describe_area,
    describe_confusion,
    describe_detection,
    describe_edges,
    describe_groups,
    describe_probabilities,
    describe_scores,
    warn,
)
from fireseg.evaluating.each_fire import describe_fires, show_gallery
from fireseg.evaluating.result import Evaluated
from fireseg.evaluating.rival import describe_rival
from fireseg.evaluating.wording import join, spell_headline, spell_summary
from fireseg.render.page import Section, Table, render_page

Content = Mapping[str, Any]

_LONG = 20


def write_page(evaluated: Evaluated, path: Path) -> None:
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
