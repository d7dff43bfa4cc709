"""What one pass over the pixels of a patch finds, whatever the task."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class PatchFacts:
    """One patch in numbers. Those about pixels are there only where image and mask fit together.

    Args:
        name: Its name.
        image_shape: As stored, `(H, W, C)` where all is well.
        image_dtype: As stored, `float32` where all is well.
        mask_shape: As stored, `(H, W)` where all is well.
        mask_dtype: As stored, `uint8` where all is well.
        low: Smallest finite value of the image.
        high: Largest finite value of the image.
        num_not_finite: How many values of the image are NaN or infinite.
        pixels: How many pixels of the mask have each value that occurs, the ignored one included.
        band_sums: Sum of each channel over the labelled pixels, in float64.
        band_squares: Sum of squares of each channel over the labelled pixels, in float64.
        digest: SHA-256 of the values: the same however they are stored.
    """

    name: str
    image_shape: tuple[int, ...]
    image_dtype: str
    mask_shape: tuple[int, ...]
    mask_dtype: str
    low: float = 0.0
    high: float = 0.0
    num_not_finite: int = 0
    pixels: dict[int, int] = field(default_factory=dict)
    band_sums: tuple[float, ...] = ()
    band_squares: tuple[float, ...] = ()
    digest: str = ""

    @property
    def is_sound(self) -> bool:
        """Whether image and mask have the types wanted and fit together, so that their pixels were counted."""
        return bool(self.digest)

    def num_labelled(self, ignore_index: int) -> int:
        """How many pixels somebody labelled."""
        return sum(count for value, count in self.pixels.items() if value != ignore_index)

    def num_burned(self, ignore_index: int) -> int:
        """How many labelled pixels are burned, whatever the grade."""
        return sum(count for value, count in self.pixels.items() if value not in (0, ignore_index))

    def burned_share(self, ignore_index: int) -> float:
        """Share of burned among labelled pixels, 0 where nothing is labelled."""
        return self.num_burned(ignore_index) / max(self.num_labelled(ignore_index), 1)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the cache."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> PatchFacts:
        """The facts that `to_json` wrote."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in record.items()
        }
        values["pixels"] = {int(value): count for value, count in record["pixels"].items()}
        return cls(**values)


def count_values(mask: NDArray[np.uint8]) -> dict[int, int]:
    """How many pixels have each value that occurs."""
    counts = np.bincount(mask.ravel(), minlength=256)
    return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def measure(name: str, image: NDArray[Any], mask: NDArray[Any], ignore_index: int) -> PatchFacts:
    """Counts and sums of one patch.

    Args:
        name: Its name.
        image: What the image file holds.
        mask: What the mask file holds.
        ignore_index: Pixels of this value stay out of the sums.
    """
    facts: dict[str, Any] = {
        "name": name,
        "image_shape": image.shape,
        "image_dtype": str(image.dtype),
        "mask_shape": mask.shape,
        "mask_dtype": str(mask.dtype),
    }
    types_fit = image.dtype == np.float32 and mask.dtype == np.uint8
    if not types_fit or image.ndim != 3 or image.shape[:2] != mask.shape or image.size == 0:
        return PatchFacts(**facts)
    facts |= _extent(image)
    if not facts["num_not_finite"]:
        facts |= _sums(image, mask, ignore_index)
    return PatchFacts(**facts, pixels=count_values(mask), digest=_digest(image, mask))


def _extent(image: NDArray[np.float32]) -> dict[str, Any]:
    low, high, num_not_finite = float(image.min()), float(image.max()), 0
    if not (np.isfinite(low) and np.isfinite(high)):  # NaN and infinity come through min and max
        finite = image[np.isfinite(image)]
        num_not_finite = image.size - finite.size
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    return {"low": low, "high": high, "num_not_finite": num_not_finite}


def _sums(image: NDArray[np.float32], mask: NDArray[np.uint8], ignore_index: int) -> dict[str, Any]:
    labelled = mask != ignore_index
    pixels = image.reshape(-1, image.shape[2]) if labelled.all() else image[labelled]
    bands = pixels.T.astype(np.float64, order="C")
    return {
        "band_sums": tuple(float(total) for total in bands.sum(axis=1)),
        "band_squares": tuple(float(total) for total in np.square(bands, out=bands).sum(axis=1)),
    }


def _digest(image: NDArray[np.float32], mask: NDArray[np.uint8]) -> str:
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    digest.update(np.ascontiguousarray(mask).data)
    return digest.hexdigest()
