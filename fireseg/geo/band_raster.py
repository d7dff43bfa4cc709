"""Writes GeoTIFFs of named bands, some rows at a time."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import disk_usage
from types import TracebackType
from typing import Any, Self

import numpy as np
import rasterio
from numpy.typing import NDArray

from fireseg.errors import FiresegError
from fireseg.geo.grid import GDAL_ERRORS, Grid
from fireseg.geo.raster import BLOCK_PX, CACHE_BYTES
from fireseg.geo.windows import Window


class BandWriter:
    """Writes a compressed, tiled GeoTIFF of integers; 0 is no data.

    Use it in a `with` statement. At its end the file is read back and compared, because GDAL can miss that the disk
    is full.

    Args:
        path: File to write.
        grid: Grid of the raster.
        bands: Description of each band.
        dtype: Data type of the values.
        tags: Metadata tags of the file.

    Raises:
        FiresegError: If the file cannot be written completely.

    Example:
        >>> with BandWriter(path, grid, bands=["B02"], dtype=np.uint16) as writer:  # doctest: +SKIP
        ...     writer.write(0, values)
    """

    def __init__(
        self,
        path: Path,
        grid: Grid,
        *,
        bands: Sequence[str],
        dtype: type[np.unsignedinteger[Any]],
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self._path, self._grid, self._bands, self._dtype = path, grid, tuple(bands), dtype
        self._tags = dict(tags or {})
        self._checksums: list[tuple[Window, int]] = []

    def __enter__(self) -> Self:
        required = self._grid.height * self._grid.width * len(self._bands) * np.dtype(self._dtype).itemsize
        free = disk_usage(self._path.parent).free
        if free < required:  # GDAL crashes on a disk that is completely full
            raise FiresegError(
                f"{self._path}: {free / 1e6:.0f} MB of disk space are free, but up to {required / 1e6:.0f} MB are "
                "required; free some space"
            )
        with self._convert_errors():
            self._raster = rasterio.open(
                self._path,
                "w",
                driver="GTiff",
                height=self._grid.height,
                width=self._grid.width,
                count=len(self._bands),
                dtype=self._dtype,
                crs=self._grid.rasterio_crs,
                transform=self._grid.affine,
                nodata=0,
                tiled=True,
                blockxsize=BLOCK_PX,
                blockysize=BLOCK_PX,
                compress="deflate",
                predictor=2,
                bigtiff="if_safer",
                num_threads="all_cpus",
            )
            self._raster.descriptions = self._bands
            self._raster.update_tags(**self._tags)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the file and, unless an error occurred, compares it with what was written."""
        with self._convert_errors():
            self._raster.close()
        if kind is None:
            self._compare()

    def write(self, top: int, values: NDArray[Any]) -> None:
        """Writes rows in all bands.

        Args:
            top: First row; a multiple of 512 makes the file smaller.
            values: `(C, rows, width)`.

        Raises:
            FiresegError: If the rows cannot be written.
        """
        assert values.shape[::2] == (len(self._bands), self._grid.width), values.shape
        window = Window(top, 0, values.shape[1], self._grid.width)
        with self._convert_errors():
            self._raster.write(values, window=window.to_rasterio())
        self._checksums.append((window, zlib.crc32(np.ascontiguousarray(values).data)))

    def _compare(self) -> None:
        with self._convert_errors(), rasterio.open(self._path) as raster:
            for window, checksum in self._checksums:
                if zlib.crc32(raster.read(window=window.to_rasterio())) != checksum:
                    raise FiresegError(
                        f"{self._path}: differs from what was written; check that the disk is not full or damaged"
                    )

    @contextmanager
    def _convert_errors(self) -> Iterator[None]:
        try:
            with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
                yield
        except GDAL_ERRORS as error:
            raise FiresegError(f"{self._path}: cannot be written ({error}); if the disk is full, free space") from error
