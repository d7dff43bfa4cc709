"""Limits of time, memory and queue, the token, and errors at the start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from fireseg.errors import SettingError
from fireseg.serve.options import ServeOptions
from tests.serve.builders import serve, write_scenes

TOKEN = "a-secret-of-this-test"


def test_a_scene_that_takes_too_long_or_too_much_memory_fails_and_the_queue_has_an_end(tmp_path: Path) -> None:
    scene = write_scenes(tmp_path / "scenes") / "scene.tif"
    with serve(tmp_path, "--max-queue", "2", "--memory-gb", "0.001", "--time-limit-min", "0.5") as server:
        # The model is still being loaded, so that scenes wait.
        accepted = [server.upload(scene) for _ in range(2)]
        refused = server.upload(scene)
        assert [answer.status_code for answer in accepted] == [202, 202]
        assert refused.status_code == 429
        assert "retry-after" in refused.headers
        results = [server.wait(answer.json()["id"]) for answer in accepted]
        assert [result["state"] for result in results] == ["failed", "failed"]
        assert "memory" in results[0]["faults"][0]
    with serve(tmp_path, "--time-limit-min", "0.00001") as server:
        result = server.wait(server.upload(scene).json()["id"])
        assert "not mapped within" in result["faults"][0]
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_a_token_is_required_for_everything_but_the_health(tmp_path: Path) -> None:
    with serve(tmp_path, "--token", TOKEN) as server, httpx.Client(base_url=server.url) as client:
        assert client.get("/health").status_code == 200
        for path in ("/scenes", "/server", "/root", "/openapi.json", "/docs", "/static/app.js", "/scenes/0/files/fire"):
            assert client.get(path).status_code == 401
        assert client.get("/scenes", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert client.get("/scenes", headers={"Cookie": f"fireseg={TOKEN}"}).status_code == 401
        assert client.post("/scenes?name=a.tif", content=b"x").status_code == 401
        assert client.get("/scenes", headers={"Authorization": f"Bearer {TOKEN}"}).json() == []
        assert "Token of this server" in client.get("/").text
        assert client.post("/login", data={"token": "wrong"}).status_code == 401
        answer = client.post("/login", data={"token": TOKEN})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert "HttpOnly; SameSite=Strict" in answer.headers["set-cookie"]
        assert TOKEN not in answer.headers["set-cookie"]
        assert client.get("/scenes").json() == []  # with the cookie


def test_other_machines_need_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FIRESEG_TOKEN", raising=False)
    with pytest.raises(SettingError, match=r"--host 0.0.0.0: .*--token"):
        ServeOptions(run="run", host="0.0.0.0")
    with pytest.raises(SettingError, match=r"--token: .*at least 16"):
        ServeOptions(run="run", host="0.0.0.0", token="short")
    monkeypatch.setenv("FIRESEG_TOKEN", TOKEN)
    assert ServeOptions(run="run", host="0.0.0.0").secret == TOKEN


def test_all_faults_of_the_options_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError) as raised:
        ServeOptions(run="run", port=70_000, max_queue=0, root=tmp_path / "missing", basemap="file:///a")
    assert [fault.split(":")[0].split()[0] for fault in raised.value.faults] == [
        "--max-queue",
        "--port",
        "--root",
        "--basemap",
    ]


def test_a_run_that_cannot_be_loaded_ends_the_server_with_its_fault(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fireseg.serve", str(tmp_path / "missing"), "--port", "0", "--out", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1
    assert f"fireseg: {tmp_path / 'missing'}" in ended.stderr


def test_a_port_that_is_taken_is_named_with_its_cure(tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        command = [sys.executable, "-m", "fireseg.serve", str(tmp_path / "run"), "--port", str(server.port)]
        ended = subprocess.run(
            [*command, "--out", str(tmp_path / "other")], capture_output=True, text=True, timeout=120, check=False
        )
    assert ended.returncode == 1
    assert f"127.0.0.1:{server.port}: cannot listen there" in ended.stderr
