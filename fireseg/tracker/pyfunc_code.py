"""The code of a stored MLflow model: maps images with the checkpoint that is stored beside it.

MLflow copies this file into every model and executes it when the model is loaded. It is imported by nothing else.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext


class BurnedAreaModel(PythonModel):
    """Maps images in memory, with the same result as `fireseg.load(run).predict(image)`."""

    _run: Any
    _decision: dict[str, Any]

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the checkpoint.

        Args:
            context: Paths of the stored files, and `threshold` and `temperature`, which
                `mlflow.pyfunc.load_model(uri, model_config={"threshold": 0.4})` replaces.
        """
        # At the end: an installed version is used as it is, and the stored code where there is none.
        sys.path.append(context.artifacts["fireseg"])
        from fireseg import load

        self._run = load(context.artifacts["checkpoint"])
        self._decision = dict(context.model_config or {})

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride] - the base class has no result
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> dict[str, np.ndarray]:
        """Maps a batch of images.

        Args:
            context: Unused; `load_context` has read it.
            model_input: Reflectance, `(B, C, H, W)` float32 in [0, 1]; pixels that are 0 or not finite in a band
                are unknown.
            params: Unused.

        Returns:
            `classes`, `(B, H, W)` uint8: 0 unburned, 1 to K - 1 burned, 255 unknown; and `fire`, the calibrated
            fire probability, `(B, H, W)` float32 in [0, 1], NaN where unknown.
        """
        maps = [self._run.predict(image, **self._decision) for image in model_input]
        shape = (0, *model_input.shape[2:])
        return {
            "classes": np.stack([each.classes for each in maps]) if maps else np.zeros(shape, np.uint8),
            "fire": np.stack([each.fire for each in maps]) if maps else np.zeros(shape, np.float32),
        }


set_model(BurnedAreaModel())
