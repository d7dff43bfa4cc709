"""The MLflow server that `make ui` starts."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from urllib.request import urlopen

import pytest

from fireseg.tracker import TrackedRun, create_mlflow_tracker
from scripts.ui import wait_until_healthy
from tests.ports import find_free_port

ROOT = Path(__file__).parents[2]


def run_ui(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    command = [sys.executable, "-u", str(ROOT / "scripts" / "ui.py"), *arguments]
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_without_a_store_the_error_says_how_to_create_one(tmp_path: Path) -> None:
    out, error = run_ui(tmp_path).communicate(timeout=60)
    assert out == ""
    assert error.startswith(f"fireseg: {tmp_path}/mlflow.db: ")
    assert "python -m fireseg.train" in error


def test_runs_and_their_files_are_served_on_a_free_port_until_sigterm(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"seed": 1}')
    tracker = create_mlflow_tracker(uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    tracker.start(TrackedRun(name="a"))
    tracker.artifact(tmp_path / "config.json")
    port = find_free_port()
    with socket.create_server(("127.0.0.1", port)):
        ui = run_ui(tmp_path, "--port", str(port))
        assert ui.stdout is not None
        lines = [ui.stdout.readline(), ui.stdout.readline()]
    link = re.search(r"http://127\.0\.0\.1:(\d+)/#/experiments/(\d+)/runs\?workflowType=machine_learning", lines[1])
    assert link, (lines, ui.communicate())
    assert int(link[1]) > port
    address = f"http://127.0.0.1:{link[1]}"
    with urlopen(f"{address}/api/2.0/mlflow/experiments/get?experiment_id={link[2]}") as answer:
        assert json.load(answer)["experiment"]["name"] == "fireseg"
    assert lines[1].strip().endswith("&viewStateShareKey=fireseg")
    with urlopen(f"{address}/api/2.0/mlflow/experiments/get?experiment_id={link[2]}") as answer:
        tags = {tag["key"]: tag["value"] for tag in json.load(answer)["experiment"]["tags"]}
    view = json.loads(tags["mlflow.sharedViewState.fireseg"])
    assert view["selectedColumns"][:2] == ["metrics.`val/fire_iou`", "metrics.`val/best_fire_iou`"]
    assert view["compareRunCharts"][0]["metricKey"] == "val/fire_iou"
    with urlopen(f"{address}/get-artifact?path=config.json&run_uuid={tracker.run_ids['mlflow']}") as answer:
        assert json.load(answer) == {"seed": 1}
    ui.send_signal(signal.SIGTERM)
    out, error = ui.communicate(timeout=30)
    assert (ui.returncode, error) == (0, "")
    assert out.endswith("Stopped.\n")
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", int(link[1])), timeout=5):
        pass


def test_an_answer_that_is_not_http_is_waited_out(tmp_path: Path) -> None:
    asked = []
    with socket.create_server(("127.0.0.1", find_free_port())) as listener, (tmp_path / "log").open("w+") as log:

        def answer() -> None:
            for reply in (b"GET /health HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"):
                connection, _ = listener.accept()
                with connection:
                    asked.append(connection.recv(4096))
                    connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as server:
            wait_until_healthy(server, f"http://127.0.0.1:{listener.getsockname()[1]}", log)
            server.kill()
        thread.join()
    assert len(asked) == 2
