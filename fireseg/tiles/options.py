"""Options for reading rasters whose own metadata do not say enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fireseg.console import metavar


@dataclass(frozen=True, kw_only=True)
class RasterOptions:
    """Options for reading rasters, used where the metadata of a raster are silent.

    Attributes:
        channels: Band of each channel of rasters without band descriptions, in their order: names such as B02 or
            nir08, mask or SCL for a validity channel, - for any other.
        offset: Radiometric offset of the digital numbers (BOA_ADD_OFFSET; 1000 since processing baseline 04.00),
            used if the metadata do not give it (default: that of the baseline in the name of the product, else 0).
        scale: Reflectance per unit of the values, after the offset is subtracted: 0.0001 for digital numbers stored
            as float, 0.01 for percent; used if the raster has no scale tag (default: 1 for float, 0.0001 for integers).
        nodata: Value of pixels without a measurement, in addition to the nodata tag of the raster.
        trust_values: Accept values that do not look like reflectance, or seem to contain the offset; they are flagged.
    """

    channels: Annotated[tuple[str, ...] | None, metavar("BAND ...")] = None
    offset: Annotated[float | None, metavar("NUMBER")] = None
    scale: Annotated[float | None, metavar("NUMBER")] = None
    nodata: Annotated[float | None, metavar("NUMBER")] = None
    trust_values: bool = False

    def list_faults(self) -> list[str]:
        """Lists the options that are out of range."""
        faults = []
        if self.offset is not None and not 0 <= self.offset < 10_000:
            faults.append(f"--offset: {self.offset:g}, but it must be in digital numbers, 0 to 9999, such as 1000")
        if self.scale is not None and not 1e-6 <= self.scale <= 1:
            faults.append(
                f"--scale: {self.scale:g}, but it must be reflectance per unit, 0.000001 to 1, such as 0.0001"
            )
        return faults


DEFAULT_OPTIONS = RasterOptions()
