"""Names of the bands of a pair of scenes, after and before a fire."""

from __future__ import annotations

from collections.abc import Sequence

PRE_SUFFIX = "_PRE"
"""End of the name of a band of the scene before the fire, such as `B12_PRE`; those of the scene after it come first."""


def get_band(name: str) -> str:
    """Returns the band of the instrument that a channel holds, of whichever of the two scenes.

    Example:
        >>> get_band("B12_PRE"), get_band("B8A")
        ('B12', 'B8A')
    """
    return name.removesuffix(PRE_SUFFIX)


def add_pre_bands(bands: Sequence[str], pre: bool = True) -> tuple[str, ...]:
    """Returns bands, followed by the same bands of the scene before the fire.

    Args:
        bands: Bands of the scene after the fire; those of the scene before it that are among them already are kept.
        pre: False to return the bands as they are.

    Example:
        >>> add_pre_bands(["B08", "B12"])
        ('B08', 'B12', 'B08_PRE', 'B12_PRE')
    """
    wanted = [f"{band}{PRE_SUFFIX}" for band in bands if not band.endswith(PRE_SUFFIX)] if pre else []
    return (*bands, *(name for name in wanted if name not in bands))


def split_pair(bands: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Splits the bands of a pair into those of the scene after the fire and those of the scene before it.

    Returns:
        Both without the suffix, so that they are the names in the rasters; the second is empty for a single scene.

    Example:
        >>> split_pair(["B08", "B12", "B12_PRE"])
        (('B08', 'B12'), ('B12',))
    """
    pre = tuple(get_band(band) for band in bands if band.endswith(PRE_SUFFIX))
    return tuple(band for band in bands if not band.endswith(PRE_SUFFIX)), pre


def describe_wrong_pair(bands: Sequence[str]) -> str:
    """Describes why the order of bands is none of a pair; empty if there is nothing wrong with it."""
    is_pre = [band.endswith(PRE_SUFFIX) for band in bands]
    if bands and all(is_pre):
        return f"only bands before the fire ({' '.join(bands)}); name some of the scene after it, too"
    if is_pre != sorted(is_pre):
        return "bands before the fire (…_PRE) must follow all those of the scene after it"
    return ""
