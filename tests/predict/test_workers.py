"""Several workers: which scenes are tried again, and real kills of a worker and of the command."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fireseg.errors import FiresegError, SettingError
from fireseg.predict.options import PredictOptions
from fireseg.predict.pipeline import predict_scenes
from fireseg.predict.workers import Answer, map_scenes
from fireseg.tiles.products import Scene
from scripts.kill_test import list_litter, read_digests
from tests.predict.builders import draw_image, write_run, write_scene
from tests.processes import ForkedProcess, start_command


class ScriptedPool:
    """A pool whose workers give the answers of a script, one after the other, to each scene by its name.

    Args:
        script: Kinds of the answers by name of the scene; `done` at the end.
        room: Number of workers.
    """

    def __init__(self, script: dict[str, list[str]], room: int = 2) -> None:
        self.script, self.room = script, room
        self.started: list[int] = []
        self.submitted: list[str] = []
        self.gone: set[int] = set()
        self._answers: list[Answer] = []

    def count_room(self) -> int:
        return self.room

    def start(self) -> int:
        number = len(self.started)
        self.started.append(number)
        kind: Any = (self.script.get("start") or ["ready"]).pop(0)
        self._answers.append(Answer(number, kind, [f"start of {number}"]))
        return number

    def submit(self, worker: int, scene: Scene) -> bool:
        if worker in self.gone:
            return False
        self.submitted.append(str(scene))
        kind: Any = (self.script.get(str(scene)) or ["done"]).pop(0)
        value = ({"scene": str(scene)}, 1.0) if kind == "done" else [f"{kind} of {scene}"]
        self._answers.append(Answer(worker, kind, value))
        return True

    def receive(self) -> list[Answer]:
        answers, self._answers = self._answers[:1], self._answers[1:]
        return answers

    def stop(self) -> None:
        self._answers.clear()


def run_scripted(pool: ScriptedPool, names: str, signals: Sequence[int] = ()) -> dict[str, str]:
    found = map_scenes(pool, [Path(name) for name in names], Path("maps"), signals)
    return {str(scene): str(one) if isinstance(one, FiresegError) else "done" for scene, one in found}


@pytest.mark.parametrize("kind", ["lost", "memory"])
def test_a_scene_whose_worker_is_lost_or_has_no_memory_is_tried_once_more_at_the_end(kind: str):
    pool = ScriptedPool({"a": [kind]})
    assert run_scripted(pool, "abcd") == dict.fromkeys("abcd", "done")
    assert sorted(pool.submitted) == ["a", "a", "b", "c", "d"]
    assert pool.submitted[-1] == "a"


@pytest.mark.parametrize("kind", ["lost", "memory"])
def test_a_scene_that_fails_so_twice_is_given_up_and_the_others_are_mapped(kind: str):
    pool = ScriptedPool({"a": [kind, kind, "done"]})
    found = run_scripted(pool, "abc")
    assert f"{kind} of a" in found.pop("a")
    assert found == {"b": "done", "c": "done"}
    assert pool.submitted.count("a") == 2


def test_a_fault_of_the_scene_itself_is_not_tried_again():
    pool = ScriptedPool({"a": ["failed", "done"]})
    assert run_scripted(pool, "ab") == {"a": "failed of a", "b": "done"}
    assert pool.submitted.count("a") == 1


def test_no_more_workers_are_started_than_there_are_scenes():
    pool = ScriptedPool({}, room=100)
    run_scripted(pool, "abc")
    assert len(pool.started) == 3


def test_a_worker_that_was_lost_while_it_had_nothing_to_do_costs_no_try():
    pool = ScriptedPool({"a": ["lost"]}, room=1)
    pool.gone.add(0)
    assert run_scripted(pool, "a") == {"a": "done"}
    assert pool.submitted == ["a", "a"]


def test_workers_that_cannot_start_end_the_command():
    with pytest.raises(FiresegError, match=r"^--workers: .*start of .*choose fewer"):
        run_scripted(ScriptedPool({"start": ["lost"] * 9}), "ab")
    with pytest.raises(FiresegError, match="start of 0"):
        run_scripted(ScriptedPool({"start": ["unfit"]}), "ab")


def test_after_a_signal_no_scene_is_begun():
    signals: list[int] = []
    pool = ScriptedPool({}, room=1)
    done = []
    for scene, _ in map_scenes(pool, [Path(name) for name in "abc"], Path("maps"), signals):
        done.append(str(scene))
        signals.append(signal.SIGINT)
    assert done == ["a"]


@pytest.mark.parametrize(
    ("options", "location", "cure"),
    [
        ({"workers": "0"}, "--workers", "ray"),
        ({"workers": "many"}, "--workers", "1 to"),
        ({"workers": "2", "cores_per_worker": 0}, "--cores-per-worker", "1 or more"),
        ({"workers": "2", "gpus_per_worker": 0.5}, "--gpus-per-worker", "--workers ray"),
        ({"address": "head:6379"}, "--address", "--workers ray"),
        ({"workers": "ray", "gpus_per_worker": 2.0}, "--gpus-per-worker", "0 to 1"),
    ],
)
def test_options_of_workers_are_checked(options: dict[str, Any], location: str, cure: str):
    with pytest.raises(SettingError, match=f"^{location}: .*{cure}"):
        PredictOptions(run="run", scenes=("a.tif",), **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, four scenes, and their maps by one process."""
    folder = tmp_path_factory.mktemp("workers")
    write_run(folder / "run")
    for name in "abcd":
        write_scene(folder / f"{name}.tif", draw_image(300, 260))
    options = PredictOptions(run=str(folder / "run"), scenes=list_scenes(folder), out=folder / "whole", runtime="torch")
    assert predict_scenes(options) == []
    return folder


def list_scenes(folder: Path) -> tuple[str, ...]:
    return tuple(str(folder / f"{name}.tif") for name in "abcd")


def start_workers(folder: Path, out: Path) -> ForkedProcess:
    words = (folder / "run", *list_scenes(folder), "--out", out, "--workers", 2, "--runtime", "torch")
    return start_command("predict", *words)


def wait_for(condition: Callable[[], object], process: ForkedProcess) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "waited for 3 minutes"
        time.sleep(0.02)


def is_mapping(out: Path) -> bool:
    return any(out.glob(".?.part/.lock"))


def find_workers(pid: int) -> list[int]:
    """Finds the worker processes of a command."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            is_child = int(path.read_text().rpartition(")")[2].split()[1]) == pid
            if is_child and b"spawn_main" in (path.parent / "cmdline").read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            pass
    return found


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers in /proc")


@needs_proc
def test_a_scene_whose_worker_is_killed_is_mapped_by_another_to_the_same_bytes(folder: Path, tmp_path: Path):
    out = tmp_path / "maps"
    process = start_workers(folder, out)
    wait_for(lambda: is_mapping(out), process)
    for worker in find_workers(process.pid):
        os.kill(worker, signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "SIGKILL, which is also what the system does when memory runs out; it is tried once more" in output
    assert list_litter(out) == []
    assert read_digests(out) == read_digests(folder / "whole")


@needs_proc
def test_a_command_that_is_killed_maps_what_is_missing_when_it_is_repeated(folder: Path, tmp_path: Path):
    out = tmp_path / "maps"
    process = start_workers(folder, out)
    wait_for(lambda: list(out.glob("?.json")), process)
    workers = find_workers(process.pid)
    process.kill()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}/exe").exists() for pid in workers):
        assert time.monotonic() < deadline, "the workers did not end"
        time.sleep(0.05)
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("?.json")}
    assert 1 <= len(before) < 4
    again = start_command("predict", folder / "run", *list_scenes(folder), "--out", out, "--runtime", "torch")
    output, _ = again.communicate()
    assert again.returncode == 0, output
    assert f"{len(before)} of 4 scenes are mapped already" in output
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert list_litter(out) == []
    assert read_digests(out) == read_digests(folder / "whole")


@needs_proc
def test_at_the_first_interrupt_the_running_scenes_are_finished_and_the_others_are_missing(
    folder: Path, tmp_path: Path
):
    out = tmp_path / "maps"
    process = start_workers(folder, out)
    wait_for(lambda: is_mapping(out), process)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate()
    assert process.returncode == 128 + signal.SIGINT, output
    assert "a second signal stops them now" in output
    assert "the same command goes on" in output.splitlines()[-1]
    records = json.loads((out / "maps.json").read_text())["scenes"].values()
    states = [record["state"] for record in records]
    assert {*states} == {"done", "missing"}
    assert len(list(out.glob("?.json"))) == states.count("done")
    assert list_litter(out) == []
