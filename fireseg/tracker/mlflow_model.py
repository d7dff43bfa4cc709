"""Writes checkpoints as MLflow models, which load and predict without an installed fireseg."""

from __future__ import annotations

import hashlib
import json
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fireseg.files import convert_disk_errors
from fireseg.tracker.mlflow_store import prepare_environment
from fireseg.tracker.protocol import TrackedModel

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import Model, ModelSignature

_PACKAGE = Path(__file__).resolve().parents[1]

_CODE = Path(__file__).with_name("pyfunc_code.py")

REQUIREMENTS = (
    "filelock",
    "mlflow",
    "numpy",
    "pydantic",
    "rasterio",
    "segmentation-models-pytorch",
    "torch",
    "torchvision",
    "tqdm",
    "tyro",
)
"""Packages that a stored model imports. Given, because finding them out would load the model in another process."""

MODEL_NAME = "best_model"
"""Name of the model of a run in MLflow."""

_CONTENT = "fireseg_content"
"""Tag of a model with a hash of its description, by which an equal one is found."""

_EXAMPLE_PX = 16


def write_mlflow_model(folder: Path, model: TrackedModel, *, entry: Model | None = None) -> None:
    """Writes a checkpoint as an MLflow model in models-from-code form.

    `mlflow.pyfunc.load_model(folder).predict(image)` takes reflectance, `(B, C, H, W)` float32, and returns `classes`
    and `fire` as `fireseg.load(run).predict` does. The code of this version is stored as a zip of a few hundred kB
    and used where fireseg is not installed.

    Args:
        folder: Folder to create; it may exist if it is empty.
        model: Checkpoint with its bands, classes and threshold.
        entry: MLflow's description of the model, to which everything is added; None for a new one.

    Raises:
        FiresegError: If the disk is full or the folder is not writable.
    """
    prepare_environment()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # remarks on type hints of its own
        import mlflow.pyfunc

    num_bands = len(model.bands)
    artifacts = {"checkpoint": str(model.checkpoint)}
    if model.calibration is not None:
        artifacts["calibration"] = str(model.calibration)
    with convert_disk_errors(folder), tempfile.TemporaryDirectory() as staging:
        artifacts["fireseg"] = str(_zip_package(Path(staging) / "fireseg.zip"))
        mlflow.pyfunc.save_model(
            folder,
            python_model=str(_CODE),
            artifacts=artifacts,
            signature=_create_signature(num_bands),
            input_example=_create_example(num_bands),
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS],
            model_config={"threshold": model.threshold, "temperature": model.temperature},
            metadata=model.describe(),
            mlflow_model=entry,
        )


def open_mlflow_model(folder: Path) -> Callable[[NDArray[np.float32]], Mapping[str, NDArray[Any]]]:
    """Opens a written model, and returns its function of reflectance `(B, C, H, W)`: `classes` and `fire`.

    Args:
        folder: Folder that `write_mlflow_model` has written.
    """
    prepare_environment()
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(str(folder)).predict


def log_model(client: MlflowClient, run_id: str, model: TrackedModel) -> tuple[str, bool]:
    """Stores a checkpoint as a model of a run, unless the run has an equal one.

    A stored model never changes: one with another checkpoint or threshold is stored beside it. One that a killed
    process left unfinished is finished.

    Args:
        client: Client of the store.
        run_id: MLflow run that trained the model.
        model: Checkpoint with its description.

    Returns:
        The id of the model, `m-…`, and True if it was stored by this call.
    """
    from mlflow.entities import LoggedModel, LoggedModelOutput
    from mlflow.models import Model

    run = client.get_run(run_id)
    content = model.describe()
    tags = {_CONTENT: hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}
    equal: list[LoggedModel] = client.search_logged_models(
        [run.info.experiment_id], filter_string=f"source_run_id = '{run_id}' AND tags.{_CONTENT} = '{tags[_CONTENT]}'"
    )
    for stored in equal:
        if stored.status == "READY":
            return stored.model_id, False
    stored = next(iter(equal), None) or client.create_logged_model(
        run.info.experiment_id,
        name=MODEL_NAME,
        source_run_id=run_id,
        tags={**tags, **as_texts(content)},
        model_type="burned-area segmentation",
    )
    outputs = run.outputs.model_outputs if run.outputs else []
    if stored.model_id not in [output.model_id for output in outputs]:
        client.log_outputs(run_id, [LoggedModelOutput(stored.model_id, step=model.epoch)])
    with tempfile.TemporaryDirectory() as staging:
        folder, address = Path(staging) / MODEL_NAME, stored.artifact_location
        entry = Model(artifact_path=address, run_id=run_id, model_uuid=stored.model_id, model_id=stored.model_id)
        write_mlflow_model(folder, model, entry=entry)
        client.log_model_artifacts(stored.model_id, str(folder))
    client.finalize_logged_model(stored.model_id, "READY")
    return stored.model_id, True


def as_texts(content: Mapping[str, Any]) -> dict[str, str]:
    """Converts plain values to tags; others than texts become JSON."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in content.items()}


def _create_signature(num_bands: int) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    float32, uint8 = np.dtype(np.float32), np.dtype(np.uint8)
    inputs: list[ColSpec | TensorSpec] = [TensorSpec(float32, (-1, num_bands, -1, -1))]
    shape = (-1, -1, -1)
    outputs: list[ColSpec | TensorSpec] = [TensorSpec(uint8, shape, "classes"), TensorSpec(float32, shape, "fire")]
    return ModelSignature(Schema(inputs), Schema(outputs))


def _create_example(num_bands: int) -> NDArray[np.float32]:
    """Returns a patch of reflectance from 1/16 to 5/16 in steps of 1/128, which JSON holds with few digits."""
    rows, cols = np.mgrid[:_EXAMPLE_PX, :_EXAMPLE_PX]
    steps = 8 + (rows + cols)[None] % 32 + np.arange(num_bands)[:, None, None] % 2
    return (steps / 128).astype(np.float32)[None]


def _zip_package(path: Path) -> Path:
    """Writes the code of this version as a zip from which Python imports."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(_PACKAGE.rglob("*.py")):
            archive.write(file, file.relative_to(_PACKAGE.parent))
    return path
