"""Outputs of a map: names, staging, and the choice of threshold and temperature."""

from __future__ import annotations

import math
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from fireseg.decision import min_log_odds
from fireseg.errors import FiresegError, SettingError
from fireseg.predict.outputs import (
    MapFiles,
    check_outputs,
    get_decision_threshold,
    staged_outputs,
)
from fireseg.runs import Calibration, TrainedModel
from tests.predict.builders import make_trained


def write_all(staged: MapFiles, text: str, *, geojson: bool = True) -> None:
    for path in staged:
        if geojson or path != staged.geojson:
            path.write_text(text)


def list_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_files_are_named_after_the_scene(tmp_path: Path) -> None:
    assert [path.name for path in MapFiles.of(tmp_path, "scene")] == [
        "scene_classes.tif",
        "scene_classes.tif.aux.xml",
        "scene_classes.qml",
        "scene_fire.tif",
        "scene_burned.gpkg",
        "scene_burned.geojson",
        "scene.png",
        "scene.json",
    ]


def test_all_files_appear_at_the_end_and_nothing_else_is_left(tmp_path: Path) -> None:
    files = MapFiles.of(tmp_path / "maps", "scene")
    with staged_outputs(files, "scene") as staged:
        write_all(staged, "new")
        assert list_files(tmp_path / "maps") == [".scene.part"]
    assert list_files(tmp_path / "maps") == sorted(path.name for path in files)


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    files = MapFiles.of(tmp_path, "scene")

    def fail() -> None:
        with staged_outputs(files, "scene") as staged:
            write_all(staged, "new")
            raise FiresegError("broken")

    with pytest.raises(FiresegError, match="broken"):
        fail()
    assert list_files(tmp_path) == []


def test_leftovers_of_a_killed_process_are_cleared_by_the_next_one(tmp_path: Path) -> None:
    left = tmp_path / ".scene.part" / ".map-x"
    left.mkdir(parents=True)
    (left / "classes.raw").write_text("half")
    (tmp_path / ".scene.part" / "scene_burned.geojson").write_text("half")
    with staged_outputs(MapFiles.of(tmp_path, "scene"), "scene") as staged:
        write_all(staged, "new", geojson=False)
    assert "scene_burned.geojson" not in list_files(tmp_path)
    assert ".scene.part" not in list_files(tmp_path)


def test_files_of_an_older_map_are_removed(tmp_path: Path) -> None:
    files = MapFiles.of(tmp_path, "scene")
    write_all(files, "old")
    with staged_outputs(files, "scene") as staged:
        write_all(staged, "new", geojson=False)
    assert not files.geojson.exists()
    assert {path.read_text() for path in files if path.exists()} == {"new"}


def test_the_summary_is_removed_first_and_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = MapFiles.of(tmp_path, "scene")
    write_all(files, "old")
    rename = Path.replace
    seen: list[bool] = []

    def record(self: Path, target: Path) -> Path:
        seen.append(files.summary.exists())
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", record)
    with staged_outputs(files, "scene") as staged:
        write_all(staged, "new")
    assert seen == [False] * len(files)
    assert files.summary.read_text() == "new"


def test_a_link_among_the_outputs_stays_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / "elsewhere").mkdir()
    files = MapFiles.of(tmp_path / "maps", "scene")
    for path in (files.burned, files.summary):
        path.symlink_to(tmp_path / "elsewhere" / path.name)
    for text in ("first", "second"):  # the links dangle at first
        with staged_outputs(files, "scene") as staged:
            write_all(staged, text)
        assert files.burned.is_symlink()
        assert files.summary.is_symlink()
        assert {path.read_text() for path in files} == {text}
    assert list_files(tmp_path / "elsewhere") == ["scene.json", "scene_burned.gpkg"]


def test_pipes_and_devices_among_the_outputs_are_refused_before_any_work(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "scene_burned.gpkg")
    (tmp_path / "scene.png").symlink_to("/dev/null")
    with pytest.raises(FiresegError) as caught:
        check_outputs([Path("scene.tif")], tmp_path, overwrite=True)
    first, second = caught.value.faults
    assert re.search(r"scene_burned\.gpkg: a pipe.*another folder with --out", first)
    assert re.search(r"scene\.png: a device.*another folder with --out", second)


def test_two_processes_cannot_write_the_same_map(tmp_path: Path) -> None:
    (tmp_path / ".scene.part").mkdir()
    with (
        FileLock(tmp_path / ".scene.part" / ".lock"),
        pytest.raises(FiresegError, match="another process"),
        staged_outputs(MapFiles.of(tmp_path, "scene"), "scene"),
    ):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with (
        pytest.raises(FiresegError, match=re.escape(str(tmp_path))),
        staged_outputs(MapFiles.of(tmp_path, "scene"), "scene"),
    ):
        pass


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "maps").write_text("")
    with (
        pytest.raises(FiresegError, match=re.escape(str(tmp_path / "maps"))),
        staged_outputs(MapFiles.of(tmp_path / "maps", "scene"), "scene"),
    ):
        pass


def test_existing_maps_of_all_scenes_are_rejected_at_once(tmp_path: Path) -> None:
    (tmp_path / "b_fire.tif").touch()
    (tmp_path / "c_fire.tif").touch()
    scenes = [Path("a.tif"), Path("b.tif"), Path("c.tif")]
    with pytest.raises(FiresegError, match=r"b_fire.tif and 1 more: .*--overwrite"):
        check_outputs(scenes, tmp_path, overwrite=False)
    check_outputs(scenes, tmp_path, overwrite=True)


def test_two_scenes_of_the_same_name_are_rejected(tmp_path: Path) -> None:
    scenes = [Path("x/a.tif"), Path("y/a.tif"), Path("b.tif")]
    with pytest.raises(SettingError, match=r"x/a.tif, y/a.tif: 2 scenes .*--out"):
        check_outputs(scenes, tmp_path, overwrite=True)


def test_a_map_never_overwrites_a_scene(tmp_path: Path) -> None:
    scenes = [tmp_path / "a.tif", tmp_path / "a_classes.tif"]
    with pytest.raises(SettingError, match=r"a_classes.tif: .*--out"):
        check_outputs(scenes, tmp_path, overwrite=True)


def test_metadata_of_a_scene_are_not_overwritten_as_an_old_summary(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"acquisition_date": "2019-08-28"}')
    with pytest.raises(FiresegError, match=r"a.json: .*--out"):
        check_outputs([tmp_path / "a.tif"], tmp_path, overwrite=True)
    (tmp_path / "a.json").write_text('{"made_by": "fireseg"}')
    check_outputs([tmp_path / "a.tif"], tmp_path, overwrite=True)


CALIBRATION = Calibration(
    temperature=2.0,
    threshold=0.8,
    rule_min_pixels=1,
    rule_min_odds=0.0,
    checkpoint_sha256="0" * 64,
    fingerprint="0" * 64,
)


@pytest.fixture
def trained() -> TrainedModel:
    return replace(make_trained(), calibration=CALIBRATION)


def test_without_a_calibration_the_threshold_is_one_half() -> None:
    decision = get_decision_threshold(make_trained())
    assert (decision.threshold, decision.temperature, decision.chosen_by) == (0.5, 1.0, "default")


def test_the_calibration_of_the_run_is_used(trained: TrainedModel) -> None:
    decision = get_decision_threshold(trained)
    assert (decision.threshold, decision.temperature, decision.chosen_by) == (0.8, 2.0, "calibration")


def test_a_given_threshold_takes_precedence(trained: TrainedModel) -> None:
    decision = get_decision_threshold(trained, threshold=0.3)
    assert (decision.threshold, decision.temperature, decision.chosen_by) == (0.3, 2.0, "user")


def test_a_given_temperature_alone_does_not_move_the_map(trained: TrainedModel) -> None:
    decision = get_decision_threshold(trained, temperature=1.0)
    # The same log-odds as before: 2 log(0.8 / 0.2) = log 16, that is 16 / 17.
    assert decision.threshold == pytest.approx(16 / 17)
    assert decision.temperature * math.log(decision.threshold / (1 - decision.threshold)) == pytest.approx(math.log(16))


@pytest.mark.parametrize(("threshold", "temperature"), [(0.6, 0.01), (0.3, 0.001), (0.3, 1e-300), (0.6, 1e-300)])
def test_a_small_temperature_alone_keeps_the_threshold_above_0_and_below_1(
    threshold: float, temperature: float
) -> None:
    trained = replace(make_trained(), calibration=replace(CALIBRATION, temperature=1.0, threshold=threshold))
    decision = get_decision_threshold(trained, temperature=temperature)
    assert 0 < decision.threshold < 1
    assert math.isfinite(min_log_odds(decision.threshold, decision.temperature))
