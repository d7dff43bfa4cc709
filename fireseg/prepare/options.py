"""Options of the `prepare` command: documented, checked and given their defaults once."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from fireseg.console import metavar
from fireseg.data.bands import BAND_NAMES, check_bands
from fireseg.data.format import MASKS, FilesWriter, Layout, MaskName, PackedWriter, PatchWriter, StoredMask
from fireseg.data.patches import ALL, SPLITS
from fireseg.errors import SettingError
from fireseg.pairs import add_pre_bands, split_pair
from fireseg.prepare.split_options import SplitOptions, hash_option
from fireseg.tiles.options import LabelOptions, RasterOptions

LabelRule = Literal["ignore", "keep"]


@dataclass(frozen=True, kw_only=True)
class TilingOptions(RasterOptions):
    """Options that determine the content of the patches.

    Attributes:
        bands: Bands of a patch in channel order, matched to the band descriptions of the raster.
        size: Patch height and width in pixels.
        stride: Distance between training patches in pixels; 7/8 of the patch size if not given. In val and test it is
            always the patch size.
        max_cloud: Maximum cloud cover of a patch, 0 to 1; patches with more are left out.
        layout: Output layout: one packed array per split (fast to read), or one .npy file per patch (readable
            by other tools).
        task: Mask written with --layout files: delineation (DEL) or grading (GRA).
        clouds: Set labels under opaque cloud and cloud shadow to 255 (ignore), or keep them.
        light_clouds: Set labels under light cloud and haze to 255 (ignore), or keep them.
        disagreement: Keep labels where DEL and GRA disagree, or set them to 255 (ignore).
        labels: Meaning of the masks.

    Raises:
        SettingError: If options are out of range or exclude each other; lists all faults.
    """

    bands: Annotated[tuple[str, ...], tyro.conf.arg(metavar="BAND ...")] = BAND_NAMES
    size: int = 256
    stride: Annotated[int | None, metavar("INT")] = None
    max_cloud: float = 0.5
    layout: Layout = "packed"
    task: Annotated[MaskName | None, metavar("{del,gra}")] = None
    clouds: LabelRule = "ignore"
    light_clouds: LabelRule = "keep"
    disagreement: LabelRule = "keep"
    labels: Annotated[LabelOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=LabelOptions)

    def __post_init__(self) -> None:
        faults = []
        try:
            check_bands(self.bands)
        except ValueError as error:
            faults.append(f"--bands: {error}")
        if split_pair(self.bands)[1]:
            faults.append("--bands: names bands before the fire, which --pre adds; leave them out")
        if not 8 <= self.size <= 4096:
            faults.append(f"--size: {self.size}, but must be 8 to 4096 pixels")
        elif self.stride is not None and not 1 <= self.stride <= self.size:
            faults.append(f"--stride: {self.stride}, but must be 1 to the patch size ({self.size}) to leave no gaps")
        if not 0 <= self.max_cloud <= 1:
            faults.append(f"--max-cloud: {self.max_cloud}, but must be a share, 0 to 1")
        faults += self.list_faults()
        if self.layout == "files" and self.task is None:
            faults.append("--layout files: stores one mask per patch; choose it with --task del or --task gra")
        if self.layout == "packed" and self.task is not None:
            faults.append(f"--task {self.task}: packed patches hold both masks, and training chooses; omit it")
        if self.layout == "files" and self.labels.landcover:
            faults.append("--landcover: only packed patches hold it; omit --layout files")
        if self.layout == "files" and self.labels.unlabelled:
            faults.append("--unlabelled: only packed patches hold which pixels are clear; omit --layout files")
        if faults:
            raise SettingError(*faults)

    @property
    def stored_bands(self) -> tuple[str, ...]:
        """Bands of a patch: those of the image and, of a pair, those of the scene before the fire."""
        return add_pre_bands(self.bands, self.labels.pre is not None)

    @property
    def masks(self) -> tuple[MaskName, ...]:
        """Masks stored with each patch."""
        return MASKS if self.task is None else (self.task,)

    def strides(self) -> dict[str, int]:
        """Returns the distance between patches in pixels for each split, and for patches with folds."""
        train = max(self.size * 7 // 8, 1) if self.stride is None else self.stride
        return {split: train if split == "train" else self.size for split in (*SPLITS, ALL)}

    def as_dict(self) -> dict[str, Any]:
        """Returns the options as plain values, as the journal and the manifest store them."""
        # Options of later versions are left out if they are not given: folders of earlier versions do not have them.
        later = {"channels": self.channels and list(self.channels), "trust_values": self.trust_values}
        earlier = {name: value for name, value in asdict(self).items() if name not in (*later, "labels")}
        given = {name: value for name, value in later.items() if value} | self.labels.as_dict()
        return {**earlier, "bands": list(self.bands), "stride": self.strides()["train"], **given}

    def open_writer(self, root: Path) -> PatchWriter:
        """Returns the patch writer of the layout."""
        if self.task is None:
            stored: tuple[StoredMask, ...] = (
                *MASKS,
                *(("landcover",) if self.labels.landcover else ()),
                *(("clear",) if self.labels.unlabelled else ()),
            )
            return PackedWriter(root=root, size=self.size, num_bands=len(self.stored_bands), masks=stored)
        return FilesWriter(root=root, mask=self.task)


@dataclass(frozen=True, kw_only=True)
class PrepareOptions(SplitOptions):
    """Options of `prepare`.

    Attributes:
        tiles: Folder of the tiles.
        patches: Output folder: new, empty, or started before with the same options.
        tiling: Content of the patches.
        metadata: The data set's satelliteData.csv; adds country, climate and date to metadata.csv.
        workers: Number of worker processes; does not change the output.
        allow_leaks: Continue if tiles of different splits overlap or share pixels; recorded in the manifest.
        allow_bad: Exit with 0 if tiles have faults.
        audit: Only report overlaps and duplicates of the tiles in a folder or in satelliteData.csv (no TILES, PATCHES).
        json: Output file of --audit.

    Raises:
        SettingError: If options are out of range or exclude each other; lists all faults.
    """

    tiles: Annotated[Path | None, tyro.conf.Positional, metavar("TILES")] = None
    patches: Annotated[Path | None, tyro.conf.Positional, metavar("PATCHES")] = None
    tiling: Annotated[TilingOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=TilingOptions)
    metadata: Annotated[Path | None, metavar("CSV")] = None
    workers: int = 1
    allow_leaks: bool = False
    allow_bad: bool = False
    audit: Annotated[Path | None, metavar("PATH")] = None
    json: Path = Path("audit.json")

    def __post_init__(self) -> None:
        faults = self.list_split_faults()
        if self.workers < 1:
            faults.append(f"--workers: {self.workers}, but must be 1 or more")
        if self.tiling.labels.unlabelled and (self.is_drawn or self.split_csv is not None):
            faults.append(
                "--unlabelled: all such patches are for training, so no split is drawn or given; omit --split-by, "
                "--split-csv and --folds"
            )
        if self.folds is not None and self.tiling.stride is not None:
            faults.append("--stride: no effect with --folds, which cuts all tiles as in val and test; omit it")
        if faults:
            raise SettingError(*faults)

    def as_dict(self) -> dict[str, Any]:
        """Returns the options that determine the output as plain values, with digests of tables.

        Raises:
            SettingError: If a table cannot be read.
        """
        digest = None if self.metadata is None else hash_option("--metadata", self.metadata)
        return {**self.tiling.as_dict(), **self.split_dict(), "metadata": digest}
