"""Commands killed at any forced write or rename: the same command ends with the same files, and leaves no others.

Training is killed in `train/test_resume.py`, and preparation in `prepare/test_journal.py`.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

from scripts.kill_test import list_litter, read_digests
from tests.commands.builders import Inputs, start_with_steps
from tests.predict.builders import draw_image, write_scene

KILL = "os.kill(os.getpid(), signal.SIGKILL)"

EVERY_CHANGE = "import fireseg.predict.manifest; fireseg.predict.manifest._WRITE_S = 0.0\n"
"""Source that makes `predict` write its manifest after each scene, as otherwise only a slow machine does."""


def count_steps(log: Path) -> int:
    return len(log.read_text().splitlines())


def run(command: str, arguments: list[str], log: Path, moment: int = -1) -> tuple[int, str]:
    """Runs a command that is killed at a step, and returns its exit code and output."""
    before = EVERY_CHANGE if command == "predict" else ""
    process = start_with_steps(command, arguments, log, moment=moment, action=KILL, before=before)
    output, _ = process.communicate(timeout=120)
    assert process.returncode is not None
    return process.returncode, output


def check_maps_are_whole(folder: Path, expected: Mapping[str, str]) -> None:
    """Checks that every summary belongs to a whole map."""
    found = read_digests(folder) if folder.exists() else {}
    for summary in (name for name in found if name.endswith(".json") and name != "maps.json"):
        stem = summary.removesuffix(".json")
        names = [name for name in expected if name.startswith((f"{stem}.", f"{stem}_"))]
        assert {name: found.get(name) for name in names} == {name: expected[name] for name in names}


def test_maps_killed_at_some_step_are_made_again_to_the_same_bytes(inputs: Inputs, tmp_path: Path):
    whole, log = tmp_path / "whole", tmp_path / "log"
    assert run("predict", inputs.arguments("predict", whole), log)[0] == 0
    expected = read_digests(whole)
    assert len(expected) == 19
    steps = count_steps(log)
    for moment in (steps // 2 - 3, steps - 2):  # while the files of a map are moved, and of both together
        out, log = tmp_path / f"out_{moment}", tmp_path / f"log_{moment}"
        arguments = inputs.arguments("predict", out)
        assert run("predict", arguments, log, moment)[0] == -signal.SIGKILL
        check_maps_are_whole(out, expected)
        num_done = len(list(out.glob("*_classes.tif")))
        code, output = run("predict", arguments, tmp_path / "again")
        assert code == 0, output
        assert f"{num_done} of 2 scenes are mapped already" in output or num_done == 0
        assert read_digests(out) == expected
        assert list_litter(out) == []


def test_files_beside_a_map_that_a_killed_process_did_not_finish_are_kept(inputs: Inputs, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").write_text("a photograph")
    scene = write_scene(tmp_path / "a.tif", draw_image(40, 50))
    (out / ".a.part").mkdir()  # of a process that was killed before it moved files

    code, output = run(
        "predict", [str(inputs.run), str(scene), "--out", str(out), "--runtime", "torch"], tmp_path / "log"
    )

    assert code == 1
    assert "a.png: exists already" in output
    assert (out / "a.png").read_text() == "a photograph"


def test_an_evaluation_killed_at_some_step_is_made_again_to_the_same_bytes(inputs: Inputs, tmp_path: Path):
    out, log = tmp_path / "run", tmp_path / "log"
    assert run("evaluate", inputs.arguments("evaluate", out), log)[0] == 0
    expected, steps = read_digests(out), count_steps(log)
    assert {"evaluation_test.json", "evaluation_test.html"} <= expected.keys()
    for moment in (0, steps - 1):
        shutil.rmtree(out)
        arguments = inputs.arguments("evaluate", out)
        assert run("evaluate", arguments, tmp_path / f"log_{moment}", moment)[0] == -signal.SIGKILL
        found = read_digests(out)
        assert found == {name: expected[name] for name in found}
        code, output = run("evaluate", arguments, tmp_path / "again")
        assert code == 0, output
        assert read_digests(out) == expected
        assert list_litter(out) == []


def test_a_scene_killed_at_some_step_is_fetched_again_by_the_same_command(inputs: Inputs, tmp_path: Path):
    whole, log = tmp_path / "whole", tmp_path / "log"
    assert run("fetch", inputs.arguments("fetch", whole), log)[0] == 0
    expected = read_digests(whole)
    assert len(expected) == 3
    steps = count_steps(log)
    for moment in (steps - 3, steps - 1):
        out, log = tmp_path / f"out_{moment}", tmp_path / f"log_{moment}"
        arguments = inputs.arguments("fetch", out)
        assert run("fetch", arguments, log, moment)[0] == -signal.SIGKILL
        assert not (out / "fire.json").exists()
        code, output = run("fetch", arguments, tmp_path / "again")
        assert code == 0, output
        assert read_digests(out) == expected
        assert list_litter(out) == []


def test_a_map_stopped_while_its_files_are_moved_leaves_none(inputs: Inputs, tmp_path: Path):
    out, arguments = tmp_path / "out", [str(inputs.run), str(inputs.scenes[0]), "--runtime", "torch"]
    counted, log = tmp_path / "counted", tmp_path / "log"
    assert run("predict", [*arguments, "--out", str(counted)], log)[0] == 0

    stop = f"os.kill(os.getpid(), {int(signal.SIGTERM)})"
    process = start_with_steps(
        "predict", [*arguments, "--out", str(out)], tmp_path / "log_2", moment=count_steps(log) - 2, action=stop
    )

    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert list(out.iterdir()) == []
