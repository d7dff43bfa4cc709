"""Reads cloud masks of scenes: CM rasters of CEMS tiles, and scene classifications (SCL) of level 2A."""

from __future__ import annotations

import re
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.vrt import WarpedVRT

from fireseg.errors import FiresegError
from fireseg.geo.grid import GDAL_ERRORS, Grid
from fireseg.geo.windows import Window
from fireseg.task import CLOUD, IGNORE_INDEX, SHADOW

CloudMaskKind = Literal["CM", "SCL"]

_CM_OF_SCL = {0: IGNORE_INDEX, 3: SHADOW, 8: CLOUD, 9: CLOUD, 10: CLOUD}
"""Classes of the scene classification that are no clear view: no data, shadow, cloud of medium and of high
probability, thin cirrus. The other classes are clear; 1, saturated or defective, is so over flames."""

_NUM_SCL_CLASSES = 12

_SUFFIXES = (".tif", ".tiff", ".jp2")

_SCL_NAME = re.compile(r"(?<![a-z0-9])SCL(?![a-z])", re.IGNORECASE)


def convert_scene_classification(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Converts classes of a scene classification (SCL) to those of a cloud mask (CM).

    Args:
        values: Classes 0 to 11, of any shape.

    Returns:
        uint8: 0 clear, 1 cloud or cirrus, 3 shadow, 255 no data.

    Raises:
        FiresegError: If a value is no class.

    Example:
        >>> convert_scene_classification(np.array([0, 3, 4, 8, 9, 10])).tolist()
        [255, 3, 0, 1, 1, 1]
    """
    if values.size and not (values.min() >= 0 and values.max() < _NUM_SCL_CLASSES):
        raise FiresegError(
            f"values {values.min():g} to {values.max():g}, but a scene classification (SCL) has 0 to "
            f"{_NUM_SCL_CLASSES - 1}; name another file"
        )
    table = np.zeros(_NUM_SCL_CLASSES, np.uint8)
    table[list(_CM_OF_SCL)] = list(_CM_OF_SCL.values())
    return table[values.astype(np.intp)]


def is_cloudy(codes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Returns True for pixels of a cloud mask under cloud or cloud shadow, or unknown; light cloud is seen through."""
    return (codes == CLOUD) | (codes == SHADOW) | (codes == IGNORE_INDEX)


def is_scene_classification_file(path: Path) -> bool:
    """Returns True if the name of a raster says that it is a scene classification (SCL)."""
    return _SCL_NAME.search(path.stem) is not None


def find_cloud_mask(scene: Path) -> Path | None:
    """Finds the cloud mask beside a scene: `<name>_CM.tif` or `<name>_SCL.tif`, in upper or lower case.

    Args:
        scene: Raster, `<name>.tif` or `<name>_S2L2A.tif`.
    """
    stem = scene.stem.lower()
    names = [
        f"{name}_{kind}{suffix}"
        for kind in ("cm", "scl")
        for name in dict.fromkeys((stem, stem.removesuffix("_s2l2a")))
        for suffix in _SUFFIXES
    ]
    files = {path.name.lower(): path for path in scene.parent.iterdir()} if scene.parent.is_dir() else {}
    return next((files[name] for name in names if name in files and files[name] != scene), None)


class CloudMask:
    """Reads the cloud mask of a scene by rows, on the pixel grid of the scene. Use it in a `with` statement.

    A mask on another grid is resampled to the nearest pixel; beyond its edge the mask is unknown.

    Args:
        path: Raster; its kind is SCL if its name says so, else CM.
        grid: Pixel grid of the scene.
        kind: Kind of the mask if the name does not show it.
        channel: Channel of the mask, from 1.
        name: Name of the raster in messages.

    Raises:
        FiresegError: If the raster cannot be opened, or has no georeference and another size.
    """

    def __init__(
        self,
        path: Path | str,
        grid: Grid,
        *,
        kind: CloudMaskKind | None = None,
        channel: int = 1,
        name: str | None = None,
    ) -> None:
        self.name = name or str(path)
        self.kind: CloudMaskKind = kind or ("SCL" if is_scene_classification_file(Path(path)) else "CM")
        self._path, self._grid, self._channel = path, grid, channel
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            try:
                raster = self._open.enter_context(rasterio.open(self._path))
                self._raster: Any = raster
                grid = self._grid
                is_same = raster.shape == (grid.height, grid.width) and (
                    raster.crs is None or (raster.crs == grid.rasterio_crs and raster.transform == grid.affine)
                )
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

    def read_codes(self, top: int, height: int) -> NDArray[np.uint8]:
        """Reads rows as codes of a CM mask, `(height, W)`: 0 clear, 1 cloud, 2 light cloud, 3 shadow, 255 unknown.

        Raises:
            FiresegError: If the raster cannot be read, or a value is invalid.
        """
        window = Window(top, 0, height, self._grid.width)
        try:
            values = self._raster.read(self._channel, window=window.to_rasterio())
        except (*GDAL_ERRORS, OSError) as error:
            raise self._read_error(error) from error
        if self.kind == "SCL":
            try:
                return convert_scene_classification(values)
            except FiresegError as error:
                raise FiresegError(f"{self.name}: {error}") from error
        if not ((values <= SHADOW) | (values == IGNORE_INDEX)).all():
            raise FiresegError(
                f"{self.name}: values up to {values[values != IGNORE_INDEX].max():g}, but a cloud mask has 0 clear, "
                "1 cloud, 2 light cloud, 3 shadow and 255 unknown; if it is a scene classification, name it …_SCL.tif"
            )
        return values.astype(np.uint8)

    def _read_error(self, error: Exception) -> FiresegError:
        return FiresegError(f"{self.name}: cannot be read ({error.__cause__ or error}); use another cloud mask")
