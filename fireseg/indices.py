"""Spectral indices: formulas over reflectance, and their values as further channels of a model's input.

Names and formulas are those of Awesome Spectral Indices (Montero et al. 2023, doi:10.1038/s41597-023-02096-0). A
trained model depends on its formulas, ranges and constants: do not change an entry, add one with another name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fireseg.errors import did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

_BANDS = {
    "blue": ("B02",),
    "green": ("B03",),
    "red": ("B04",),
    "edge2": ("B06",),
    "edge3": ("B07",),
    "nir": ("B08", "B8A"),
    "narrow_nir": ("B8A",),
    "swir1": ("B11",),
    "swir2": ("B12",),
    "pre_nir": ("B08_PRE", "B8A_PRE"),
    "pre_swir2": ("B12_PRE",),
}
"""Sentinel-2 bands by the names of the formulas; of several, the first that the model has."""

_SMALLEST = 1e-4
"""Smallest divisor: one step of the product, so that only sums of bands that are all 0 are changed."""


def _divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    return numerator / denominator.clamp(min=_SMALLEST)


def _normalised_difference(first: Tensor, second: Tensor) -> Tensor:
    return _divide(first - second, first + second)


_CHANGE_BANDS = ("nir", "swir2", "pre_nir", "pre_swir2")

_SMALLEST_NBR = 1e-3
"""Smallest absolute NBR before the fire in the divisor of RdNBR: one unit of the NBR scaled by 1000."""


def _difference_nbr(nir: Tensor, swir2: Tensor, pre_nir: Tensor, pre_swir2: Tensor) -> tuple[Tensor, Tensor]:
    """Returns dNBR and the NBR before the fire."""
    before = _normalised_difference(pre_nir, pre_swir2)
    return before - _normalised_difference(nir, swir2), before


def _relative_nbr(*bands: Tensor) -> Tensor:
    change, before = _difference_nbr(*bands)
    return change / before.abs().clamp(min=_SMALLEST_NBR).sqrt()


def _burn_ratio(*bands: Tensor) -> Tensor:
    change, before = _difference_nbr(*bands)
    return change / (before + 1.001)


@dataclass(frozen=True)
class Index:
    """A spectral index.

    Attributes:
        bands: Names of the bands that it needs, in the order of the arguments of the formula.
        formula: Computes it from reflectance, 0 or more, of any shape.
        mean: Constant that is subtracted from it in the input of a model.
        std: Constant that it is divided by there, above 0.
        low: Lower end of its range, to which it is clipped.
        high: Upper end of its range.
    """

    bands: tuple[str, ...]
    formula: Callable[..., Tensor]
    mean: float
    std: float
    low: float = -1.0
    high: float = 1.0


# The constants are rounded values over 25 fires in California and over synthetic scenes with all bands; they are fixed,
# so that they need no pass over augmented data and are the same in a resumed run and on every machine.
# Normalised differences are within -1 and 1 by definition. The others have ranges of their own:
# BAI is infinite at its reference point (red 0.1, near infrared 0.06); 95 % of burned pixels are below 530 to 690.
# BAIS2 grows without limit as red approaches 0 (water, shadow); 99.8 % of land is within -0.2 and 1.2.
# MIRBI is linear and follows cloud and hot fire to -8 and 12; 99.8 % of land is within 0.6 and 2.7.
INDICES = {
    "NBR": Index(("nir", "swir2"), _normalised_difference, 0.0, 0.3),
    "NBR2": Index(("swir1", "swir2"), _normalised_difference, 0.1, 0.15),
    "NDVI": Index(("nir", "red"), _normalised_difference, 0.3, 0.2),
    "NDWI": Index(("green", "nir"), _normalised_difference, -0.4, 0.2),
    "MNDWI": Index(("green", "swir1"), _normalised_difference, -0.45, 0.2),
    "NDMI": Index(("nir", "swir1"), _normalised_difference, -0.05, 0.2),
    "BI": Index(
        ("swir1", "red", "nir", "blue"),
        lambda swir1, red, nir, blue: _normalised_difference(swir1 + red, nir + blue),
        mean=0.1,
        std=0.15,
    ),
    "BAI": Index(
        ("red", "nir"),
        lambda red, nir: 1.0 / ((0.1 - red) ** 2 + (0.06 - nir) ** 2).clamp(min=_SMALLEST),
        mean=80.0,
        std=100.0,
        low=0.0,
        high=600.0,
    ),
    "BAIS2": Index(
        ("edge2", "edge3", "narrow_nir", "red", "swir2"),
        lambda edge2, edge3, narrow_nir, red, swir2: (
            (1.0 - _divide(edge2 * edge3 * narrow_nir, red).sqrt())
            * ((swir2 - narrow_nir) / (swir2 + narrow_nir).clamp(min=_SMALLEST).sqrt() + 1.0)
        ),
        mean=0.7,
        std=0.3,
        high=2.0,
    ),
    "MIRBI": Index(
        ("swir2", "swir1"),
        lambda swir2, swir1: 10.0 * swir2 - 9.8 * swir1 + 2.0,
        mean=1.6,
        std=0.4,
        low=0.0,
        high=4.0,
    ),
    "NBRSWIR": Index(
        ("swir2", "swir1"), lambda swir2, swir1: (swir2 - swir1 - 0.02) / (swir2 + swir1 + 0.1), mean=-0.15, std=0.1
    ),
    "NBRplus": Index(
        ("swir2", "narrow_nir", "green", "blue"),
        lambda swir2, narrow_nir, green, blue: _normalised_difference(swir2, narrow_nir + green + blue),
        mean=-0.3,
        std=0.25,
    ),
    # Of a scene before the fire and one after it, unscaled: the literature gives dNBR and RdNBR times 1000.
    # dNBR: Key and Benson, USDA RMRS-GTR-164, 2006. RdNBR: Miller and Thode, doi:10.1016/j.rse.2006.12.006; it is
    # infinite where NBR was 0. RBR: Parks et al., doi:10.3390/rs6031827; -2000 where NBR rises from -1 to 1.
    # Constants from five pairs in California, where 99.8 % of land is within -0.2 and 0.7 (dNBR, RBR).
    "dNBR": Index(_CHANGE_BANDS, lambda *bands: _difference_nbr(*bands)[0], 0.05, 0.15, low=-2.0, high=2.0),
    "RdNBR": Index(_CHANGE_BANDS, _relative_nbr, mean=0.2, std=0.6, low=-2.0, high=2.0),
    "RBR": Index(_CHANGE_BANDS, _burn_ratio, mean=0.05, std=0.12),
}
"""The known indices by name."""


def check_indices(names: Sequence[str]) -> tuple[str, ...]:
    """Checks that all indices are known and none is repeated, and returns them as a tuple.

    Args:
        names: Names of `INDICES`, or none.

    Raises:
        ValueError: If one is unknown or repeated; with all faults.
    """
    unknown = [name for name in names if name not in INDICES]
    faults = [f"no index '{name}'{did_you_mean(name, INDICES)}" for name in unknown]
    faults += [f"{name} is repeated" for name in sorted({name for name in names if names.count(name) > 1})]
    if faults:
        known = f"; use {', '.join(INDICES)}" if unknown else ""
        raise ValueError("; ".join(faults) + known)
    return tuple(names)


def find_missing_bands(names: Iterable[str], bands: Sequence[str]) -> list[str]:
    """Finds the bands that indices need and a model lacks.

    Args:
        names: Indices; unknown ones are ignored.
        bands: Bands of the model.

    Returns:
        One clause for each index that lacks bands.

    Example:
        >>> find_missing_bands(["NBR", "MIRBI"], ["B04", "B08", "B12"])
        ['MIRBI needs B11']
    """
    faults = []
    for name in names:
        needed = [_BANDS[band] for band in INDICES[name].bands] if name in INDICES else []
        if missing := [" or ".join(choices) for choices in needed if not set(choices) & set(bands)]:
            faults.append(f"{name} needs {' and '.join(missing)}")
    return faults


def compute_index(name: str, image: Tensor, bands: Sequence[str]) -> Tensor:
    """Computes an index, clipped to its range.

    Negative reflectance counts as 0, and divisors as at least 0.0001, so that every value is finite.

    Args:
        name: One of `INDICES`.
        image: Reflectance, `(B, C, H, W)` float.
        bands: The C bands; those of the index must be among them.

    Returns:
        `(B, H, W)` float32, from `low` to `high` of the index.
    """
    index = INDICES[name]
    channels = (
        bands.index(next(choice for choice in _BANDS[band] if choice in bands))  # near infrared has two
        for band in index.bands
    )
    # Half precision would lose differences of two similar bands.
    arguments = (image[:, channel].float().clamp(min=0) for channel in channels)
    return index.formula(*arguments).clamp(index.low, index.high)


def append_indices(channels: Tensor, image: Tensor, *, bands: Sequence[str], names: Sequence[str]) -> Tensor:
    """Appends indices to the normalised bands of an image, as `(index - mean) / std`.

    Where all bands are 0, which marks unknown pixels, every index gets its mean and thus says nothing.

    Args:
        channels: Normalised bands, `(B, C, H, W)`.
        image: Reflectance of the same bands, not normalised.
        bands: The C bands.
        names: The I indices.

    Returns:
        `(B, C + I, H, W)`; the argument itself if there are no indices.
    """
    if not names:
        return channels
    import torch

    is_known = image.abs().amax(1) > 0
    values = [
        torch.where(is_known, (compute_index(name, image, bands) - INDICES[name].mean) / INDICES[name].std, 0.0)
        for name in names
    ]
    return torch.cat([channels, torch.stack(values, 1).to(channels.dtype)], 1)
