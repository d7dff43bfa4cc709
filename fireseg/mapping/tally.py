"""What a map says in numbers, counted while its rows go by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fireseg.mapping.decide import Decided

_HA_M2 = 10_000.0


@dataclass
class Tally:
    """Pixels and hectares of each class, and how sure the surest pixel is.

    Args:
        num_classes: Unburned included.

    Attributes:
        pixels: Of each class, `(K,)`.
        area_m2: Of each class, `(K,)`, on the ellipsoid.
        num_unknown: Pixels that a band has no value for.
        confidence: Largest fire probability of all pixels, 0 to 1; 0 where all are unknown.
    """

    num_classes: int
    pixels: NDArray[np.int64] = field(init=False)
    area_m2: NDArray[np.float64] = field(init=False)
    num_unknown: int = 0
    confidence: float = 0.0

    def __post_init__(self) -> None:
        self.pixels = np.zeros(self.num_classes, np.int64)
        self.area_m2 = np.zeros(self.num_classes)

    def add(self, decided: Decided, area_m2: NDArray[np.floating] | None = None) -> None:
        """Counts some rows.

        Args:
            decided: Of these rows.
            area_m2: Of their pixels, `(n, W)`, or `(n, 1)` where those of a row are alike; None: of no size.
        """
        counts = np.bincount(decided.classes.ravel(), minlength=256)
        self.pixels += counts[: self.num_classes]
        self.num_unknown += int(decided.classes.size - counts[: self.num_classes].sum())
        if counts[: self.num_classes].any():
            self.confidence = max(self.confidence, float(np.nanmax(decided.fire)))
        if area_m2 is None:
            return
        for number in np.flatnonzero(counts[: self.num_classes]):
            is_it = decided.classes == number
            if area_m2.shape[1] == 1:
                self.area_m2[number] += float(is_it.sum(axis=1) @ area_m2[:, 0].astype(np.float64))
            else:
                self.area_m2[number] += float(np.sum(area_m2, where=is_it, dtype=np.float64))

    @property
    def fraction(self) -> float:
        """Share of the known pixels that burned, 0 to 1; 0 where none is known."""
        return float(self.pixels[1:].sum() / max(int(self.pixels.sum()), 1))

    @property
    def unknown_share(self) -> float:
        """Share of all pixels that nothing is known of, 0 to 1."""
        return self.num_unknown / max(self.num_unknown + int(self.pixels.sum()), 1)

    @property
    def has_fire(self) -> bool:
        """Whether any pixel burned."""
        return bool(self.pixels[1:].any())

    @property
    def hectares(self) -> list[float]:
        """Of each class."""
        return [float(area) / _HA_M2 for area in self.area_m2]

    @property
    def burned_ha(self) -> float:
        """Hectares of all burned classes together."""
        return sum(self.hectares[1:])

    def as_dict(self, class_names: tuple[str, ...]) -> dict[str, Any]:
        """In plain values, for a json file."""
        return {
            "has_fire": self.has_fire,
            "confidence": self.confidence,
            "fraction": self.fraction,
            "burned_ha": self.burned_ha,
            "hectares": dict(zip(class_names, self.hectares, strict=True)),
            "unknown_share": self.unknown_share,
            "pixels": {**dict(zip(class_names, self.pixels.tolist(), strict=True)), "unknown": self.num_unknown},
        }
