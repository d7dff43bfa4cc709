"""The quicklook picture of a map, drawn from a thumbnail that is collected while the scene is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fireseg.console import format_hectares, format_name, format_share
from fireseg.data.bands import to_reflectance
from fireseg.plots.maps import render_map
from fireseg.plots.style import choose_composite
from fireseg.predict.outputs import DecisionThreshold, format_date
from fireseg.predict.statistics import MapStatistics
from fireseg.runs import TrainedModel
from fireseg.tiles import SceneReader

_MAX_SIDE_PX = 1000


class Thumbnail:
    """Every n-th pixel of every n-th row of a scene and its map.

    Pixels are sampled, not averaged, so that class shares are kept and no new values appear.

    Args:
        height: Rows of the scene.
        width: Columns of the scene.
        channels: Channels of the scene to keep.
        max_side_px: Maximum length of the longer side of the thumbnail.

    Attributes:
        step: Sampling step n.
        image: Reflectance, `(C, h, w)` float32; NaN where unknown.
        classes: Classes, `(h, w)` uint8; 255 where unknown.
    """

    def __init__(self, height: int, width: int, channels: Sequence[int], *, max_side_px: int = _MAX_SIDE_PX) -> None:
        self.step = max(1, -(-max(height, width) // max_side_px))
        shape = -(-height // self.step), -(-width // self.step)
        self.channels = list(channels)
        self.image = np.full((len(self.channels), *shape), np.nan, np.float32)
        self.classes = np.full(shape, 255, np.uint8)

    @classmethod
    def of_scene(cls, reader: SceneReader) -> Thumbnail:
        """Creates the thumbnail of a scene with the bands that its colour composite needs."""
        bands = list(reader.bands)
        return cls(reader.height, reader.width, [bands.index(band) for band in choose_composite(bands).bands])

    def add_image(self, top: int, image: NDArray[np.uint16], unknown: NDArray[np.bool_], *, left: int = 0) -> None:
        """Samples rows of the scene.

        Args:
            top: First of the rows.
            image: Reflectance x 10000, `(n, w, C)`.
            unknown: Unknown pixels, `(n, w)`.
            left: First of the columns.
        """
        source, target = self._sample(top, left, unknown.shape)
        sampled = to_reflectance(image[(*source, self.channels)])
        sampled[unknown[source]] = np.nan
        self.image[:, *target] = sampled.transpose(2, 0, 1)

    def add_classes(self, top: int, classes: NDArray[np.uint8], *, left: int = 0) -> None:
        """Samples rows of the map."""
        source, target = self._sample(top, left, classes.shape)
        self.classes[target] = classes[source]

    def _sample(self, top: int, left: int, shape: tuple[int, ...]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Returns the sampled pixels of a window, and their places in the thumbnail."""
        starts = [-start % self.step for start in (top, left)]
        source = slice(starts[0], None, self.step), slice(starts[1], None, self.step)
        first, end = (
            [-(-edge // self.step) for edge in edges] for edges in ((top, left), (top + shape[0], left + shape[1]))
        )
        return source, (slice(first[0], end[0]), slice(first[1], end[1]))


def draw_quicklook(
    path: Path,
    trained: TrainedModel,
    *,
    reader: SceneReader,
    thumbnail: Thumbnail,
    statistics: MapStatistics,
    decision: DecisionThreshold,
    flags: Sequence[str],
) -> None:
    """Draws the scene beside its map, with burned areas, scale and north.

    Args:
        path: PNG file to write.
        trained: Model.
        reader: Scene.
        thumbnail: Thumbnail of scene and map.
        statistics: Areas of the map.
        decision: Threshold of the map.
        flags: Remarks that make the map less trustworthy.

    Raises:
        FiresegError: If the file cannot be written.
    """
    step, spacing = thumbnail.step, reader.grid.pixel_spacing()
    date = (format_date(reader.date) or "").replace("/", " to ")
    burned = (
        f"{format_hectares(statistics.burned_ha)} burned, {format_share(statistics.burned_fraction)} of the area seen."
    )
    if statistics.num_unknown:
        clouds = f", {format_share(statistics.cloud_share)} because of cloud or shadow" if statistics.num_cloudy else ""
        burned += f" Not seen: {format_share(statistics.unknown_share)} of the scene{clouds}."
    if reader.pre:
        of_date = f" of {format_date(reader.pre.date)}" if reader.pre.date else ""
        burned += f" Compared with {format_name(reader.pre.name)}{of_date} before the fire."
    name = format_name(trained.name)
    run = f"Mapped by run {name}: burned where the fire probability is {decision.threshold:.3g} or more."
    sampled = f" One of {step} x {step} pixels is shown." if step > 1 else ""
    render_map(
        thumbnail.image,
        thumbnail.classes,
        bands=choose_composite(trained.bands).bands,
        task=trained.task,
        path=path,
        title=f"{format_name(reader.name)}{', ' if date else ''}{date}",
        notes=[burned, run + sampled],
        warnings=[format_name(f"Caution: {flag.removeprefix(f'{reader.path}: ')}.") for flag in flags],
        hectares=statistics.hectares,
        unknown_share=statistics.unknown_share,
        pixel_m=(spacing.column_m * step, spacing.row_m * step),
        north_deg=spacing.north_deg,
    )
