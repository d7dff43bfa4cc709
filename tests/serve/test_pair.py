"""A server whose model compares a scene with one before the fire."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from fireseg.errors import FiresegError
from fireseg.runtime.engines import TorchEngine
from fireseg.serve.app import create_app
from fireseg.serve.names import list_scenes
from fireseg.serve.options import ServeOptions
from fireseg.serve.store import MAP, RESULT, Store
from fireseg.serve.worker import map_scene
from tests.predict.builders import PAIR_BANDS, make_pair_model, write_scene


def write_root(folder: Path) -> Path:
    image = np.full((7, 64, 64), 0.2, np.float32)
    image[:3], image[3] = 0.05, 0.4
    write_scene(folder / "a_PRE.tif", image)
    image[3, :, 32:] = 0.1
    write_scene(folder / "a.tif", image)
    write_scene(folder / "b.tif", image)
    return folder


def test_the_scene_before_the_fire_is_found_below_the_root_and_is_no_scene_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_root(tmp_path / "scenes")
    assert list_scenes(root, without=tmp_path / "served") == ["a.tif", "b.tif"]
    monkeypatch.chdir(tmp_path)
    trained = make_pair_model()

    def map_one(name: str) -> Path:
        folder = tmp_path / "served" / name
        folder.mkdir(parents=True)
        request: dict[str, Any] = {"scene": name, "base": str(root), "folder": str(folder), "settings": {}}
        map_scene(trained, TorchEngine(trained), request, max_pixels=10_000, messages=io.StringIO())
        return folder

    result = json.loads((map_one("a.tif") / RESULT).read_text())
    assert result["summary"]["burned_fraction"] == pytest.approx(0.5)
    assert result["summary"]["pre"]["scene"] == "a_PRE.tif"
    assert (tmp_path / "served/a.tif" / MAP / "scene.tif").exists()
    with pytest.raises(FiresegError, match=r"put it beside the scene as b_PRE.tif"):
        map_one("b.tif")


def test_an_upload_is_refused_before_it_is_stored(tmp_path: Path) -> None:
    model = {"run": "run", "bands": PAIR_BANDS, "labels": []}
    supervisor: Any = SimpleNamespace(
        model=model, error=None, start=lambda: None, stop=lambda: None, get_progress=lambda job: None
    )
    with Store(tmp_path / "served") as store:
        app = create_app(store, supervisor, ServeOptions(run="run"))
        client = TestClient(app, base_url="http://127.0.0.1")
        answer = client.post("/scenes", params={"name": "a.tif"}, content=b"II*\0")
        assert answer.status_code == 400, answer.text
        assert "put both below --root as <name>.tif and <name>_PRE.tif" in answer.json()["faults"][0]
        assert store.list() == []
