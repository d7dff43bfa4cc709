"""Scenes one after the other."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from fireseg.errors import FiresegError, SettingError
from fireseg.predict import pipeline as flow
from fireseg.predict.options import Options
from fireseg.predict.pipeline import PredictOptions, map_scenes
from tests.predict.stand_in import draw_image, make_trained, write_scene


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A model that costs nothing, and a note of each time that one was opened."""
    calls: list[str] = []

    def open_stand_in(path: str, **_: Any) -> Any:
        calls.append(path)
        return make_trained()

    monkeypatch.setattr(flow, "open_trained", open_stand_in)
    return calls


def make_wish(folder: Path, *names: str, **options: Any) -> PredictOptions:
    scenes = tuple(folder / f"{name}.tif" for name in names)
    return PredictOptions(run="a_run", scenes=scenes, out=folder / "maps", options=Options(**options))


def test_a_bad_scene_does_not_stop_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a", "c"):
        write_scene(tmp_path / f"{name}.tif", draw_image(40, 50))
    (tmp_path / "b.tif").write_text("no raster")
    with caplog.at_level(logging.INFO, "fireseg"):
        faults = map_scenes(make_wish(tmp_path, "a", "b", "c"))
    assert len(faults) == 1
    assert "b.tif" in faults[0]
    assert sorted(path.name for path in (tmp_path / "maps").glob("*.json")) == ["a.json", "c.json"]
    table = [record.message for record in caplog.records][-4:]
    assert [line.split()[:2] for line in table] == [
        ["scene", "burned"],
        ["a.tif", table[1].split()[1]],
        ["b.tif", "failed"],
        ["c.tif", table[3].split()[1]],
    ]
    assert table[1].split()[2] == "ha"


def test_maps_that_are_there_are_refused_before_the_model_is_opened(tmp_path: Path, opened: list[str]) -> None:
    write_scene(tmp_path / "a.tif", draw_image(40, 50))
    assert map_scenes(make_wish(tmp_path, "a")) == []
    with pytest.raises(FiresegError, match="--overwrite"):
        map_scenes(make_wish(tmp_path, "a"))
    assert opened == ["a_run"]
    assert map_scenes(make_wish(tmp_path, "a", overwrite=True)) == []


def test_no_scene_is_no_wish(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="no scene"):
        map_scenes(make_wish(tmp_path))


def test_all_options_that_cannot_be_are_named_at_once() -> None:
    with pytest.raises(SettingError) as error:
        Options(threshold=1.0, temperature=0.0, min_area_ha=-1, simplify_m=float("nan"), batch_size=0, readers=0)
    named = [fault.split(":")[0] for fault in error.value.faults]
    assert named == ["--threshold", "--temperature", "--min-area-ha", "--simplify-m", "--batch-size", "--readers"]


def test_a_scene_that_lies_nowhere_on_earth_does_not_stop_the_others(tmp_path: Path) -> None:
    local = 'LOCAL_CS["a hill",UNIT["metre",1]]'
    write_scene(tmp_path / "bad.tif", draw_image(40, 50), crs=local)
    write_scene(tmp_path / "good.tif", draw_image(40, 50))
    faults = map_scenes(make_wish(tmp_path, "bad", "good"))
    assert len(faults) == 1
    assert "nothing leads from its reference system to longitude and latitude" in faults[0]
    assert (tmp_path / "maps" / "good.json").exists()
