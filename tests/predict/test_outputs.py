"""The files of a map appear together or not at all."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from filelock import FileLock

from fireseg.errors import FiresegError, SettingError
from fireseg.predict.outputs import MapFiles, check_outputs, staged_outputs


def write_all(drafts: MapFiles, text: str, *, geojson: bool = True) -> None:
    for path in drafts:
        if geojson or path != drafts.geojson:
            path.write_text(text)


def list_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_files_bear_the_name_of_the_scene(tmp_path: Path) -> None:
    assert [path.name for path in MapFiles.of(tmp_path, "scene")] == [
        "scene_classes.tif",
        "scene_classes.tif.aux.xml",
        "scene_fire.tif",
        "scene_burned.gpkg",
        "scene_burned.geojson",
        "scene.png",
        "scene.json",
    ]


def test_all_appear_at_the_end_and_nothing_else_is_left(tmp_path: Path) -> None:
    files = MapFiles.of(tmp_path / "maps", "scene")
    with staged_outputs(files, "scene") as drafts:
        write_all(drafts, "new")
        assert list_files(tmp_path / "maps") == [".scene.part"]
    assert list_files(tmp_path / "maps") == sorted(path.name for path in files)


def test_what_goes_wrong_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    files = MapFiles.of(tmp_path, "scene")

    def break_half_way() -> None:
        with staged_outputs(files, "scene") as drafts:
            write_all(drafts, "new")
            raise FiresegError("broken")

    with pytest.raises(FiresegError, match="broken"):
        break_half_way()
    assert list_files(tmp_path) == []


def test_what_a_killed_process_left_is_cleared_by_the_next_one(tmp_path: Path) -> None:
    left = tmp_path / ".scene.part" / ".map-x"
    left.mkdir(parents=True)
    (left / "classes.raw").write_text("half")
    (tmp_path / ".scene.part" / "scene_burned.geojson").write_text("half")
    with staged_outputs(MapFiles.of(tmp_path, "scene"), "scene") as drafts:
        write_all(drafts, "new", geojson=False)
    assert "scene_burned.geojson" not in list_files(tmp_path)
    assert ".scene.part" not in list_files(tmp_path)


def test_files_of_an_older_map_do_not_stay_beside_a_newer_one(tmp_path: Path) -> None:
    files = MapFiles.of(tmp_path, "scene")
    write_all(files, "old")
    with staged_outputs(files, "scene") as drafts:
        write_all(drafts, "new", geojson=False)
    assert not files.geojson.exists()
    assert {path.read_text() for path in files if path.exists()} == {"new"}


def test_the_summary_is_the_last_to_go_and_the_last_to_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = MapFiles.of(tmp_path, "scene")
    write_all(files, "old")
    rename = Path.replace
    seen: list[bool] = []

    def note(self: Path, target: Path) -> Path:
        seen.append(files.summary.exists())
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", note)
    with staged_outputs(files, "scene") as drafts:
        write_all(drafts, "new")
    assert seen == [False] * len(files)
    assert files.summary.read_text() == "new"


def test_two_processes_do_not_write_the_same_map(tmp_path: Path) -> None:
    (tmp_path / ".scene.part").mkdir()
    with (
        FileLock(tmp_path / ".scene.part" / ".lock"),
        pytest.raises(FiresegError, match="another process"),
        staged_outputs(MapFiles.of(tmp_path, "scene"), "scene"),
    ):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_not_ours_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with (
        pytest.raises(FiresegError, match="choose a folder that is yours"),
        staged_outputs(MapFiles.of(tmp_path, "scene"), "scene"),
    ):
        pass


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "maps").write_text("")
    with (
        pytest.raises(FiresegError, match=re.escape(str(tmp_path / "maps"))),
        staged_outputs(MapFiles.of(tmp_path / "maps", "scene"), "scene"),
    ):
        pass


def test_maps_that_are_there_are_refused_all_scenes_at_once(tmp_path: Path) -> None:
    (tmp_path / "b_fire.tif").touch()
    (tmp_path / "c_fire.tif").touch()
    scenes = [Path("a.tif"), Path("b.tif"), Path("c.tif")]
    with pytest.raises(FiresegError, match=r"b_fire.tif and 1 more: is there already; add --overwrite"):
        check_outputs(scenes, tmp_path, overwrite=False)
    check_outputs(scenes, tmp_path, overwrite=True)


def test_two_scenes_of_one_name_are_refused(tmp_path: Path) -> None:
    scenes = [Path("x/a.tif"), Path("y/a.tif"), Path("b.tif")]
    with pytest.raises(SettingError, match=r"x/a.tif, y/a.tif: 2 scenes .* called a"):
        check_outputs(scenes, tmp_path, overwrite=True)


def test_a_map_never_takes_the_place_of_a_scene(tmp_path: Path) -> None:
    scenes = [tmp_path / "a.tif", tmp_path / "a_classes.tif"]
    with pytest.raises(SettingError, match="take the place of this scene"):
        check_outputs(scenes, tmp_path, overwrite=True)


def test_metadata_beside_a_scene_are_not_taken_for_an_old_summary(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"acquisition_date": "2019-08-28"}')
    with pytest.raises(FiresegError, match="no summary of a map"):
        check_outputs([tmp_path / "a.tif"], tmp_path, overwrite=True)
    (tmp_path / "a.json").write_text('{"made_by": "fireseg"}')
    check_outputs([tmp_path / "a.tif"], tmp_path, overwrite=True)
