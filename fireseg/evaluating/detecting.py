"""Whether a patch burns: what each way of deciding says of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fireseg.metric import Component, DetectionRule, count_detections, detection_scores
from fireseg.task import IGNORE_INDEX


class PatchFacts(NamedTuple):
    """One patch, as far as detection asks; of its labelled pixels alone.

    Attributes:
        is_labelled: Whether there is any.
        burns: Whether any burned.
        peak_odds: Their highest log-odds of fire.
        is_argmax: Whether the likeliest class of any is above 0.
        lowest_ratio: Their lowest burn ratio, infinite where a band is missing.
        is_fixed: Whether any burned by the fixed rule.
        components: The burned areas that a rule may ask for.
    """

    is_labelled: bool
    burns: bool
    peak_odds: float
    is_argmax: bool
    lowest_ratio: float
    is_fixed: bool
    components: tuple[Component, ...]


def sum_up(
    truth: NDArray[np.uint8],
    *,
    odds: NDArray[np.float32],
    argmax: NDArray[np.uint8],
    ratio: NDArray[np.float32] | None,
    fixed: NDArray[np.bool_] | None,
    components: Iterable[Component],
) -> PatchFacts:
    """What of a patch has to be kept, `(S, S)` each.

    Args:
        truth: Classes, 255 where nobody labelled.
        odds: Log-odds of fire.
        argmax: Likeliest class.
        ratio: Burn ratio, None where a band is missing.
        fixed: What the fixed rule calls burned, None where a band is missing.
        components: Of the burned areas in the odds.
    """
    is_labelled = truth != IGNORE_INDEX
    return PatchFacts(
        is_labelled=bool(is_labelled.any()),
        burns=bool((is_labelled & (truth > 0)).any()),
        peak_odds=float(odds[is_labelled].max(initial=-np.inf)),
        is_argmax=bool((is_labelled & (argmax > 0)).any()),
        lowest_ratio=np.inf if ratio is None else float(ratio[is_labelled].min(initial=np.inf)),
        is_fixed=fixed is not None and bool((is_labelled & fixed).any()),
        components=tuple(components),
    )


def score_plainly(patches: Sequence[PatchFacts], calls: Iterable[bool]) -> Mapping[str, float]:
    """Scores of a way of deciding by any pixel.

    Args:
        patches: Those with a labelled pixel.
        calls: Whether each is called burning.
    """
    burns = np.array([patch.burns for patch in patches], np.int64)
    cells = 2 * burns + np.fromiter(calls, np.int64, len(patches))
    return detection_scores(torch.from_numpy(np.bincount(cells, minlength=4).reshape(2, 2)))


def score_rule(patches: Sequence[PatchFacts], rule: DetectionRule) -> Mapping[str, float]:
    """Scores of a rule that asks for size and certainty of a burned area.

    Args:
        patches: Those with a labelled pixel.
        rule: As from `metric.pick_rule`.
    """
    counts = count_detections([patch.components for patch in patches], [patch.burns for patch in patches], rule)
    return detection_scores(torch.from_numpy(counts))
