"""Reads cloud masks of scenes: CM rasters of CEMS tiles, and scene classifications (SCL) of level 2A."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.vrt import WarpedVRT

from fireseg.errors import FiresegError
from fireseg.files import check_regular_file
from fireseg.geo.grid import GDAL_ERRORS, Grid
from fireseg.geo.windows import Window
from fireseg.task import CLOUD, IGNORE_INDEX, LIGHT_CLOUD, SHADOW
from fireseg.tiles.folder import is_scene_classification_file
from fireseg.tiles.raster_file import measure_coverage, open_dataset

CloudMaskKind = Literal["CM", "SCL"]

_CM_OF_SCL = {0: IGNORE_INDEX, 3: SHADOW, 8: CLOUD, 9: CLOUD, 10: CLOUD}
"""Classes of the scene classification that are no clear view: no data, shadow, cloud of medium and of high
probability, thin cirrus. The other classes are clear; 1, saturated or defective, is so over flames."""

_NUM_SCL_CLASSES = 12


def convert_scene_classification(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Converts classes of a scene classification (SCL) to those of a cloud mask (CM).

    Args:
        values: Classes 0 to 11, of any shape; NaN is no data.

    Returns:
        uint8: 0 clear, 1 cloud or cirrus, 3 shadow, 255 no data.

    Raises:
        FiresegError: If a value is no class.

    Example:
        >>> convert_scene_classification(np.array([0, 3, 4, 8, 9, 10])).tolist()
        [255, 3, 0, 1, 1, 1]
    """
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), 0, values)
    wrong = (values < 0) | (values >= _NUM_SCL_CLASSES) | (values != np.rint(values))
    if wrong.any():
        raise FiresegError(
            f"value {values[wrong].flat[0]:g}, but a scene classification (SCL) has 0 to {_NUM_SCL_CLASSES - 1}; "
            "use the classification as it is delivered, resampled to the nearest pixel"
        )
    table = np.zeros(_NUM_SCL_CLASSES, np.uint8)
    table[list(_CM_OF_SCL)] = list(_CM_OF_SCL.values())
    return table[values.astype(np.intp)]


def is_cloudy(codes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Returns True for pixels of a cloud mask under cloud or cloud shadow, or unknown; light cloud is seen through."""
    return (codes == CLOUD) | (codes == SHADOW) | (codes == IGNORE_INDEX)


class CloudMask:
    """Reads the cloud mask of a scene by rows, on the pixel grid of the scene. Use it in a `with` statement.

    A mask on another grid is resampled to the nearest pixel; beyond its edge the mask is unknown.

    Args:
        path: Raster; its kind is SCL if its name says so, else CM.
        grid: Pixel grid of the scene.
        kind: Kind of the mask if the name does not show it.
        channel: Channel of the mask, from 1; of a raster of its own the only one if None.
        name: Name of the raster in messages.

    Attributes:
        coverage: Share of the extent of the scene that the mask covers, 0 to 1, once it is open.

    Raises:
        FiresegError: If the raster cannot be opened, has several channels, has no georeference and another size, or
            lies outside of the scene.
    """

    def __init__(
        self,
        path: Path | str,
        grid: Grid,
        *,
        kind: CloudMaskKind | None = None,
        channel: int | None = None,
        name: str | None = None,
    ) -> None:
        self.name = name or str(path)
        self.kind: CloudMaskKind = kind or ("SCL" if is_scene_classification_file(Path(path)) else "CM")
        self._path, self._grid, self._channel = path, grid, channel
        self._nodata: float | None = None
        self.coverage = 1.0
        self._open = ExitStack()

    def __enter__(self) -> Self:
        if isinstance(self._path, Path):
            check_regular_file(self._path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            try:
                raster = self._open.enter_context(open_dataset(self._path))
                self._raster: Any = raster
                grid = self._grid
                is_same = raster.shape == (grid.height, grid.width) and (
                    raster.crs is None or (raster.crs == grid.rasterio_crs and raster.transform == grid.affine)
                )
                if self._channel is None and raster.count != 1:
                    raise FiresegError(
                        f"{self.name}: {raster.count} channels, but a cloud mask has one; use the mask alone"
                    )
                self._nodata = raster.nodata
                self.coverage = 1.0 if is_same or raster.crs is None else measure_coverage(raster, grid)
                if self.coverage == 0:
                    raise FiresegError(f"{self.name}: lies outside of the scene; use the cloud mask of the scene")
                if not is_same and raster.crs is None:
                    raise FiresegError(
                        f"{self.name}: {raster.height} x {raster.width} pixels without a georeference, but the scene "
                        f"has {grid.height} x {grid.width}; use a cloud mask with a georeference"
                    )
                if not is_same:
                    outside = IGNORE_INDEX if self.kind == "CM" else 0
                    self._raster = self._open.enter_context(
                        WarpedVRT(
                            raster,
                            crs=grid.rasterio_crs,
                            transform=grid.affine,
                            width=grid.width,
                            height=grid.height,
                            resampling=Resampling.nearest,
                            src_nodata=outside,
                            nodata=outside,
                        )
                    )
            except (*GDAL_ERRORS, OSError) as error:
                self._open.close()
                raise self._read_error(error) from error
            except FiresegError:
                self._open.close()
                raise
        return self

    def __exit__(self, *reason: object) -> None:
        self._open.close()

    def read_codes(self, top: int, height: int, *, left: int = 0, width: int | None = None) -> NDArray[np.uint8]:
        """Reads a window as codes of a CM mask: 0 clear, 1 cloud, 2 light cloud, 3 shadow, 255 unknown.

        Args:
            top: First row.
            height: Number of rows.
            left: First column.
            width: Number of columns; all if None.

        Returns:
            `(height, width)`.

        Raises:
            FiresegError: If the raster cannot be read, or a value is invalid.
        """
        window = Window(top, left, height, self._grid.width if width is None else width)
        try:
            values = self._raster.read(self._channel or 1, window=window.to_rasterio())
        except (*GDAL_ERRORS, OSError) as error:
            raise self._read_error(error) from error
        unknown = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, np.bool_)
        if self._nodata is not None and not (self.kind == "CM" and self._nodata in (0, CLOUD, LIGHT_CLOUD, SHADOW)):
            unknown |= values == self._nodata
        values = np.where(unknown, 0 if self.kind == "SCL" else IGNORE_INDEX, values)
        if self.kind == "SCL":
            try:
                return convert_scene_classification(values)
            except FiresegError as error:
                raise FiresegError(f"{self.name}: {error}") from error
        wrong = ~np.isin(values, (0, CLOUD, LIGHT_CLOUD, SHADOW, IGNORE_INDEX))
        if wrong.any():
            raise FiresegError(
                f"{self.name}: value {values[wrong].flat[0]:g}, but a cloud mask has 0 clear, 1 cloud, 2 light cloud, "
                "3 shadow and 255 unknown; convert it, or if it is a scene classification, name it …_SCL.tif"
            )
        return values.astype(np.uint8)

    def _read_error(self, error: Exception) -> FiresegError:
        return FiresegError(f"{self.name}: cannot be read ({error.__cause__ or error}); use another cloud mask")
