"""Builders of tracked runs, and an MLflow server that can be killed."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from fireseg.tracker import EpochMetrics, Status, TrackedRun, Tracker

PARAMS = {"model": {"_target_": "fireseg.model.x", "encoder": "resnet34"}, "optimizer": {"lr": 1e-4}}
TAGS = {"task": "del", "git_commit": "0123abc", "sweep": "2026-11-22"}
DATASET = {"name": "patches", "digest": "f00d", "source": "/data/patches", "profile": '{"train": 8}'}


class Session:
    """A process that trains: it records epochs and lets a tracker send them."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.epochs: list[EpochMetrics] = []

    @property
    def run_ids(self) -> dict[str, str]:
        return self.tracker.run_ids

    def log(self, metrics: dict[str, float | None], epoch: int) -> None:
        self.epochs.append((epoch, metrics))
        self.tracker.sync()

    def artifact(self, path: Path, folder: str = "") -> None:
        self.tracker.artifact(path, folder)

    def finish(self, status: Status) -> None:
        self.tracker.finish(status)


def start(tracker: Tracker, run_ids: dict[str, str] | None = None, **params: Any) -> Session:
    session = Session(tracker)
    run = TrackedRun(
        name="resnet34",
        params={**PARAMS, **params},
        tags=TAGS,
        dataset=DATASET,
        read_epochs=lambda: session.epochs,
    )
    tracker.start(run, run_ids)
    return session


def list_warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


class Server:
    """An MLflow server in its own process group."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.uri = f"http://127.0.0.1:{port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"]
        command += ["--artifacts-destination", (self.folder / "served").as_uri()]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        self._wait()

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, 9)
            self.process.wait()
        self.process = None

    def _wait(self) -> None:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                assert self.process is not None
                assert self.process.poll() is None, (self.folder / "server.log").read_text()
                time.sleep(0.1)
        raise AssertionError((self.folder / "server.log").read_text())
