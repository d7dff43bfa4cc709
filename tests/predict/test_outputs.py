"""Outputs of a map: staging, classification, statistics, and the choice of threshold and temperature."""

from __future__ import annotations

import math
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from fireseg.errors import FiresegError, SettingError
from fireseg.predict.outputs import (
    MapFiles,
    MapStatistics,
    PixelPrediction,
    check_outputs,
    classify,
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


def make_probabilities(*pixels: tuple[float, ...]) -> np.ndarray:
    """One row of pixels, `(K, 1, W)`."""
    return np.array(pixels, np.float32).T[:, None]


def known(width: int) -> np.ndarray:
    return np.zeros((1, width), bool)


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30))
def test_two_classes_at_a_threshold_of_one_half_are_the_argmax(fire: list[float]) -> None:
    probabilities = make_probabilities(*((float(np.float32(1) - np.float32(p)), p) for p in fire))
    differs = probabilities[0] != probabilities[1]
    classes = classify(probabilities, known(len(fire))).classes
    np.testing.assert_array_equal(classes[differs], probabilities.argmax(0)[differs])


def test_a_pixel_burned_if_its_probability_reaches_the_threshold() -> None:
    probabilities = make_probabilities((0.75, 0.25), (0.7, 0.3), (0.65, 0.35))
    assert classify(probabilities, known(3), threshold=0.28).classes.tolist() == [[0, 1, 1]]
    assert classify(make_probabilities((0.5, 0.5)), known(1), threshold=0.5).classes.tolist() == [[1]]


def test_a_temperature_of_two_halves_the_log_odds() -> None:
    # Odds of 9 to 1 become 3 to 1.
    fire = classify(make_probabilities((0.1, 0.9), (0.9, 0.1)), known(2), temperature=2.0).fire
    np.testing.assert_allclose(fire, [[0.75, 0.25]], rtol=1e-5)


def test_the_threshold_applies_to_the_calibrated_probability() -> None:
    probabilities = make_probabilities((0.1, 0.9))
    assert classify(probabilities, known(1), temperature=2.0, threshold=0.74).classes.item() == 1
    assert classify(probabilities, known(1), temperature=2.0, threshold=0.76).classes.item() == 0


def test_fire_is_the_sum_of_the_fire_classes_and_the_class_is_the_likeliest_of_them() -> None:
    probabilities = make_probabilities((0.4, 0.1, 0.3, 0.2, 0.0), (0.6, 0.0, 0.1, 0.3, 0.0))
    classes, fire = classify(probabilities, known(2))
    assert classes.tolist() == [[2, 0]]
    np.testing.assert_allclose(fire, [[0.6, 0.4]], rtol=1e-5)


def test_of_equal_fire_classes_the_lower_is_taken() -> None:
    assert classify(make_probabilities((0.2, 0.2, 0.3, 0.3, 0.0)), known(1)).classes.item() == 2


@pytest.mark.parametrize("temperature", [0.05, 1.0, 20.0])
def test_certain_probabilities_stay_certain(temperature: float) -> None:
    probabilities = make_probabilities((1.0, 0.0), (0.0, 1.0))
    classes, fire = classify(probabilities, known(2), temperature=temperature)
    assert classes.tolist() == [[0, 1]]
    assert fire.tolist() == [[0.0, 1.0]]


def test_unknown_pixels_have_neither_class_nor_probability() -> None:
    classes, fire = classify(make_probabilities((0.1, 0.9), (0.1, 0.9)), np.array([[True, False]]))
    assert classes.tolist() == [[255, 1]]
    assert np.isnan(fire).tolist() == [[True, False]]


def test_probabilities_are_not_modified() -> None:
    probabilities = make_probabilities((0.1, 0.9), (0.5, 0.5))
    before = probabilities.copy()
    classify(probabilities, known(2), temperature=3.0)
    np.testing.assert_array_equal(probabilities, before)


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


CLASSES = np.array([[0, 1, 2], [255, 2, 2]], np.uint8)
FIRE = np.array([[0.1, 0.6, 0.7], [np.nan, 0.9, 0.8]], np.float32)


def test_pixels_and_areas_add_up_over_rows() -> None:
    statistics = MapStatistics(3)
    area_m2 = np.array([[100, 200, 300], [400, 500, 600]], np.float32)
    for row in range(2):
        statistics.add(PixelPrediction(CLASSES[row : row + 1], FIRE[row : row + 1]), area_m2[row : row + 1])
    assert statistics.pixels.tolist() == [1, 1, 3]
    assert statistics.hectares == pytest.approx([0.01, 0.02, 0.14])
    assert statistics.burned_ha == pytest.approx(0.16)
    assert statistics.fraction == pytest.approx(4 / 5)
    assert statistics.unknown_share == pytest.approx(1 / 6)
    assert statistics.confidence == pytest.approx(0.9)
    assert statistics.has_fire


def test_one_area_per_row_applies_to_all_its_pixels() -> None:
    statistics = MapStatistics(3)
    statistics.add(PixelPrediction(CLASSES, FIRE), np.array([[100], [200]], np.float32))
    assert statistics.hectares == pytest.approx([0.01, 0.01, 0.05])


def test_statistics_of_unknown_pixels_are_zero() -> None:
    statistics = MapStatistics(2)
    statistics.add(
        PixelPrediction(np.full((2, 2), 255, np.uint8), np.full((2, 2), np.nan, np.float32)),
        np.ones((2, 2), np.float32),
    )
    assert (statistics.has_fire, statistics.confidence, statistics.fraction, statistics.unknown_share) == (
        False,
        0.0,
        0.0,
        1.0,
    )
    assert statistics.hectares == [0.0, 0.0]
