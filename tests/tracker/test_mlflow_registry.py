"""Models that are registered through an MLflow server."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ENDPOINT_NOT_FOUND

from fireseg.errors import FiresegError
from fireseg.files import hash_file
from fireseg.tracker import TrackedModel, create_mlflow_tracker, download_artifact
from fireseg.tracker.mlflow_registry import register_model
from tests.ports import find_free_port
from tests.tracker.builders import Server, start


@pytest.fixture
def model(tmp_path: Path) -> TrackedModel:
    """A model whose checkpoint is a text, which MLflow does not read."""
    checkpoint = tmp_path / "best_model.pt"
    checkpoint.write_text("weights")
    return TrackedModel(
        checkpoint=checkpoint,
        sha256=hash_file(checkpoint),
        epoch=3,
        bands=("B04", "B12"),
        class_names=("background", "fire"),
    )


def test_a_server_stores_registers_and_returns_a_model(
    server: Server, model: TrackedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    session = start(create_mlflow_tracker(uri=server.uri))
    session.tracker.model(model.checkpoint, lambda: model)
    session.finish("FINISHED")
    assert session.tracker.is_complete
    run_id = session.run_ids["mlflow"]
    first, again = (
        register_model(server.uri, run_id, model, name="by server", alias="champion", tags={"bands": ["B04"]})
        for _ in range(2)
    )
    assert [(each.number, each.is_new, each.former_number) for each in (first, again)] == [
        ("1", True, ""),
        ("1", False, "1"),
    ]
    assert MlflowClient(server.uri).get_model_version("by server", "1").tags["bands"] == '["B04"]'
    for address in ("models:/by server@champion", "models:/by server/1", f"runs:/{run_id}"):
        assert download_artifact(address, tracking_uri=server.uri).read_text() == "weights"


def test_the_checkpoint_is_a_file_of_the_run_where_a_server_stores_no_models(
    store: str, model: TrackedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MlflowException("no such endpoint", error_code=ENDPOINT_NOT_FOUND)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "search_logged_models", refuse)
        session = start(create_mlflow_tracker(uri=store))
        session.tracker.model(model.checkpoint, lambda: model)
        session.finish("FINISHED")
    run_id = session.run_ids["mlflow"]
    assert [file.path for file in MlflowClient(store).list_artifacts(run_id, "checkpoints")] == [
        "checkpoints/best_model.pt"
    ]
    assert download_artifact(f"runs:/{run_id}", tracking_uri=store).read_text() == "weights"


def test_a_server_that_is_down_is_an_error_of_one_line(model: TrackedModel) -> None:
    uri = f"http://127.0.0.1:{find_free_port()}"
    with pytest.raises(FiresegError, match=rf"^a: not registered in MLflow at {uri} \(Connection refused\); "):
        register_model(uri, "0" * 32, model, name="a", tags={})
