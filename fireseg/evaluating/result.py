"""What an evaluation says, as the plain dict that becomes `evaluation_<split>.json`.

Key by key; a score that cannot be read is None (null on disk), and every `interval` is
`{"mean", "low", "high", "num"}`: the mean over fires, its bootstrap 95 % interval, and over how many.

```
format        1
split         "train", "val" or "test"
run           folder, name, checkpoint (file name), sha256, epoch, task, class_names, colours, arch, encoder, bands,
              version (of fireseg)
data          root, fingerprint, trained_on (fingerprint of the run's own data), is_same, leaks, patches, fires,
              labelled_pixels, hectares_known (whether of every fire)
decision      temperature, threshold, rule {min_pixels, min_probability}, chosen_on ("val", or None where there was
              nothing to choose on), is_optimistic (judged on what it was chosen on)
methods       a list: "model" (temperature and threshold from val) first, then "model_argmax", "index_tuned",
              "index_fixed"; each
                name, label, note, is_there (False: a band is missing, and what follows is None)
                pixels     as `metric.segmentation_scores`; of an index the `fire_*` alone
                fires      iou, dice, precision, recall: an interval each
                edges      boundary_f1_{1,2,3}px, boundary_iou_{1,2,3}px pooled, hausdorff_95_px the median of fires
                area       true_ha, predicted_ha, error_ha, relative_error: of the fires whose hectares are known
                detection  as `metric.detection_scores`: a patch burns if any pixel does
gain          pooled: fire IoU of the model less that of the tuned index; per_fire: {difference (interval), wins,
              losses, ties, p_value}; both None where the index lacks a band
confusion     K x K pixels, rows the truth, of the method "model"
calibration   before and after: {ece, brier, nll, average_precision}; reliability {before, after}: {edges, confidence,
              frequency, pixels}; precision_recall {threshold, precision, recall} of at most 200 points;
              operating_point {threshold, precision, recall}
detection     plain and rule: as `metric.detection_scores`
fires         a list, one a tile, of the method "model": name, activation, country, climate, date, size, burned_share,
              labelled_pixels, iou, dice, precision, recall, true_ha, predicted_ha, boundary_f1_2px, boundary_iou_2px,
              hausdorff_95_px, index_tuned_iou, index_fixed_iou, truth_sha256
groups        size, and country, climate, year where known: lists of {name, num, iou (interval), index_tuned_iou}
against       None, or name, sha256, split, difference (interval of ours less theirs), wins, losses, ties, p_value,
              pooled {ours, theirs}, fires: a list of {name, ours, theirs}
```
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fireseg.disk import replacing

FORMAT = 1
"""Counts up whenever a reader of before could not read what is written now."""

Content = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Look:
    """A fire to be looked at, thinned to at most 320 pixels a side.

    Attributes:
        composite_image: Reflectance of the run's bands, `(C, h, w)` float32; 0 where there is no patch.
        truth: Classes, `(h, w)` uint8, 255 where nobody labelled.
        predicted: Classes, `(h, w)` uint8, 255 where there is no patch.
    """

    composite_image: NDArray[np.float32]
    truth: NDArray[np.uint8]
    predicted: NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """An evaluation, and what its page shows beside.

    Attributes:
        content: The dict that this module describes, plain values only.
        looks: The best and the worst fires, by their name in `content["fires"]`.
    """

    content: Content
    looks: Mapping[str, Look]


def to_plain(value: Any) -> Any:
    """The same in values that JSON has: arrays become lists, tuples with names dicts, NaN and infinity None.

    Example:
        >>> to_plain({"iou": float("nan"), "pixels": np.array([1, 2])})
        {'iou': None, 'pixels': [1, 2]}
    """
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if hasattr(value, "_asdict"):
        return to_plain(value._asdict())
    if isinstance(value, np.ndarray | np.generic):
        return to_plain(value.tolist())
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_content(content: Content, path: Path) -> None:
    """Writes `evaluation_<split>.json`, whole or not at all; the same content gives the same bytes."""
    with replacing(path) as part:
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        part.write_text(text + "\n", encoding="utf-8")


def name_evaluation(split: str, fingerprint: str, trained_on: str) -> str:
    """What an evaluation is filed under: the split, and where the patches are not the run's own, which they are.

    Args:
        split: What the run was judged on.
        fingerprint: Of the patches.
        trained_on: Fingerprint of those that the run was trained on.

    Example:
        >>> name_evaluation("test", "3f2a11bb07", "3f2a11bb07"), name_evaluation("test", "3f2a11bb07", "99")
        ('test', 'test_3f2a11bb')
    """
    return split if fingerprint == trained_on else f"{split}_{fingerprint[:8]}"


def read_content(path: Path) -> Content | None:
    """What `write_content` wrote; None where there is no such file, or one of another format."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get("format") == FORMAT else None
