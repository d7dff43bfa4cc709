"""Python interface of prediction: `fireseg.load(run)` for images in memory and scenes on disk."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fireseg.console import format_score, format_share
from fireseg.data.bands import SCALE
from fireseg.errors import FiresegError
from fireseg.geo import plan_sliding_windows
from fireseg.pairs import split_pair
from fireseg.plots.maps import plot_classes
from fireseg.predict.options import MapOptions
from fireseg.predict.outputs import get_decision_threshold
from fireseg.predict.scene import SceneMap, predict_scene
from fireseg.predict.statistics import MapStatistics, classify
from fireseg.runs import TrainedModel, load_trained_model
from fireseg.runtime.engines import InferenceEngine, RuntimeName, RuntimePrecision, create_engine
from fireseg.runtime.inference import ArrayRaster, predict_rows
from fireseg.task import Task
from fireseg.tiles.blocks import PixelSample
from fireseg.tiles.channels import apply_channels, find_channels
from fireseg.tiles.clouds import convert_scene_classification, is_cloudy
from fireseg.tiles.options import DEFAULT_OPTIONS, RasterOptions
from fireseg.tiles.products import parse_scene
from fireseg.tiles.radiometry import find_nodata, get_scaling, quantize_reflectance

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

    from fireseg.engine.device import DeviceName

log = logging.getLogger("fireseg")


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The map of an image.

    Attributes:
        classes: Classes, `(H, W)` uint8: 0 unburned, 1 to K - 1 burned, 255 unknown.
        fire: Calibrated fire probability, `(H, W)` float32 in [0, 1]; NaN where unknown.
        has_fire: True if any pixel burned.
        max_probability: Largest fire probability, 0 to 1; 0 if all pixels are unknown.
        burned_fraction: Burned share of the known pixels, 0 to 1.
        task: Classes with their labels and colours.
        flags: Remarks about values that make the map less trustworthy.
    """

    classes: NDArray[np.uint8]
    fire: NDArray[np.float32]
    has_fire: bool
    max_probability: float
    burned_fraction: float
    task: Task
    flags: tuple[str, ...] = ()

    def plot(self, axes: Axes | None = None) -> Axes:
        """Plots the classes with a legend and returns the matplotlib axes.

        Args:
            axes: Axes to plot in; new ones if None.
        """
        title = f"{format_share(self.burned_fraction)} burned"
        return plot_classes(self.classes, self.task, title=title, axes=axes)

    @property
    def confidence(self) -> float:
        """Former name of `max_probability`."""
        return self.max_probability

    @property
    def fraction(self) -> float:
        """Former name of `burned_fraction`."""
        return self.burned_fraction


@dataclass(frozen=True)
class Run:
    """A trained run that is ready for prediction, as returned by `fireseg.load`.

    Attributes:
        trained: Model with its task, bands and settings.
        engine: Engine that computes the model; torch if None.
    """

    trained: TrainedModel
    engine: InferenceEngine | None = None

    def __repr__(self) -> str:
        """Describes the run in two lines."""
        texts = [f"{name} {value}" for name, value in self._describe().items()]
        return f"Run({', '.join(texts[:4])},\n    {', '.join(texts[4:])})"

    def _repr_html_(self) -> str:
        """Describes the run as a small table, which notebooks show."""
        rows = (f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in self._describe().items())
        return f"<table>{''.join(rows)}</table>"

    def _describe(self) -> dict[str, str]:
        trained, settings = self.trained, self.trained.describe()
        return {
            "task": f"{trained.task.name} ({', '.join(trained.task.labels)})",
            "architecture": str(settings["arch"]),
            "encoder": str(settings["encoder"]),
            "bands": " ".join(trained.bands),
            "best val fire IoU": format_score(trained.val_fire_iou),
            "threshold": f"{get_decision_threshold(trained).threshold:.3g}",
            "path": trained.argument,
        }

    def predict(
        self,
        image: np.ndarray | Tensor,
        *,
        channels: Sequence[str] | None = None,
        offset: float | None = None,
        scale: float | None = None,
        nodata: float | None = None,
        trust_values: bool = False,
        threshold: float | None = None,
        temperature: float | None = None,
        tta: bool = False,
        batch_size: int | None = None,
    ) -> Prediction:
        """Maps an image in memory, with the same windows as a scene on disk.

        Args:
            image: Surface reflectance of the run's bands, float, 0 to 1, `(C, H, W)` or `(H, W, C)`, of any size; the
                channel axis is the one whose length is the number of bands. Unknown pixels are not finite, or 0 in
                all bands. Other values, such as digital numbers, with `scale`.
            channels: Band of each channel of an image that has others than the bands of the run, or another order;
                `mask` for a channel that is 0 where nothing was measured, `SCL` for the scene classification, whose
                clouds are left unknown, `-` for any other.
            offset: Radiometric offset, subtracted from the values; only with `scale`.
            scale: Reflectance per unit of the values: 0.0001 for digital numbers, 0.01 for percent.
            nodata: Value of pixels without a measurement.
            trust_values: Accept values that do not look like reflectance.
            threshold: Lowest fire probability that counts as burned (default: of the calibration of the run, else 0.5).
            temperature: Divisor of the log-odds of fire (default: fitted on val, else 1).
            tta: Average over the 8 flips and 90° rotations.
            batch_size: Windows per batch (default: 1 on a CPU, else 8).

        Raises:
            FiresegError: If the image does not have the bands of the run, or its values cannot be reflectance.
            SettingError: If an option is out of range.
        """
        trained = self.trained
        options = MapOptions(
            channels=None if channels is None else tuple(channels),
            offset=offset,
            scale=scale,
            nodata=nodata,
            trust_values=trust_values,
            threshold=threshold,
            temperature=temperature,
            tta=tta,
            batch_size=batch_size,
        )
        decision = get_decision_threshold(trained, options.threshold, options.temperature)
        raster, cloudy, image_flags = read_image(image, trained.bands, options)
        classes = np.empty((raster.height, raster.width), np.uint8)
        fire = np.empty(classes.shape, np.float32)
        statistics = MapStatistics(trained.task.num_classes)
        layout = plan_sliding_windows(raster.height, raster.width)
        for top, left, probabilities, gaps, _ in predict_rows(
            trained, raster, layout, engine=self.engine, batch_size=options.batch_size, tta=options.tta
        ):
            window = slice(top, top + gaps.shape[0]), slice(left, left + gaps.shape[1])
            unknown = gaps if cloudy is None else gaps | cloudy[window]
            pixels = classify(probabilities, unknown, threshold=decision.threshold, temperature=decision.temperature)
            classes[window], fire[window] = pixels
            statistics.add(pixels)
        return Prediction(
            classes=classes,
            fire=fire,
            has_fire=statistics.has_fire,
            max_probability=statistics.max_probability,
            burned_fraction=statistics.burned_fraction,
            task=trained.task,
            flags=(*image_flags, *(engine.int8.list_flags() if (engine := self.engine) and engine.int8 else [])),
        )

    def predict_scene(self, path: Path | str, out: Path | str = "maps", **options: Any) -> SceneMap:
        """Maps a scene on disk, as `python -m fireseg.predict` does.

        Args:
            path: Raster with the bands of the run, SAFE product, or STAC item.
            out: Output folder; created if missing.
            **options: Fields of `fireseg.predict.options.MapOptions`: `threshold`, `tta`, `geojson`, `overwrite`…;
                `pre` is the scene before the fire, for a run that compares two.

        Returns:
            Paths of the files, and the summary.

        Raises:
            FiresegError: If the scene cannot be read, maps exist already, or the folder is not writable.
            SettingError: If an option is out of range.
            TypeError: If there is no such option.
        """
        return predict_scene(
            self.trained, parse_scene(path), Path(out), options=MapOptions(**options), engine=self.engine
        )


def load(
    path: Path | str,
    *,
    device: DeviceName = "auto",
    runtime: RuntimeName = "auto",
    precision: RuntimePrecision = "auto",
) -> Run:
    """Loads a trained run for prediction.

    Args:
        path: Run folder, checkpoint file, or MLflow URI; several, separated by commas, are one model, the mean of their
            class probabilities, see `runs.ensemble.load_ensemble`.
        device: `auto`, `cuda`, `mps` or `cpu`.
        runtime: Engine that computes the model: `auto` (the fastest that is installed), `torch`, `openvino` or `onnx`.
        precision: `auto` (the fastest that keeps the map), `fp32`, `bf16`, or `int8`, which is calibrated once on val
            patches of the run.

    Raises:
        FiresegError: If the path does not exist, or is not a checkpoint of fireseg, or the engine is not installed.
        SettingError: If the device is not available, or the engine not on it.

    Example:
        >>> run = load("outputs/del_unet_resnet34")  # doctest: +SKIP
        >>> run.predict_scene("scene.tif", out="maps/").summary["burned_ha"]  # doctest: +SKIP
    """
    trained = load_trained_model(path, device=device, build=False)
    return Run(trained, create_engine(trained, runtime=runtime, precision=precision))


class InputImage(NamedTuple):
    """An image in memory as a raster with the same reflectance.

    Attributes:
        raster: Its reflectance and its unknown pixels.
        cloudy: Pixels under cloud or cloud shadow, `(H, W)`; None if the clouds are unknown.
        flags: Remarks about odd values.
    """

    raster: ArrayRaster
    cloudy: NDArray[np.bool_] | None
    flags: tuple[str, ...]


def read_image(
    image: np.ndarray | Tensor, bands: Sequence[str], options: RasterOptions = DEFAULT_OPTIONS
) -> InputImage:
    """Converts an image to the values that a raster with the same reflectance gives.

    Args:
        image: Reflectance, 0 to 1, `(C, H, W)` or `(H, W, C)`; the channel axis is the one whose length is the number
            of bands. Unknown pixels are not finite, or 0 in all bands. Values outside of 0 to 1 are clipped, as in
            training.
        bands: Requested bands, in order.
        options: Names of the channels, the requested bands if None, and meaning of the values.

    Raises:
        FiresegError: If the channel axis is ambiguous or missing, or the values are not reflectance.
    """
    detach = getattr(image, "detach", None)  # of a tensor; torch need not be imported for an array
    values = np.asanyarray(image if detach is None else detach().cpu())
    if values.dtype.kind != "f" and not (values.dtype.kind in "iu" and options.scale is not None):
        raise FiresegError(
            f"image: data type {values.dtype}, but float reflectance from 0 to 1 is expected; for digital numbers give "
            f"scale={1 / SCALE:g} and their radiometric offset"
        )
    planes = _put_channels_last(values, options.channels or bands).transpose(2, 0, 1)
    # Of a masked array, as `rasterio.read(masked=True)` returns it, the masked pixels are unknown.
    masked, planes = np.ma.getmaskarray(planes), np.ma.getdata(planes)
    unknown, cloudy = np.zeros(planes.shape[1:], np.bool_), None
    if options.channels is not None:
        names = apply_channels(options.channels, [None] * len(options.channels))
        for number in names.masks:
            unknown |= (planes[number - 1] == 0) | np.isnan(planes[number - 1])
        if names.scl is not None:
            try:
                cloudy = is_cloudy(convert_scene_classification(planes[names.scl - 1]))
            except FiresegError as error:
                raise FiresegError(f"image: channel {names.scl}: {error}") from error
        selected = find_channels(names, bands, "give all bands of the run")
        planes, masked = planes[selected], masked[selected]
    unknown |= masked.any(axis=0)
    ones, zeros = [1.0] * len(bands), [0.0] * len(bands)
    offset = options.offset or 0.0
    scaling = get_scaling(planes.dtype, offset=offset, scales=ones, shifts=zeros, scale=options.scale)
    nodata = [() if options.nodata is None else (options.nodata,)] * len(bands)
    first = 0
    for scene_bands in filter(None, split_pair(bands)):  # a pixel of either scene may be without a measurement
        part = slice(first, first + len(scene_bands))
        unknown |= find_nodata(planes[part], nodata[part], has_offset=bool((scaling.biases < 0).any()))
        first = part.stop
    sample = PixelSample(unknown.size)
    sample.add(0, 0, planes, unknown)
    source = "none" if options.offset is None or options.scale is None else "option"
    flags = sample.check("image", scaling, offset_source=source, bands=bands, trust_values=options.trust_values)
    if options.offset is not None and options.scale is None:
        flags.append(f"image: offset {options.offset:g} has no effect without scale")
    for flag in flags:
        log.warning("%s", flag)
    reflectance = quantize_reflectance(planes, unknown, scaling)
    return InputImage(ArrayRaster(bands=tuple(bands), image=reflectance, unknown=unknown), cloudy, tuple(flags))


def _put_channels_last(image: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    expected = f"{len(bands)} bands ({' '.join(bands)})"
    if image.ndim != 3:
        raise FiresegError(f"image: shape {image.shape}, but (C, H, W) or (H, W, C) is expected with {expected}")
    if 0 in image.shape:
        raise FiresegError(f"image: shape {image.shape} has no pixel; give at least one")
    is_first, is_last = image.shape[0] == len(bands), image.shape[2] == len(bands)
    if is_first and is_last:
        raise FiresegError(
            f"image: shape {image.shape} has length {len(bands)} at both ends, so the channel axis is ambiguous; "
            "crop or pad a side, so that only one axis has the length of the bands"
        )
    if not (is_first or is_last):
        raise FiresegError(
            f"image: shape {image.shape}, but the first or the last axis must be the {expected}; "
            "give these bands, in this order"
        )
    return image.transpose(1, 2, 0) if is_first else image
