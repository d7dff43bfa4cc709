"""Several trained runs as one model, the mean of their class probabilities."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fireseg.console import format_count
from fireseg.errors import FiresegError, SettingError
from fireseg.runs.calibration import get_calibration
from fireseg.runs.folder import RunFolder

if TYPE_CHECKING:
    from fireseg.model.ensemble import FireSegmentationEnsemble
    from fireseg.runs.checkpoint import SelfTraining
    from fireseg.runs.load import TrainedModel

log = logging.getLogger("fireseg")

_PREFIX = "ensemble_"

_SHA_DIGITS = 12
"""Digits of the SHA-256 of an ensemble in the name of its folder."""

_PIXEL_TOLERANCE = 0.01
"""Largest relative difference of pixel sizes that are the same but for their projection."""


def split_runs(text: str) -> list[str]:
    """Splits RUN1,RUN2,… into the runs of an ensemble; an existing path is one run, even with a comma in its name.

    Raises:
        SettingError: If there is nothing before or after a comma.

    Example:
        >>> split_runs("outputs/a,outputs/b")
        ['outputs/a', 'outputs/b']
    """
    if "," not in text or Path(text).expanduser().exists():
        return [text]
    names = [name.strip() for name in text.split(",")]
    if "" in names:
        raise SettingError(f"{text}: no run before or after a comma; several runs as one model are RUN1,RUN2,RUN3")
    return names


def load_ensemble(names: Sequence[str], load: Callable[[str], TrainedModel]) -> TrainedModel:
    """Loads several runs as one model, whose class probabilities are the mean of the members'.

    The members' own temperatures are left out, and the ensemble has one of its own, like its threshold: `evaluate`
    chooses both on val. Calibrating the mean is better than averaging what was calibrated before, which is less certain
    than it should be, and the model then does not change when a member is evaluated again.

    The order of the runs changes nothing. What belongs to the ensemble, such as its calibration and its evaluations, is
    in the folder `ensemble_<first digits of its SHA-256>` beside the first run, or beside another one if it is there.
    Its SHA-256 is that of the members' digests, sorted, one a line.

    Args:
        names: At least two run folders, checkpoint files or MLflow URIs.
        load: Loads one of them.

    Raises:
        FiresegError: If one cannot be loaded, is named twice, or differs from the first in task, bands, pixel size,
            processing level or normalisation; with all faults.

    References:
        Rahaman and Thiery, Uncertainty Quantification and Deep Ensembles, NeurIPS 2021.
    """
    members: list[TrainedModel] = []
    errors: list[FiresegError] = []
    for name in names:
        try:
            members.append(load(name))
        except FiresegError as error:
            errors.append(error)
    faults = [fault for error in errors for fault in error.faults]
    faults += [fault for member in members[1:] for fault in _list_differences(members[0], member)]
    faults += _list_twice(members)
    if faults:
        raise FiresegError(*faults)
    return _combine(members)


def _list_differences(first: TrainedModel, other: TrainedModel) -> Iterator[str]:
    pairs = {
        "task": [f"{one.task.name} ({' '.join(one.task.class_names)})" for one in (first, other)],
        "bands": [" ".join(one.bands) for one in (first, other)],
        "processing level": [one.level for one in (first, other)],
        "data.normalisation": ["scene" if one.is_scene_relative else "dataset" for one in (first, other)],
    }
    if first.pixel_m and other.pixel_m and abs(first.pixel_m / other.pixel_m - 1) > _PIXEL_TOLERANCE:
        pairs["pixel size"] = [f"{one.pixel_m:.3g} m" for one in (first, other)]
    for what, (theirs, ours) in pairs.items():
        if None not in (theirs, ours) and theirs != ours:
            yield (
                f"{other.argument}: {what} {ours}, but {theirs} in {first.argument}; runs that are used as one model "
                "have to agree"
            )


def _list_twice(members: Sequence[TrainedModel]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for member in members:
        if member.sha256 in seen:
            yield f"{member.argument}: the same checkpoint as {seen[member.sha256]}; name each run once"
        seen.setdefault(member.sha256, member.argument)


def _combine(members: Sequence[TrainedModel]) -> TrainedModel:
    # In the order of their digests, because sums in another order differ in the last bit.
    ordered = sorted(members, key=lambda member: member.sha256)
    sha256 = _hash([member.sha256 for member in ordered])
    folder = _find_folder(members, sha256)
    trained = replace(
        members[0],
        build_model=lambda: _build(ordered),
        members=tuple(members),
        sha256=sha256,
        epoch=max(member.epoch for member in members),
        fingerprint=_combine_fingerprints(members),
        folder=folder,
        calibration=get_calibration(folder, sha256) if folder else None,
        self_training=_join_self_training(members),
        val_fire_iou=None,
        pixel_m=next((member.pixel_m for member in members if member.pixel_m), None),
        level=next((member.level for member in members if member.level), None),
    )
    log.info(
        "%s: %s as one model: %s",
        trained.name,
        format_count(len(members), "run"),
        ", ".join(member.name for member in members),
    )
    return trained


def _join_self_training(members: Sequence[TrainedModel]) -> SelfTraining | None:
    """Returns the first self-training of the members, with the leaks of all."""
    found = [member.self_training for member in members if member.self_training]
    leaks = tuple(dict.fromkeys(leak for one in found for leak in one.leaks))
    return replace(found[0], leaks=leaks) if found else None


def _build(members: Sequence[TrainedModel]) -> FireSegmentationEnsemble:
    from fireseg.model import FireSegmentationModel
    from fireseg.model.ensemble import FireSegmentationEnsemble

    models = [member.model for member in members]
    ensemble = FireSegmentationEnsemble([model for model in models if isinstance(model, FireSegmentationModel)])
    assert len(ensemble.members) == len(members)
    return ensemble.eval()


def _combine_fingerprints(members: Sequence[TrainedModel]) -> str:
    """Returns the fingerprint of the members' patches, or a digest of no patches if those or the folds differ."""
    keys = {(member.fingerprint, member.settings.get("data", {}).get("fold")) for member in members}
    if len(keys) == 1:
        return members[0].fingerprint
    return _hash(sorted(f"{fingerprint} {fold}" for fingerprint, fold in keys))


def _find_folder(members: Sequence[TrainedModel], sha256: str) -> RunFolder | None:
    """Returns the folder of an ensemble, which need not exist; None if no member is in a run folder."""
    name = f"{_PREFIX}{sha256[:_SHA_DIGITS]}"
    parents = [member.folder.path.resolve().parent for member in members if member.folder]
    choices = [parent / name for parent in parents]
    return next((RunFolder(path) for path in choices if path.is_dir()), RunFolder(choices[0]) if choices else None)


def _hash(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
