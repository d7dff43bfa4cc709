"""Command line of predict: arguments, output and exit codes."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fireseg.predict.cli import main
from tests.predict.builders import draw_image, write_run, write_scene
from tests.processes import ForkedProcess, start_command

RunCommand = Callable[..., int]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "a_run")


@pytest.fixture
def run_predict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[RunCommand]:
    """Runs `python -m fireseg.predict` with the given arguments, in this process."""
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    # The engine that is always there; the help is not to be mixed with options.
    yield lambda *arguments: main(
        [str(argument) for argument in arguments] + ([] if "--help" in arguments else ["--runtime", "torch"])
    )
    signal.signal(signal.SIGTERM, before)
    logger = logging.getLogger("fireseg")
    logger.handlers.clear()
    logger.propagate = True


def test_a_run_and_a_scene_are_enough(
    run_predict: RunCommand, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = write_scene(tmp_path / "scene.tif", draw_image(40, 50))
    assert run_predict(run, scene) == 0
    assert sorted(path.name for path in Path("maps").iterdir()) == sorted(
        f"scene{ending}"
        for ending in (
            *(".json", ".png", "_burned.gpkg", "_fire.tif"),
            *("_classes.tif", "_classes.tif.aux.xml", "_classes.qml"),
        )
    )
    output = capsys.readouterr().out.splitlines()
    assert output[0].startswith("a_run: threshold 0.5")
    assert output[-2].endswith("maps/scene_classes.tif")
    assert output[-1].startswith("computed by: torch fp32 ")


def test_options_reach_the_map(run_predict: RunCommand, run: Path, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", draw_image(40, 50))
    words = ["--out", "elsewhere", "--tta", "--geojson", "--fire-dtype", "float32", "--threshold", 0.3]
    words += ["--temperature", 1.5, "--min-area-ha", 2, "--simplify-m", 20, "--offset", 1000, "--batch-size", 2]
    assert run_predict(run, scene, *words, "--readers", 3, "--device", "cpu", "--overwrite") == 0
    summary = json.loads(Path("elsewhere/scene.json").read_text())
    assert summary["options"] == {
        "threshold": 0.3,
        "temperature": 1.5,
        "tta": True,
        "fire_dtype": "float32",
        "min_area_ha": 2.0,
        "simplify_m": 20.0,
        "geojson": True,
        "overwrite": True,
        "offset": 1000.0,
        "channels": None,
        "scale": None,
        "nodata": None,
        "trust_values": False,
        "clouds": "ignore",
        "cloud_mask": None,
        "batch_size": 2,
        "readers": 3,
    }


def test_a_bad_scene_ends_with_1_and_the_others_are_mapped(
    run_predict: RunCommand, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write_scene(tmp_path / "good.tif", draw_image(40, 50))
    bad = tmp_path / "bad.tif"
    bad.write_text("no raster")
    assert run_predict(run, bad, good) == 1
    output = capsys.readouterr()
    assert "1 fault:" in output.err
    assert "bad.tif" in output.err
    assert "failed" in output.out
    assert Path("maps/good.json").exists()
    assert not list(Path("maps").glob("*bad*"))


def test_existing_maps_and_a_missing_run_end_with_1_and_are_both_named(
    run_predict: RunCommand, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("maps").mkdir()
    Path("maps/scene_fire.tif").touch()
    assert run_predict("no_such_run", tmp_path / "scene.tif") == 1
    missing, existing = capsys.readouterr().err.splitlines()
    assert missing.startswith("fireseg: no_such_run: no such run folder")
    assert "--overwrite" in existing


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
    run_predict: RunCommand, words: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = run_predict(*words)
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert what in capsys.readouterr().err


def test_a_missing_run_ends_with_1(run_predict: RunCommand, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = write_scene(tmp_path / "scene.tif", draw_image(40, 50))
    assert run_predict("no_such_run", scene) == 1
    assert "no_such_run: no such run folder" in capsys.readouterr().err


def test_the_help_names_every_option(run_predict: RunCommand, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run_predict("--help")
    assert end.value.code == 0
    output = capsys.readouterr().out
    for word in ("RUN SCENE", "--fire-dtype {uint8,float32}", "--simplify-m", "(default: maps)", "(default: 2)"):
        assert word in output
    assert "None" not in output


def test_the_help_imports_nothing_slow() -> None:
    program = "import sys, fireseg.predict.cli\ntry: fireseg.predict.cli.main(['--help'])\nexcept SystemExit: pass\n"
    program += "print('loaded:', *({'torch', 'rasterio', 'matplotlib', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1].strip() == "loaded:"


def test_a_terminated_command_leaves_nothing_and_reports_it(run: Path, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", draw_image(1400, 1400))
    with start_predict(run, scene, "--tta", "--out", tmp_path / "maps") as process:
        wait_for(tmp_path / "maps" / ".scene.part")
        os.kill(process.pid, signal.SIGTERM)
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert output.splitlines()[-1].startswith("fireseg: stopped; finished maps are kept")
    assert not list((tmp_path / "maps").iterdir())


def test_a_killed_command_leaves_only_a_hidden_folder_which_the_next_call_clears(
    run_predict: RunCommand, run: Path, tmp_path: Path
) -> None:
    scene = write_scene(tmp_path / "scene.tif", draw_image(1400, 1400))
    with start_predict(run, scene, "--tta", "--out", tmp_path / "maps"):
        wait_for(tmp_path / "maps" / ".scene.part" / ".lock")
    assert [path.name for path in (tmp_path / "maps").iterdir()] == [".scene.part"]
    write_scene(tmp_path / "scene.tif", draw_image(40, 50))
    assert run_predict(run, scene, "--out", tmp_path / "maps") == 0
    assert not (tmp_path / "maps" / ".scene.part").exists()
    assert (tmp_path / "maps" / "scene.json").exists()


@contextmanager
def start_predict(*arguments: str | Path) -> Iterator[ForkedProcess]:
    """Starts the command in a process of its own, which is killed at the end if it is still running."""
    process = start_command("predict", *arguments)
    try:
        yield process
    finally:
        process.kill()


def wait_for(path: Path, seconds: float = 180) -> None:
    """Waits until a path exists: starting a process takes long on a busy machine."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} was not created"
        time.sleep(0.02)
