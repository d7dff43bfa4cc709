"""The two rasters of a map, written from top to bottom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import BinaryIO, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.crs import CRS

from fireseg.disk import disk_error
from fireseg.scene.cog import convert_to_cog
from fireseg.scene.raw import Band, describe_raw
from fireseg.task import IGNORE_INDEX

FIRE_STEPS = 250
"""Probabilities as bytes: two and a half steps a percent, and 255 left for what is not known."""


class MapPaths(NamedTuple):
    """The files of a map. `names` holds the class names for GDAL: it must stay beside `classes`, named after it."""

    classes: Path  # classes.tif
    fire: Path  # fire.tif
    names: Path  # classes.tif.aux.xml


class MapWriter:
    """Writes classes and probabilities of fire as Cloud-Optimized GeoTIFFs; its memory does not grow with the height.

    Args:
        folder: A scratch folder of the caller's own; the files are written there, under fixed names.
        height: Rows of the raster.
        width: Columns of the raster.
        crs: CRS of the raster, or its text.
        transform: From (column, row) to coordinates in that CRS, rotated or not; or its six numbers.
        class_names: One name a class, the first for unburned.
        colours: One `#rrggbb` a class.
        fire_dtype: `uint8` for steps of 0.004 (0 to 250, 255 unknown), `float32` for the values themselves (NaN
            unknown).
        tags: What else the files are to say about themselves.

    Example:
        >>> with MapWriter(scratch, height=..., ...) as writer:  # doctest: +SKIP
        ...     for top, classes, fire in rows:
        ...         writer.write(top, classes, fire)
        ...     paths = writer.close()
    """

    def __init__(
        self,
        folder: Path,
        *,
        height: int,
        width: int,
        crs: CRS | str,
        transform: Affine | Sequence[float],
        class_names: Sequence[str],
        colours: Sequence[str],
        fire_dtype: Literal["uint8", "float32"] = "uint8",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        assert len(class_names) == len(colours) >= 2, (class_names, colours)
        self._folder = folder
        self._height, self._width = height, width
        place = {"crs": CRS.from_user_input(crs), "transform": Affine(*transform[:6])}
        self._grid = {"height": height, "width": width, **place}
        self._class_tags = {f"CLASS_{value}": name for value, name in enumerate(class_names)}
        self._tags = dict(tags or {})
        self._classes = Band(
            dtype="uint8", nodata=IGNORE_INDEX, description="class", categories=class_names, colours=colours
        )
        self._fire = _describe_fire(fire_dtype)
        self._num_rows = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._work = Path(self._stack.enter_context(TemporaryDirectory(prefix=".map-", dir=self._folder)))
            self._files = [self._open("classes.raw"), self._open("fire.raw")]
        except OSError as error:
            self._stack.close()
            raise disk_error(self._folder, error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Removes what was written temporarily; where `close` was not reached, nothing is left."""
        with suppress(OSError):  # what went wrong before is what counts
            self._stack.close()

    def write(self, top: int, classes: NDArray[np.uint8], fire: NDArray[np.floating]) -> None:
        """Writes the rows that follow on those written before.

        Args:
            top: The first row: as many as were written before.
            classes: `(rows, width)`, 0 to the number of classes - 1, 255 unknown.
            fire: `(rows, width)`, probability of fire in [0, 1], NaN unknown.

        Raises:
            FiresegError: If the disk is full or the folder cannot be written.
        """
        assert top == self._num_rows, f"row {top} is to be written, but row {self._num_rows} is next"
        assert classes.shape == fire.shape == (len(classes), self._width), (classes.shape, fire.shape)
        assert classes.dtype == np.uint8, classes.dtype
        for file, values in zip(self._files, (classes, self._encode(fire)), strict=True):
            try:
                file.write(np.ascontiguousarray(values).data)
            except OSError as error:
                raise disk_error(self._folder, error) from error
        self._num_rows += len(classes)

    def close(self) -> MapPaths:
        """Turns what was written into Cloud-Optimized GeoTIFFs. Every row must have been written.

        Raises:
            FiresegError: If the disk is full or the folder cannot be written.
        """
        assert self._num_rows == self._height, f"{self._num_rows} rows were written of {self._height}"
        try:
            for file in self._files:
                file.close()
            self._convert("classes", self._classes, self._class_tags, "nearest")
            self._convert("fire", self._fire, {}, "average")
            paths = MapPaths(*(self._folder / name for name in ("classes.tif", "fire.tif", "classes.tif.aux.xml")))
            for path in paths:
                (self._work / path.name).replace(path)
        except OSError as error:
            raise disk_error(self._folder, error) from error
        return paths

    def _open(self, name: str) -> BinaryIO:
        return self._stack.enter_context((self._work / name).open("wb"))

    def _encode(self, fire: NDArray[np.floating]) -> NDArray[np.uint8] | NDArray[np.float32]:
        fire = np.clip(fire, 0.0, 1.0)
        if self._fire.dtype == "float32":
            return fire.astype(np.float32, copy=False)
        return np.where(np.isnan(fire), self._fire.nodata, np.rint(fire * FIRE_STEPS)).astype(np.uint8)

    def _convert(
        self, name: str, band: Band, tags: Mapping[str, str], overviews: Literal["nearest", "average"]
    ) -> None:
        raw = self._work / f"{name}.raw"
        virtual = describe_raw(raw, band, tags={**self._tags, **tags}, **self._grid)
        convert_to_cog(virtual, self._work / f"{name}.tif", overviews=overviews)
        raw.unlink()


def _describe_fire(dtype: Literal["uint8", "float32"]) -> Band:
    description = "probability of fire"
    if dtype == "float32":
        return Band(dtype=dtype, nodata=np.nan, description=description)
    return Band(dtype=dtype, nodata=IGNORE_INDEX, description=description, scale=1 / FIRE_STEPS)
