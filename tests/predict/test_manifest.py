"""The manifest of an output folder: which maps are done, and which are made by the same command again."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

import fireseg.predict.pipeline as pipeline
from fireseg.errors import FiresegError, SettingError
from fireseg.predict.options import PredictOptions
from fireseg.predict.pipeline import predict_scenes
from tests.predict.builders import draw_image, write_run, write_scene


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "a_run")


@pytest.fixture
def scenes(tmp_path: Path) -> tuple[Path, ...]:
    return tuple(write_scene(tmp_path / f"{name}.tif", draw_image(40, 50)) for name in "abc")


def map_all(run: Path, scenes: tuple[Path, ...], out: Path, **options: Any) -> list[str]:
    words = tuple(map(str, scenes))
    return predict_scenes(PredictOptions(run=str(run), scenes=words, out=out, device="cpu", runtime="torch", **options))


def read_times(out: Path) -> dict[str, int]:
    return {path.name.removesuffix("_classes.tif"): path.stat().st_mtime_ns for path in out.glob("*_classes.tif")}


def read_states(out: Path) -> list[str]:
    return [record["state"] for record in json.loads((out / "maps.json").read_text())["scenes"].values()]


def test_the_same_command_again_maps_nothing(run: Path, scenes: tuple[Path, ...], tmp_path: Path):
    out = tmp_path / "maps"
    assert map_all(run, scenes, out) == []
    before = read_times(out)
    assert map_all(run, scenes, out) == []
    assert read_times(out) == before
    assert read_states(out) == ["done"] * 3


def test_a_scene_that_is_repaired_is_mapped_and_the_others_stay(run: Path, scenes: tuple[Path, ...], tmp_path: Path):
    out, content = tmp_path / "maps", scenes[1].read_bytes()
    scenes[1].write_bytes(b"no raster")
    (fault,) = map_all(run, scenes, out)
    assert str(scenes[1]) in fault
    assert read_states(out) == ["done", "failed", "done"]
    before = read_times(out)
    scenes[1].write_bytes(content)
    assert map_all(run, scenes, out) == []
    after = read_times(out)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {"b"}


@pytest.mark.parametrize("change", ["threshold", "model", "scene", "foreign map"])
def test_maps_of_another_threshold_model_or_scene_are_refused(
    change: str, run: Path, scenes: tuple[Path, ...], tmp_path: Path
):
    out = tmp_path / "maps"
    assert map_all(run, scenes, out) == []
    options: dict[str, Any] = {}
    if change == "threshold":
        options = {"threshold": 0.6}
    elif change == "model":
        run = write_run(tmp_path / "other_run")
        path = run / "checkpoints" / "best_model.pt"
        torch.save({**torch.load(path, weights_only=True), "epoch": 4}, path)
    elif change == "scene":
        os.utime(scenes[0], (0, 0))
    else:  # made by a command of its own since
        (tmp_path / "x").mkdir()
        other = write_scene(tmp_path / "x" / "a.tif", draw_image(40, 50, seed=1))
        assert map_all(run, (other,), out, overwrite=True) == []
    with pytest.raises(FiresegError, match=r"exists already; add --overwrite"):
        map_all(run, scenes, out, **options)


def test_overwrite_goes_on_with_a_command_that_was_stopped_and_else_begins_anew(
    run: Path, scenes: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "maps"
    assert map_all(run, scenes, out) == []
    first = read_times(out)
    real, called = pipeline.predict_scene, []

    def stop_at_third(trained: Any, scene: Any, out: Path, **named: Any) -> Any:
        called.append(scene)
        if len(called) == 3:
            raise KeyboardInterrupt
        return real(trained, scene, out, **named)

    monkeypatch.setattr(pipeline, "predict_scene", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        map_all(run, scenes, out, overwrite=True)
    second = read_times(out)
    assert (second["a"] != first["a"], second["b"] != first["b"], second["c"] == first["c"]) == (True, True, True)
    assert read_states(out) == ["done", "done", "missing"]
    assert map_all(run, scenes, out, overwrite=True) == []
    third = read_times(out)
    assert (third["a"] == second["a"], third["b"] == second["b"], third["c"] != second["c"]) == (True, True, True)


def test_a_map_that_appeared_before_the_command_was_killed_is_done(
    run: Path, scenes: tuple[Path, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    out = tmp_path / "maps"
    assert map_all(run, scenes, out) == []
    content = json.loads((out / "maps.json").read_text())
    for record in content["scenes"].values():
        record["state"] = "missing"
    (out / "maps.json").write_text(json.dumps(content))
    (out / "b_fire.tif").unlink()  # not whole
    for path in out.glob("b[._]*"):
        path.unlink()
    before = read_times(out)
    with caplog.at_level(logging.INFO, "fireseg"):
        assert map_all(run, scenes, out) == []
    assert "2 of 3 scenes are mapped already" in caplog.text
    assert {name: read_times(out)[name] for name in before} == before


@pytest.mark.parametrize("content", ["[]", "{", '{"made_by": "fireseg", "format": 99}', '{"format": 1}'])
def test_another_file_in_the_place_of_the_manifest_is_refused(
    content: str, run: Path, scenes: tuple[Path, ...], tmp_path: Path
):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "maps.json").write_text(content)
    with pytest.raises(FiresegError, match=r"maps\.json: not a manifest .*--out"):
        map_all(run, scenes, tmp_path / "maps")
    assert (tmp_path / "maps" / "maps.json").read_text() == content


@pytest.mark.parametrize(("name", "file"), [("maps", "maps.json"), ("all", "all_burned.gpkg")])
def test_a_scene_whose_map_would_be_a_file_of_all_scenes_is_refused(
    name: str, file: str, run: Path, scenes: tuple[Path, ...], tmp_path: Path
):
    scene = write_scene(tmp_path / f"{name}.tif", draw_image(40, 50))
    with pytest.raises(SettingError, match=rf"{file}: .*rename"):
        map_all(run, (*scenes, scene), tmp_path / "maps")


def test_one_scene_has_no_manifest_and_replaces_none(run: Path, scenes: tuple[Path, ...], tmp_path: Path):
    out = tmp_path / "maps"
    assert map_all(run, scenes[:1], out) == []
    assert not (out / "maps.json").exists()
    assert map_all(run, scenes[1:], out) == []
    scene = write_scene(tmp_path / "maps.tif", draw_image(40, 50))
    with pytest.raises(FiresegError, match=r"maps\.json: not the summary of a map"):
        map_all(run, (scene,), out, overwrite=True)


def test_two_commands_cannot_map_into_one_folder(run: Path, scenes: tuple[Path, ...], tmp_path: Path):
    out = tmp_path / "maps"
    out.mkdir()
    with (
        FileLock(out / ".maps.json.lock"),
        pytest.raises(FiresegError, match=r"maps\.json: another command .*--out"),
    ):
        map_all(run, scenes, out)


def test_tables_of_someone_else_are_not_replaced(run: Path, scenes: tuple[Path, ...], tmp_path: Path):
    out = tmp_path / "maps"
    out.mkdir()
    (out / "all_burned.csv").write_text("mine")
    with pytest.raises(FiresegError, match=r"all_burned\.csv: exists already; add --overwrite"):
        map_all(run, scenes, out)
    assert (out / "all_burned.csv").read_text() == "mine"
