"""What decides the bytes of a patch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fireseg.data.bands import BAND_NAMES, check_bands
from fireseg.data.format import MASKS, FilesWriter, Layout, MaskName, PackedWriter, PatchWriter
from fireseg.data.patches import SPLITS
from fireseg.errors import SettingError
from fireseg.prepare.tiling import Clouds, Disagreement


@dataclass(frozen=True, kw_only=True)
class TilingOptions:
    """How tiles become patches.

    Attributes:
        bands: The bands of a patch, in the order of its channels.
        size: Side of a patch in pixels.
        stride: Pixels from one training patch to the next; None for 7/8 of the size. Those of val and test
            lie side by side.
        max_cloud: Highest share of cloud in a patch, 0 to 1.
        layout: `packed` arrays, or `files`, one .npy a patch.
        task: Whose mask the files hold; None where both are packed.
        clouds: Whether labels under opaque cloud and shadow are ignored.
        light_clouds: Whether those under light cloud and haze are, too.
        disagreement: Whether labels are ignored where DEL and GRA disagree.
        offset: What integer digital numbers have on top where nothing says so.

    Raises:
        SettingError: If something cannot be: all faults at once.
    """

    bands: tuple[str, ...] = BAND_NAMES
    size: int = 256
    stride: int | None = None
    max_cloud: float = 0.5
    layout: Layout = "packed"
    task: MaskName | None = None
    clouds: Clouds = "ignore"
    light_clouds: Clouds = "keep"
    disagreement: Disagreement = "keep"
    offset: float | None = None

    def __post_init__(self) -> None:
        faults = []
        try:
            check_bands(self.bands)
        except ValueError as error:
            faults.append(f"--bands: {error}")
        if not 8 <= self.size <= 4096:
            faults.append(f"--size: {self.size}, but a patch is 8 to 4096 pixels wide")
        elif self.stride is not None and not 1 <= self.stride <= self.size:
            faults.append(f"--stride: {self.stride}, but 1 to the size of a patch ({self.size}) leaves no gaps")
        if not 0 <= self.max_cloud <= 1:
            faults.append(f"--max-cloud: {self.max_cloud}, but it is a share, 0 to 1")
        if self.offset is not None and not 0 <= self.offset < 10_000:
            faults.append(f"--offset: {self.offset:g}, but it is a digital number, as 1000; reflectance has none")
        if self.layout == "files" and self.task is None:
            faults.append("--layout files: holds one mask a patch; say which with --task del or --task gra")
        if self.layout == "packed" and self.task is not None:
            faults.append(f"--task {self.task}: packed patches hold both masks and training chooses; leave it out")
        if faults:
            raise SettingError(*faults)

    @property
    def masks(self) -> tuple[MaskName, ...]:
        """Which masks a patch has."""
        return MASKS if self.task is None else (self.task,)

    def strides(self) -> dict[str, int]:
        """Pixels from one patch to the next, by split."""
        train = max(self.size * 7 // 8, 1) if self.stride is None else self.stride
        return {split: train if split == "train" else self.size for split in SPLITS}

    def as_dict(self) -> dict[str, Any]:
        """All of it in plain values."""
        return {**asdict(self), "bands": list(self.bands), "stride": self.strides()["train"]}

    def open_store(self, root: Path) -> PatchWriter:
        """Where the patches go."""
        if self.task is None:
            return PackedWriter(root=root, size=self.size, num_bands=len(self.bands))
        return FilesWriter(root=root, mask=self.task)
