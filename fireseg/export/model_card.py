"""Writes the model card of an exported model: use, training data, audit, results with intervals, limits, licence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fireseg.console import format_command, format_count, format_hectares, format_interval, format_name, format_score
from fireseg.data.format import read_manifest
from fireseg.errors import FiresegError
from fireseg.runs import TrainedModel
from fireseg.runs.patches import find_patches_root
from fireseg.runs.summary import Results, read_evaluation

_TEMPLATE = "model_card.md.j2"

_AUDIT = "audit.json"

_MAX_LEAKS = 5


def write_model_card(
    path: Path, trained: TrainedModel, report: Mapping[str, Any], *, licence: str | None, data: Path | None = None
) -> None:
    """Writes the model card as Markdown.

    Args:
        path: File to write.
        trained: Model of the run.
        report: Content of parity.json.
        licence: Licence of the weights; None if it is not stated.
        data: Folder of the patches given by the user, or None.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_escape,
    )
    provenance = trained.provenance
    evaluations = _read_evaluations(trained)
    text = environment.get_template(_TEMPLATE).render(
        format=report["format"],
        model=report["model"],
        files=report["files"],
        parity=report["parity"],
        training=_describe_training(trained, provenance),
        audit=_describe_audit(trained, provenance, data, evaluations),
        results=[_describe_results(results) for results in evaluations],
        notes=_list_notes(evaluations),
        missing=_describe_missing(trained),
        licence=licence,
        initial_weights=_describe_initial_weights(trained, provenance),
    )
    path.write_text(format_name(text, keep="\n"), encoding="utf-8")


def _escape(value: Any) -> Any:
    """Keeps names from ending a line or a cell of a table; cells are joined before."""
    return " ".join(value.split("\n")) if isinstance(value, str) else value


def _cell(value: object) -> str:
    return format_name(value).replace("|", "\\|")


def _describe_training(trained: TrainedModel, provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    data = provenance.get("data", {})
    root = data.get("root") or trained.settings.get("data", {}).get("root", "not recorded")
    names, counts = trained.task.class_names, data.get("class_counts", [])
    pixels = ", ".join(f"{name} {count:,}" for name, count in zip(names, counts, strict=False))
    versions = provenance.get("versions", {})
    rows = [
        ("patches", _cell(" + ".join(root) if isinstance(root, list) else root)),
        ("fingerprint of the patches (SHA-256)", f"`{trained.fingerprint}`"),
        ("labelled training pixels", pixels or "not recorded"),
        ("self-training", _cell(trained.self_training)),
        *_describe_checkpoints(trained),
        ("initial weights", _cell(_describe_initial_weights(trained, provenance))),
        ("software", _cell(", ".join(f"{name} {version}" for name, version in versions.items()) or "not recorded")),
        ("commit", _cell(provenance.get("git_commit") or "not recorded")),
    ]
    return [row for row in rows if row != ("self-training", "None")]


def _describe_checkpoints(trained: TrainedModel) -> list[tuple[str, str]]:
    """Describes the training of the checkpoint, or of each one of an ensemble."""
    if trained.members:
        return [
            (f"run {number}", "; ".join(f"{name} {value}" for name, value in _describe_checkpoints(member)))
            for number, member in enumerate(trained.members, start=1)
        ]
    fold = trained.settings.get("data", {}).get("fold")
    return [
        *([] if fold is None else [("fold", str(fold))]),
        ("seed", str(trained.settings.get("seed", "not recorded"))),
        ("epoch of this checkpoint", str(trained.epoch)),
        ("fire IoU on val, all pixels, argmax", format_score(trained.val_fire_iou)),
    ]


def _describe_initial_weights(trained: TrainedModel, provenance: Mapping[str, Any]) -> str:
    weights = provenance.get("weights", {})
    source = weights.get("source") or str(trained.settings["model"].get("weights", "not recorded"))
    if source.startswith("none"):
        return "none (random), so no licence of others applies to them"
    sha256 = f", SHA-256 {weights['sha256']}" if weights.get("sha256") else ""
    trained_on = weights.get("fingerprint", trained.fingerprint)
    patches = "" if trained_on == trained.fingerprint else f", trained on other patches (fingerprint {trained_on[:12]})"
    return _cell(f"{source}{sha256}{patches}; their own licence applies, see their source")


def _describe_audit(
    trained: TrainedModel, provenance: Mapping[str, Any], data: Path | None, evaluations: Sequence[Results]
) -> list[str]:
    """Describes what is known about leaks between the splits."""
    lines = []
    try:
        root = find_patches_root(trained.settings, provenance, data)
        for folder in root if isinstance(root, list) else [root]:
            lines += _describe_folder(folder)
    except (FiresegError, KeyError):
        lines.append("The patches are not available on the machine of the export, so their audit could not be read.")
    leaks = list(dict.fromkeys(leak for results in evaluations for leak in results["data"]["leaks"]))
    if leaks:
        shown = "; ".join(_cell(leak) for leak in leaks[:_MAX_LEAKS])
        more = f"; and {len(leaks) - _MAX_LEAKS} more" if len(leaks) > _MAX_LEAKS else ""
        lines.append(f"**The splits leak**, so results are too good: {shown}{more}.")
    elif evaluations:
        lines.append("The evaluations found no leak between the splits.")
    return lines


def _describe_folder(folder: Path) -> list[str]:
    lines, manifest = [], read_manifest(folder)
    if manifest is None:
        lines.append(f"{_cell(folder.name)}: not made by `fireseg prepare`.")
    else:
        patches = ", ".join(f"{split} {count:,}" for split, count in manifest.patches.items())
        lines.append(f"{_cell(folder.name)}: patches by split: {patches}.")
        if manifest.leaks:
            lines.append(f"**{format_count(len(manifest.leaks), 'leak')} between splits accepted when it was made.**")
    try:
        audit = json.loads((folder / _AUDIT).read_bytes())
        found = ", ".join(f"{kind} {count}" for kind, count in audit["counts"].items() if count)
        tiles = f"{format_count(audit['num_tiles'], 'tile')} of {format_count(audit['num_activations'], 'activation')}"
        lines.append(
            f"{_cell(folder.name)}: {tiles} audited: " + (found or f"no leaks between {audit['between']}") + "."
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        lines.append(f"{_cell(folder.name)}: no audit of its tiles ({_AUDIT}).")
    return lines


def _read_evaluations(trained: TrainedModel) -> list[Results]:
    """Reads the evaluations of this checkpoint, on whichever patches."""
    if trained.folder is None:
        return []
    found = [read_evaluation(path) for path in sorted(trained.folder.path.glob("evaluation_*.json"))]
    return [results for results in found if results is not None and results["run"]["sha256"] == trained.sha256]


def _describe_results(results: Results) -> list[str]:
    data, methods = results["data"], {method["name"]: method for method in results["methods"]}
    model, index, unburned = methods["model"], methods["index_tuned"], methods["model"]["unburned"]
    patches = (
        results["split"] if data["is_same"] else f"{results['split']} of other patches ({data['fingerprint'][:8]})"
    )
    alarms = "-"
    if unburned["num"]:
        area = unburned.get("predicted_ha")
        hectares = "" if area is None else f", {format_hectares(area)}"
        alarms = f"{unburned['num_false_alarms']} of {unburned['num']} tiles{hectares}"
    return [
        _cell(patches),
        str(data["fires"]),
        format_interval(model["fires"]["iou"]),
        format_score(model["pixels"]["fire_iou"]),
        format_score(index["pixels"]["fire_iou"]) if index["is_there"] else "-",
        alarms,
    ]


def _list_notes(evaluations: Sequence[Results]) -> list[str]:
    return [
        f"The threshold was chosen on {results['split']}, so its scores are optimistic."
        for results in evaluations
        if results["decision"]["is_optimistic"]
    ]


def _describe_missing(trained: TrainedModel) -> str:
    if not any(one.folder for one in trained.members or (trained,)):
        return "the model was exported without its run folder."
    return f"`{_cell(format_command('evaluate', Path(trained.argument)))}` makes one; export again afterwards."
