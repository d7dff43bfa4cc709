"""Reads a scene together with one of the same area before the fire, as one raster with the bands of both."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fireseg.console import format_share
from fireseg.errors import FiresegError, SettingError
from fireseg.pairs import PRE_SUFFIX, split_pair
from fireseg.tiles.clouds import CloudMask, is_cloudy
from fireseg.tiles.folder import find_pre_scene
from fireseg.tiles.options import DEFAULT_OPTIONS, RasterOptions
from fireseg.tiles.products import Scene, get_scene_name
from fireseg.tiles.raster_file import collect_errors
from fireseg.tiles.scene import BandReader, open_bands

_MIN_COVERAGE = 0.99


class PairReader:
    """Reads windows of a scene and of the one before the fire, on the grid of the first, like a `BandReader`.

    A pixel is unknown where it is in either scene, and where the earlier one is under cloud or cloud shadow. Use it in
    a `with` statement.

    Args:
        post: Scene after the fire.
        pre: Scene before it, read on the same grid.
        ignores_clouds: False to read what clouds of the earlier scene cover.

    Attributes:
        post: Scene after the fire.
        pre: Scene before it.
        bands: Bands of both, those of `pre` last and with the suffix `_PRE`.
    """

    def __init__(self, post: BandReader, pre: BandReader, *, ignores_clouds: bool = True) -> None:
        self.post, self.pre, self._ignores_clouds = post, pre, ignores_clouds
        self.bands = (*post.bands, *(f"{band}{PRE_SUFFIX}" for band in pre.bands))
        self.path, self.name, self.grid, self.date, self.level = post.path, post.name, post.grid, post.date, post.level
        self.height, self.width, self.block_rows = post.height, post.width, post.block_rows
        self.ignored = tuple(dict.fromkeys((*post.ignored, *pre.ignored)))
        self._open, self._lock = ExitStack(), threading.Lock()
        self._clouds: CloudMask | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.post)
            stack.enter_context(self.pre)
            if self._ignores_clouds and (clouds := self.pre.open_cloud_mask()) is not None:
                self._clouds = stack.enter_context(clouds)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *reason: object) -> None:
        self._open.close()

    def read(self, top: int, left: int, height: int, width: int) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
        """Reads a window, see `BandReader.read`."""
        image, unknown = self.post.read(top, left, height, width)
        before, is_gap = self.pre.read(top, left, height, width)
        unknown = unknown | is_gap
        if self._clouds is not None:
            with self._lock:  # it has one handle for all threads
                unknown |= is_cloudy(self._clouds.read_codes(top, height, left=left, width=width))
        both = np.concatenate([image, before], axis=2)
        both[unknown] = 0
        return both, unknown

    def check_values(self) -> tuple[str, ...]:
        """Checks the values of both scenes, see `BandReader.check_values`, and that the scenes belong together.

        Raises:
            FiresegError: If the earlier scene is dated after the other one.
        """
        return (*self.post.check_values(), *self.pre.check_values(), *list_pair_flags(self.pre, self.post.date))

    def open_cloud_mask(self, path: Path | None = None) -> CloudMask | None:
        """Returns the cloud mask of the scene after the fire, see `BandReader.open_cloud_mask`."""
        return self.post.open_cloud_mask(path)


SceneReader = BandReader | PairReader


def list_pair_flags(pre: BandReader, date: str | None) -> list[str]:
    """Checks the date of a scene before the fire, and describes what makes the pair less trustworthy.

    Args:
        pre: Scene before the fire, on the grid of the one after it.
        date: Date of the one after it, if it is known.

    Raises:
        FiresegError: If it is dated after the other one.
    """
    if pre.date and date:
        first, last = pre.date.split("/")[0][:10], date.split("/")[-1][:10]  # either may be an interval
        if first > last:
            raise FiresegError(f"{pre.path}: of {first}, but the scene after the fire is of {last}; exchange the two")
    flags = []
    if pre.is_resampled:
        flags.append(f"{pre.path}: has another grid than the scene after the fire, and was resampled to it")
    if pre.coverage < _MIN_COVERAGE:
        flags.append(f"{pre.path}: covers {format_share(pre.coverage)} of the scene; the rest is unknown")
    return flags


def open_scene(
    scene: Scene,
    bands: Sequence[str],
    options: RasterOptions = DEFAULT_OPTIONS,
    *,
    pre: Scene | None = None,
    ignores_clouds: bool = True,
) -> SceneReader:
    """Opens a scene, and the one before the fire if bands of it are requested.

    Args:
        scene: Raster, product or address.
        bands: Requested bands, those of the scene before the fire last and with the suffix `_PRE`.
        options: Options used where the metadata are silent, of both scenes.
        pre: Scene before the fire; by default the one beside the scene, `<name>_PRE.tif`. On another grid it is
            resampled.
        ignores_clouds: False to read what clouds of the earlier scene cover.

    Raises:
        FiresegError: If a scene cannot be read, or the one before the fire is missing; with all faults.
        SettingError: If one is given, but none of its bands is requested.
    """
    post_bands, pre_bands = split_pair(bands)
    if not pre_bands:
        if pre is not None:
            raise SettingError(f"--pre {pre}: the model maps a single scene ({' '.join(bands)}); leave --pre out")
        return open_bands(scene, post_bands, options)
    faults: list[str] = []
    post = before = None
    with collect_errors(faults):
        post = open_bands(scene, post_bands, options)
    with collect_errors(faults):
        pre = pre or (find_pre_scene(scene) if isinstance(scene, Path) else None)
        if pre is None:
            name = f"{re.sub('_S2L2A$', '', get_scene_name(scene), flags=re.IGNORECASE)}{PRE_SUFFIX}.tif"
            raise FiresegError(
                f"{scene}: the model compares it with a scene before the fire, but there is none; name it with --pre, "
                f"or put it beside the scene as {name}"
            )
        if pre == scene:
            raise FiresegError(f"--pre {pre}: is the scene itself; give one before the fire")
        before = open_bands(pre, pre_bands, options, grid=post and post.grid)
    if faults or post is None or before is None:
        raise FiresegError(*faults)
    return PairReader(post, before, ignores_clouds=ignores_clouds)
