"""Workers in a Ray cluster, with a real Ray on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fireseg.errors import SettingError
from fireseg.predict.options import PredictOptions
from fireseg.predict.pipeline import predict_scenes
from scripts.kill_test import list_litter
from scripts.ray_test import find_processes, get_parent
from tests.predict.builders import draw_image, write_run, write_scene


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Returns a folder for the files of Ray whose sockets have paths that are short enough."""
    with tempfile.TemporaryDirectory(prefix="ray_", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the processes of Ray in /proc")
def test_a_scene_whose_actor_is_killed_is_mapped_by_another(tmp_path: Path, ray_folder: Path):
    run = write_run(tmp_path / "run")
    scenes = [write_scene(tmp_path / f"{name}.tif", draw_image(300, 260)) for name in "ab"]
    left_out = ("RAY_ADDRESS", "RAY_AUTH_MODE")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    # Ray writes the token of its cluster into the home folder.
    environment |= {"RAY_TMPDIR": str(ray_folder), "HOME": str(ray_folder), "RAY_raylet_start_wait_time_s": "300"}
    words = [run, *scenes, "--workers", "ray", "--out", "maps", "--device", "cpu", "--runtime", "torch"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fireseg.predict", *map(str, words)],
        env={**environment, "PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    out = tmp_path / "maps"
    try:
        deadline = time.monotonic() + 500
        while not (mapping := find_actors(process.pid)) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for pid in mapping:
            os.kill(pid, signal.SIGKILL)
        output, _ = process.communicate(timeout=500)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert "it is tried once more" in output
    assert "oken" not in output  # neither a remark of Ray about its token, nor that it is missing
    assert sorted(path.name for path in out.glob("?.json")) == ["a.json", "b.json"]
    assert (out / "all_burned.gpkg").exists()
    assert list_litter(out) == []


def find_actors(pid: int) -> list[int]:
    """Finds the actors that map a scene for a command, whose child is the daemon of Ray, whose children they are."""
    # Ray names a process after what it does.
    return [one for one in find_processes("ray::", "map_scene") if get_parent(get_parent(one)) == pid]


def test_without_the_package_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    run, scene = write_run(tmp_path / "run"), write_scene(tmp_path / "a.tif", draw_image(40, 50))
    options = PredictOptions(run=str(run), scenes=(str(scene),), out=tmp_path / "maps", workers="ray")
    with pytest.raises(SettingError, match=r"^--workers: ray, .*pip install 'fireseg\[ray\]'$"):
        predict_scenes(options)
