"""Classes and fire probability of the pixels of a map, and their running totals."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fireseg.decision import apply_threshold, probability_log_odds, severity_classes
from fireseg.geo.grid import M2_PER_HA


class PixelPrediction(NamedTuple):
    """Classes and fire probability of some pixels.

    Attributes:
        classes: Classes, `(H, W)` uint8: 0 unburned, 1 to K - 1 burned, 255 unknown.
        fire: Calibrated fire probability, `(H, W)` float32 in [0, 1]; NaN where unknown.
    """

    classes: NDArray[np.uint8]
    fire: NDArray[np.float32]


def classify(
    probabilities: NDArray[np.float32], unknown: NDArray[np.bool_], *, threshold: float = 0.5, temperature: float = 1.0
) -> PixelPrediction:
    """Calibrates the fire probability and applies the threshold.

    With p the sum of the classes above 0 and d = log(p / (1 - p)), the calibrated probability is
    sigmoid(d / temperature). A pixel burned if it reaches the threshold; its class is then the likeliest one
    above 0. For two classes, temperature 1 and threshold 0.5 this is the argmax.

    Args:
        probabilities: Softmax, `(K, H, W)`, K at least 2.
        unknown: Pixels without a value in some band, `(H, W)`.
        threshold: Lowest calibrated fire probability that counts as burned, above 0 and below 1.
        temperature: Divisor of the log-odds, above 0; values above 1 reduce the confidence.

    References:
        Guo et al., On Calibration of Modern Neural Networks, ICML 2017.

    Example:
        >>> probabilities = np.array([[[0.7, 0.2]], [[0.3, 0.8]]], np.float32)
        >>> classify(probabilities, np.zeros((1, 2), bool), threshold=0.3).classes.tolist()
        [[0, 1]]
    """
    log_odds = probability_log_odds(probabilities)
    severity = severity_classes(probabilities)
    classes = apply_threshold(log_odds, severity, threshold=threshold, temperature=temperature, unknown=unknown)
    log_odds /= -temperature
    with np.errstate(over="ignore"):  # exp(inf) is inf, and 1 / inf is the correct 0
        fire = np.exp(log_odds, out=log_odds)
    fire += 1
    np.reciprocal(fire, out=fire)
    fire[unknown] = np.nan
    return PixelPrediction(classes, fire)


@dataclass
class MapStatistics:
    """Running totals of a map: pixels and area by class, and the largest fire probability.

    Args:
        num_classes: Number of classes, unburned included.

    Attributes:
        pixels: Pixels by class, `(K,)`.
        area_m2: Geodesic area by class in m², `(K,)`.
        num_unknown: Pixels without a value in some band, or under cloud.
        num_cloudy: Pixels under cloud or cloud shadow.
        max_probability: Largest fire probability, 0 to 1; 0 if all pixels are unknown.
    """

    num_classes: int
    pixels: NDArray[np.int64] = field(init=False)
    area_m2: NDArray[np.float64] = field(init=False)
    num_unknown: int = 0
    num_cloudy: int = 0
    max_probability: float = 0.0

    def __post_init__(self) -> None:
        self.pixels = np.zeros(self.num_classes, np.int64)
        self.area_m2 = np.zeros(self.num_classes)

    def add(self, rows: PixelPrediction, area_m2: NDArray[np.floating] | None = None) -> None:
        """Adds some rows.

        Args:
            rows: Prediction of the rows.
            area_m2: Pixel areas in m², `(n, W)`, or `(n, 1)` if equal within a row; None adds no area.
        """
        counts = np.bincount(rows.classes.ravel(), minlength=256)
        self.pixels += counts[: self.num_classes]
        self.num_unknown += int(rows.classes.size - counts[: self.num_classes].sum())
        if counts[: self.num_classes].any():
            self.max_probability = max(self.max_probability, float(np.nanmax(rows.fire)))
        if area_m2 is None:
            return
        for number in np.flatnonzero(counts[: self.num_classes]):
            is_class = rows.classes == number
            if area_m2.shape[1] == 1:
                self.area_m2[number] += float(is_class.sum(axis=1) @ area_m2[:, 0].astype(np.float64))
            else:
                self.area_m2[number] += float(np.sum(area_m2, where=is_class, dtype=np.float64))

    @property
    def burned_fraction(self) -> float:
        """Burned share of the known pixels, 0 to 1; 0 if no pixel is known."""
        return float(self.pixels[1:].sum() / max(int(self.pixels.sum()), 1))

    @property
    def unknown_share(self) -> float:
        """Unknown share of all pixels, 0 to 1."""
        return self.num_unknown / max(self.num_unknown + int(self.pixels.sum()), 1)

    @property
    def cloud_share(self) -> float:
        """Share of all pixels under cloud or cloud shadow, 0 to 1."""
        return self.num_cloudy / max(self.num_unknown + int(self.pixels.sum()), 1)

    @property
    def has_fire(self) -> bool:
        """True if any pixel burned."""
        return bool(self.pixels[1:].any())

    @property
    def hectares(self) -> list[float]:
        """Area by class in hectares."""
        return [float(area) / M2_PER_HA for area in self.area_m2]

    @property
    def burned_ha(self) -> float:
        """Area of all burned classes in hectares."""
        return sum(self.hectares[1:])

    def as_dict(self, class_names: tuple[str, ...]) -> dict[str, Any]:
        """Returns plain values for the JSON summary."""
        return {
            "has_fire": self.has_fire,
            "max_probability": self.max_probability,
            "burned_fraction": self.burned_fraction,
            "burned_ha": self.burned_ha,
            "hectares": dict(zip(class_names, self.hectares, strict=True)),
            "unknown": self.unknown_share,
            "pixels": {**dict(zip(class_names, self.pixels.tolist(), strict=True)), "unknown": self.num_unknown},
        }
