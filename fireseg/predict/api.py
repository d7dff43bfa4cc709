"""A trained run at hand: images and scenes in, maps out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fireseg.engine.device import DeviceName
from fireseg.geo import plan_sliding_windows
from fireseg.predict.inference import predict_rows, prepare_model
from fireseg.predict.options import Options
from fireseg.predict.outputs import MapStatistics, classify, get_operating_point
from fireseg.predict.pipeline import SceneMap, map_scene
from fireseg.predict.quicklook import to_source
from fireseg.runs import TrainedModel, load_trained_model


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What burned in an image.

    Attributes:
        classes: `(H, W)` uint8: 0 unburned, 1 to K - 1 burned, 255 unknown.
        fire: `(H, W)` float32, calibrated probability of fire, 0 to 1; NaN where unknown.
        has_fire: Whether any pixel burned.
        confidence: Largest fire probability, 0 to 1; 0 where all is unknown.
        fraction: Share of the known pixels that burned, 0 to 1.
    """

    classes: NDArray[np.uint8]
    fire: NDArray[np.float32]
    has_fire: bool
    confidence: float
    fraction: float


@dataclass(frozen=True)
class Run:
    """A trained run; `fireseg.load` opens one.

    Attributes:
        trained: The model, and what is known of it.
    """

    trained: TrainedModel

    def predict(
        self,
        image: np.ndarray | Tensor,
        *,
        threshold: float | None = None,
        temperature: float | None = None,
        tta: bool = False,
        batch_size: int | None = None,
    ) -> Prediction:
        """Maps what burned in an image, through the same windows as a scene on disk.

        Args:
            image: Surface reflectance of the run's bands, 0 to 1, float, `(C, H, W)` or `(H, W, C)`, of any size: told
                apart by the axis that is as long as there are bands. Not finite where unknown.
            threshold: Least probability that counts as burned; by default the one chosen on val, else 0.5.
            temperature: What log-odds are divided by; by default the one chosen on val, else 1.
            tta: Average over the eight turns and flips.
            batch_size: Windows at a time; what suits the device if not given.

        Raises:
            FiresegError: If the channels cannot be told or are not the run's bands.
            SettingError: If an option cannot be.
        """
        options = Options(threshold=threshold, temperature=temperature, tta=tta, batch_size=batch_size)
        trained = self.trained
        decision = get_operating_point(trained, options.threshold, options.temperature)
        source = to_source(image, trained.bands)
        classes = np.empty((source.height, source.width), np.uint8)
        fire = np.empty(classes.shape, np.float32)
        tally = MapStatistics(trained.task.num_classes)
        for top, probabilities, unknown, _ in predict_rows(
            prepare_model(trained.model, trained.device),
            source,
            plan_sliding_windows(source.height, source.width),
            num_classes=trained.task.num_classes,
            device=trained.device,
            batch_size=options.batch_size,
            tta=options.tta,
        ):
            rows = slice(top, top + len(unknown))
            threshold, temperature = decision.threshold, decision.temperature
            decided = classify(probabilities, unknown, threshold=threshold, temperature=temperature)
            classes[rows], fire[rows] = decided
            tally.add(decided)
        return Prediction(
            classes=classes, fire=fire, has_fire=tally.has_fire, confidence=tally.confidence, fraction=tally.fraction
        )

    def predict_scene(self, path: Path | str, out: Path | str = "maps", **options: Any) -> SceneMap:
        """Maps what burned in a scene on disk, as `python -m fireseg.predict` does.

        Args:
            path: A raster with the run's bands.
            out: Folder for the map; made if it is not there.
            **options: As `fireseg.mapping.options.Options` has them: `threshold`, `tta`, `geojson`, `overwrite`…

        Returns:
            Where the files are, and the summary.

        Raises:
            FiresegError: If the scene cannot be read, maps are there already, or the folder cannot be written.
            SettingError: If an option cannot be.
        """
        return map_scene(self.trained, Path(path), Path(out), Options(**options))


def load(path: Path | str, *, device: DeviceName = "auto") -> Run:
    """Opens a trained run.

    Args:
        path: Run folder, checkpoint file, or MLflow address.
        device: Where the model computes: `auto`, `cuda`, `mps` or `cpu`.

    Raises:
        FiresegError: If there is no such thing, or it is no checkpoint of fireseg.
        SettingError: If the machine has no such device.

    Example:
        >>> run = load("outputs/del_unet_resnet34")  # doctest: +SKIP
        >>> run.predict_scene("scene.tif", out="maps/").summary["burned_ha"]  # doctest: +SKIP
    """
    return Run(load_trained_model(path, device=device))
