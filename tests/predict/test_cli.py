"""The door: what is typed, what is said, and what it ends with."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fireseg.predict.cli import main
from tests.predict.stand_in import draw_image, write_run, write_scene

Type = Callable[..., int]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "a_run")


@pytest.fixture
def type_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Type]:
    """Types words behind `python -m fireseg.predict`."""
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    yield lambda *words: main([str(word) for word in words])
    signal.signal(signal.SIGTERM, before)
    logger = logging.getLogger("fireseg")
    logger.handlers.clear()
    logger.propagate = True


def test_a_run_and_a_scene_are_enough(
    type_words: Type, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = write_scene(tmp_path / "scene.tif", draw_image(40, 50))
    assert type_words(run, scene) == 0
    assert sorted(path.name for path in Path("maps").iterdir()) == sorted(
        f"scene{ending}"
        for ending in (".json", ".png", "_burned.gpkg", "_classes.tif", "_classes.tif.aux.xml", "_fire.tif")
    )
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("a_run: threshold 0.5")
    assert told[-1].endswith("maps/scene_classes.tif")


def test_options_reach_the_map(type_words: Type, run: Path, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", draw_image(40, 50))
    words = ["--out", "elsewhere", "--tta", "--geojson", "--fire-dtype", "float32", "--threshold", 0.3]
    words += ["--temperature", 1.5, "--min-area-ha", 2, "--simplify-m", 20, "--offset", 1000, "--batch-size", 2]
    assert type_words(run, scene, *words, "--readers", 3, "--device", "cpu", "--overwrite") == 0
    said = json.loads(Path("elsewhere/scene.json").read_text())
    assert said["options"] == {
        "threshold": 0.3,
        "temperature": 1.5,
        "tta": True,
        "fire_dtype": "float32",
        "min_area_ha": 2.0,
        "simplify_m": 20.0,
        "geojson": True,
        "overwrite": True,
        "offset": 1000.0,
        "batch_size": 2,
        "readers": 3,
    }


def test_a_bad_scene_ends_with_1_and_the_others_are_mapped(
    type_words: Type, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write_scene(tmp_path / "good.tif", draw_image(40, 50))
    bad = tmp_path / "bad.tif"
    bad.write_text("no raster")
    assert type_words(run, bad, good) == 1
    told = capsys.readouterr()
    assert "1 fault:" in told.err
    assert "bad.tif" in told.err
    assert "failed" in told.out
    assert Path("maps/good.json").exists()
    assert not list(Path("maps").glob("*bad*"))


def test_existing_maps_end_with_1_before_any_work(
    type_words: Type, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("maps").mkdir()
    Path("maps/scene_fire.tif").touch()
    assert type_words("no_such_run", tmp_path / "scene.tif") == 1
    assert "add --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["a_run"], "no scene"),
        ([], "RUN"),
        (["a_run", "scene.tif", "--treshold", "0.4"], "--treshold"),
        (["a_run", "scene.tif", "--threshold", "1"], "--threshold: 1.0"),
        (["a_run", "scene.tif", "--readers", "0", "--batch-size", "0"], "--batch-size: 0"),
        (["a_run", "x/scene.tif", "y/scene.tif"], "2 scenes"),
    ],
)
def test_a_wrong_argument_ends_with_2_and_is_named(
    type_words: Type, words: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = type_words(*words)
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert what in capsys.readouterr().err


def test_no_such_run_ends_with_1(type_words: Type, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = write_scene(tmp_path / "scene.tif", draw_image(40, 50))
    assert type_words("no_such_run", scene) == 1
    assert "no_such_run: no such run folder or checkpoint" in capsys.readouterr().err


def test_the_help_names_every_option(type_words: Type, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        type_words("--help")
    assert end.value.code == 0
    told = capsys.readouterr().out
    for word in ("RUN SCENE", "--fire-dtype {uint8,float32}", "--simplify-m", "(default: maps)", "(default: 2)"):
        assert word in told
    assert "None" not in told


def test_the_help_waits_for_nothing_heavy() -> None:
    program = "import sys, fireseg.predict\ntry: fireseg.predict.main(['--help'])\nexcept SystemExit: pass\n"
    program += "print('loaded:', *({'torch', 'rasterio', 'matplotlib', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1].strip() == "loaded:"


def test_a_stopped_map_leaves_nothing_and_says_so(run: Path, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", draw_image(1400, 1400))
    command = [sys.executable, "-m", "fireseg.predict", str(run), str(scene), "--tta", "--out", str(tmp_path / "maps")]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[1], stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "maps" / ".scene.part")
    process.terminate()
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert told.splitlines()[-1].startswith("fireseg: stopped; maps that were finished are there")
    assert not list((tmp_path / "maps").iterdir())


def test_a_killed_map_leaves_a_hidden_folder_alone_and_the_next_call_clears_it(run: Path, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", draw_image(1400, 1400))
    command = [sys.executable, "-m", "fireseg.predict", str(run), str(scene), "--out", str(tmp_path / "maps")]
    process = subprocess.Popen([*command, "--tta"], cwd=Path(__file__).parents[1], env={**os.environ})
    wait_for(tmp_path / "maps" / ".scene.part" / ".lock")
    process.kill()
    process.wait()
    assert [path.name for path in (tmp_path / "maps").iterdir()] == [".scene.part"]
    write_scene(tmp_path / "scene.tif", draw_image(40, 50))
    subprocess.run(command, cwd=Path(__file__).parents[1], check=True, capture_output=True)
    assert not (tmp_path / "maps" / ".scene.part").exists()
    assert (tmp_path / "maps" / "scene.json").exists()


def wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} never came")
