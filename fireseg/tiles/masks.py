"""Reads masks as classes on the grid of their image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader
from rasterio.warp import reproject, transform_bounds
from rasterio.windows import Window, from_bounds

from fireseg.data.statistics import count_values
from fireseg.errors import FiresegError, join_names
from fireseg.geo.grid import GDAL_ERRORS
from fireseg.task import CLEAR, IGNORE_INDEX, SHADOW, TASKS
from fireseg.tiles.options import DEFAULT_LABELS, LabelOptions

MaskKind = Literal["DEL", "GRA", "CM"]

NUM_VALUES: dict[MaskKind, int] = {
    "DEL": TASKS["del"].num_classes,
    "GRA": TASKS["gra"].num_classes,
    "CM": SHADOW + 1,
}

_MAX_VALUES_SHOWN = 5

_MAX_SHIFT_PX = 0.1
"""Largest shift of a mask against its image: less than the accuracy of labels, more than rounding of coordinates."""

_MIN_UNSEEN_SHARE = 0.5
"""Share of the 255s of a delineation without a 1 that must lie where the image shows no ground, to mean unknown."""


@dataclass(frozen=True, kw_only=True)
class Mask:
    """A mask on the grid of its image.

    Attributes:
        values: `(H, W)` uint8, the classes of its kind, 255 where unknown.
        doubtful: `(H, W)`, True for the 255s of a delineation without a single 1, if nothing declares that they mean
            unknown; None for all other masks.
        flags: Warnings about suspicious values, each prefixed with the file.
    """

    values: NDArray[np.uint8]
    doubtful: NDArray[np.bool_] | None = None
    flags: tuple[str, ...] = ()


def read_mask(
    raster: DatasetReader, kind: MaskKind, image: DatasetReader, labels: LabelOptions = DEFAULT_LABELS
) -> Mask:
    """Reads a mask and checks its grid and values.

    Args:
        raster: The mask; a png without a georeference lies on the grid of the image if it has the same size.
        kind: DEL, GRA or CM.
        image: Image of the tile.
        labels: Meaning of the values, and treatment of other grids.

    Raises:
        FiresegError: If it has several channels, invalid values, or another grid that may not be aligned.
    """
    path = raster.name
    if raster.count != 1:
        raise FiresegError(f"{path}: {raster.count} channels, but a mask has one; check that it is no picture")
    window = Window(0, 0, raster.width, raster.height)  # pyright: ignore[reportCallIssue]  # attrs class
    differences = describe_grid_difference(raster, image)
    if differences:
        if not labels.align_masks:
            cure = "use one grid for both, or warp the mask to the grid of the image with --align-masks"
            raise FiresegError(f"{path}: {differences} {Path(image.name).name}; {cure}")
        window = _find_overlap(raster, image)
    values = raster.read(1, window=window)
    masked = None
    if MaskFlags.per_dataset in raster.mask_flag_enums[0]:
        masked = raster.read_masks(1, window=window) == 0
        values = np.where(masked, 0, values)
    try:
        mask, flags = normalize_mask(values, kind, raster.nodata, labels.class_map(kind))
    except FiresegError as error:
        raise FiresegError(f"{path}: {error}") from error
    doubtful = None
    is_declared = raster.nodata == IGNORE_INDEX or IGNORE_INDEX in labels.class_map(kind)
    if kind == "DEL" and not is_declared and not (mask == 1).any():
        doubtful = values == IGNORE_INDEX
    if masked is not None:
        mask[masked] = IGNORE_INDEX
    if differences:
        a, b, _, d, e, _ = tuple(raster.transform)[:6]
        x, y = _apply(raster.transform, (window.col_off, window.row_off))
        transform = Affine(a, b, x, d, e, y)
        mask = _align(mask, transform, raster, image, fill=IGNORE_INDEX)
        if doubtful is not None:
            doubtful = _align(doubtful.astype(np.uint8), transform, raster, image, fill=0) == 1
    return Mask(values=mask, doubtful=doubtful, flags=tuple(f"{path}: {flag}" for flag in flags))


def check_unknown_pixels(
    path: Path, mask: Mask, unknown: NDArray[np.bool_], cloud: NDArray[np.uint8] | None, *, has_grading: bool
) -> None:
    """Checks that 255 does not mean burned in a delineation that has no 1.

    It is taken as unknown if most of these pixels lie where the image shows no ground: without data, or under
    cloud or shadow.

    Args:
        path: File of the mask.
        mask: The delineation.
        unknown: `(H, W)`, True where the image has no data.
        cloud: Cloud mask, if there is one.
        has_grading: True if the tile has a grading as well.

    Raises:
        FiresegError: If 255 seems to mean burned.
    """
    if mask.doubtful is None or not (count := int(mask.doubtful.sum())):
        return
    unseen = unknown if cloud is None else unknown | (cloud != CLEAR)
    if int((mask.doubtful & unseen).sum()) > _MIN_UNSEEN_SHARE * count:
        return
    kind = "DEL:" if has_grading else ""
    raise FiresegError(
        f"{path}: no pixel is 1, but {count} pixels are {IGNORE_INDEX}, which means unknown, and the image shows the "
        f"ground there; if they are burned, --classes {kind}{IGNORE_INDEX}=1 says so; if they are unknown, "
        f"--classes {kind}{IGNORE_INDEX}={IGNORE_INDEX}"
    )


def normalize_mask(
    values: NDArray[Any], kind: MaskKind, nodata: float | None, classes: Mapping[float, int] | None = None
) -> tuple[NDArray[np.uint8], list[str]]:
    """Converts a mask to uint8, with 255 for unknown pixels.

    Args:
        values: Values of the raster, `(H, W)` of any numeric type.
        kind: DEL (0, 1), GRA (0 to 4) or CM (0 to 3). DEL and GRA may also hold 255.
        nodata: Nodata tag of the raster.
        classes: Class of values that mean another one, all replaced at once; they have priority over the tag.

    Returns:
        The mask, and warnings about suspicious values.

    Raises:
        FiresegError: If a value is invalid for this kind of mask.
    """
    num_values = NUM_VALUES[kind]
    classes = classes or {}
    flags = []
    unknown = np.isnan(values) if values.dtype.kind == "f" else None
    if nodata is not None and not math.isnan(nodata) and nodata not in classes:
        # Where another value becomes the class of the tag's number, the number itself does not mean that class.
        if nodata in range(num_values) and nodata not in classes.values():
            flags.append(
                f"nodata tag {nodata:g} is also a value of {kind} and is ignored; "
                f"set the tag to {IGNORE_INDEX}, or unset it with gdal_edit.py -unsetnodata"
            )
        else:
            tagged = values == nodata
            unknown = tagged if unknown is None else unknown | tagged
    if classes:
        values = _replace_values(values, classes)
    _check_values(values, unknown, kind)
    if unknown is not None and unknown.any():
        values = np.where(unknown, IGNORE_INDEX, values)
    mask = values.astype(np.uint8)
    is_doubtful = kind == "DEL" and IGNORE_INDEX not in classes and not (mask == 1).any()
    if is_doubtful and (num_unknown := int((mask == IGNORE_INDEX).sum())):
        flags.append(
            f"no pixel is 1, but {num_unknown} pixels are {IGNORE_INDEX}, which means unknown; "
            f"if they are burned, --classes {IGNORE_INDEX}=1 says so"
        )
    return mask, flags


def _replace_values(values: NDArray[Any], classes: Mapping[float, int]) -> NDArray[Any]:
    replaced = values.astype(np.result_type(values, np.int16))  # 255 does not fit into int8
    for value, target in classes.items():
        replaced[values == value] = target
    return replaced


def _check_values(values: NDArray[Any], unknown: NDArray[np.bool_] | None, kind: MaskKind) -> None:
    known = values if unknown is None or not unknown.any() else values[~unknown]
    present = count_values(known) if known.dtype == np.uint8 else np.unique(known).tolist()
    allowed = {*range(NUM_VALUES[kind])} | ({IGNORE_INDEX} if kind != "CM" else set())
    if invalid := [value for value in present if value not in allowed]:
        shown = join_names([f"{value:g}" for value in invalid], _MAX_VALUES_SHOWN)
        also = f" and {IGNORE_INDEX} for unknown" if kind != "CM" else ""
        raise FiresegError(
            f"{'value' if len(invalid) == 1 else 'values'} {shown}, but {kind} has 0 to {NUM_VALUES[kind] - 1}{also}; "
            "check that the file is this kind of mask, or say what its values mean, such as --classes 2=1"
        )


def describe_grid_difference(mask: DatasetReader, image: DatasetReader, *, max_shift_px: float = _MAX_SHIFT_PX) -> str:
    """Describes how two grids differ, as text before the name of the image; empty if they match.

    Args:
        mask: Mask, or map of land cover.
        image: Image of its tile.
        max_shift_px: Largest shift of grids that match.
    """
    if mask.shape != image.shape:
        return f"{mask.height} x {mask.width} pixels, but {image.height} x {image.width} in"
    is_png = mask.driver == "PNG"  # holds no georeference; a world file gives it a transform only
    if is_png and mask.crs is None and mask.transform.is_identity:
        return ""
    if mask.crs != image.crs and not (is_png and mask.crs is None):
        names = [raster.crs.to_string() if raster.crs else "no reference system" for raster in (mask, image)]
        return f"{names[0]}, but {names[1]} in"
    corners = [(col, row) for col in (0, image.width) for row in (0, image.height)]
    moved = [_apply(~image.transform, _apply(mask.transform, corner)) for corner in corners]
    shift = max(abs(was - now) for pair in zip(corners, moved, strict=True) for was, now in zip(*pair, strict=True))
    return f"shifted by {shift:.2g} pixels against" if shift > max_shift_px else ""


def _apply(transform: Affine, point: tuple[float, float]) -> tuple[float, float]:
    # Written out, because the operator for it changes between versions of affine.
    x, y = point
    return transform.a * x + transform.b * y + transform.c, transform.d * x + transform.e * y + transform.f


def _find_overlap(mask: DatasetReader, image: DatasetReader) -> Window:
    """Returns the window of a mask that covers its image, so that a mask of a whole country is not read.

    Raises:
        FiresegError: If the mask has no reference system, or does not overlap the image.
    """
    if mask.crs is None or mask.transform.is_identity:
        cure = "set its georeference with gdal_edit.py -a_srs EPSG:… -a_ullr west north east south"
        raise FiresegError(f"{mask.name}: no georeference, so it cannot be aligned with its image; {cure}")
    try:
        bounds = transform_bounds(image.crs, mask.crs, *image.bounds) if mask.crs != image.crs else image.bounds
    except GDAL_ERRORS as error:
        raise FiresegError(
            f"{mask.name}: its reference system does not cover the image ({error}); check that both are right"
        ) from error
    a, rotation, _, skew, e, _ = tuple(mask.transform)[:6]
    if rotation or skew or a < 0 or e > 0:
        return Window(0, 0, mask.width, mask.height)  # pyright: ignore[reportCallIssue]  # attrs class
    covered = from_bounds(*bounds, transform=mask.transform)
    bottom, right = covered.row_off + covered.height, covered.col_off + covered.width
    if covered.row_off >= mask.height or covered.col_off >= mask.width or min(bottom, right) <= 0:
        raise FiresegError(
            f"{mask.name}: lies wholly outside of {Path(image.name).name}; check that it belongs to this image, and "
            "the reference systems of both"
        )
    top, left = max(math.floor(covered.row_off) - 1, 0), max(math.floor(covered.col_off) - 1, 0)
    bottom, right = min(math.ceil(bottom) + 1, mask.height), min(math.ceil(right) + 1, mask.width)
    return Window(left, top, right - left, bottom - top)  # pyright: ignore[reportCallIssue]


def _align(
    values: NDArray[np.uint8], transform: Affine, mask: DatasetReader, image: DatasetReader, *, fill: int
) -> NDArray[np.uint8]:
    """Warps values to the grid of the image by the nearest pixel, with a fill value beyond their extent."""
    aligned = np.full(image.shape, fill, np.uint8)
    reproject(
        values,
        aligned,
        src_transform=transform,
        src_crs=mask.crs,
        src_nodata=fill,
        dst_transform=image.transform,
        dst_crs=image.crs,
        dst_nodata=fill,
        tolerance=0,  # an approximate transformation would choose a neighbour here and there
    )
    return aligned
