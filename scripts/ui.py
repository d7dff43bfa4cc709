"""Starts an MLflow server for the runs of this folder on 127.0.0.1 and prints the link to the table of runs."""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from types import FrameType
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from fireseg.console import print_error
from fireseg.errors import FiresegError
from fireseg.tracker.mlflow_store import get_database, prepare_environment, relocate_artifacts, resolve_uri
from fireseg.tracker.protocol import FRONT_METRICS

# Without the type, MLflow opens an empty page for chat traces.
_RUNS = "runs?workflowType=machine_learning"
# MLflow keeps the columns and charts of a page in the browser, or, for a shared view, in a tag of the experiment.
_VIEW = "fireseg"
_BEST = "val/best_fire_iou"
_START_SECONDS, _STOP_SECONDS = 120.0, 5.0


def main() -> int:
    """Runs the server until Ctrl-C or SIGTERM, and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", default="fireseg", help="experiment to open (default: %(default)s)")
    parser.add_argument("--port", type=int, default=5000, help="first port to try (default: %(default)s)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    try:
        uri = resolve_uri(None)
        if uri.startswith("http"):
            print(f"MLFLOW_TRACKING_URI is a running server: {get_link(uri, arguments.experiment)}")
            return 0
        serve(uri, arguments.experiment, arguments.port)
    except FiresegError as error:
        return print_error(error)
    except KeyboardInterrupt:
        print("Stopped.")
    return 0


def serve(uri: str, experiment: str, first_port: int) -> None:
    """Runs a server for a store and prints its link.

    Args:
        uri: Tracking URI of the store.
        experiment: Name of the experiment that the link opens.
        first_port: First port to try.

    Raises:
        FiresegError: If there is no store yet, or the server cannot be started.
    """
    database = get_database(uri)
    if database is not None and not database.exists():
        raise FiresegError(f"{database}: no runs yet; run `make demo` or `python -m fireseg.train` first")
    if database is not None:
        relocate_artifacts(database)
    port = find_free_port(first_port)
    print(f"Starting MLflow on {database or 'the tracking store'}, about ten seconds …", flush=True)
    with tempfile.TemporaryFile("w+") as log, run_server(uri, port, log) as server:
        address = f"http://127.0.0.1:{port}"
        wait_until_healthy(server, address, log)
        print(f"Open {share_view(address, experiment)}\nCtrl-C stops it.", flush=True)
        code = server.wait()
        raise FiresegError(f"MLflow exited unexpectedly (exit code {code}):\n{_read_tail(log)}")


def find_free_port(first: int) -> int:
    """Returns the first free port from `first` upwards.

    Raises:
        FiresegError: If a hundred ports are in use.
    """
    for port in range(first, first + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise FiresegError(f"--port: {first} to {first + 99} are in use; choose another port")


def get_link(address: str, experiment: str) -> str:
    """Returns the link to the runs of an experiment, best first, or to the list of experiments if it does not exist."""
    experiment_id = _find_experiment(address, experiment)
    if not experiment_id:
        return f"{address}/#/experiments"
    order = quote(f"metrics.`{_BEST}`")
    return f"{address}/#/experiments/{experiment_id}/{_RUNS}&orderByKey={order}&orderByAsc=false"


def share_view(address: str, experiment: str) -> str:
    """Stores the columns and charts by which runs are compared as a shared view, and returns the link to it.

    The table has the metrics that people compare, best run first; the charts, one click away, begin with the fire IoU
    on val.

    Args:
        address: Address of a server for the local store.
        experiment: Name of the experiment that the link opens.
    """
    experiment_id = _find_experiment(address, experiment)
    if not experiment_id:
        return f"{address}/#/experiments"
    tag = {"experiment_id": experiment_id, "key": f"mlflow.sharedViewState.{_VIEW}", "value": json.dumps(make_view())}
    request = Request(f"{address}/api/2.0/mlflow/experiments/set-experiment-tag", json.dumps(tag).encode())
    request.add_header("Content-Type", "application/json")
    try:
        with urlopen(request, timeout=10):
            return f"{address}/#/experiments/{experiment_id}/{_RUNS}&viewStateShareKey={_VIEW}"
    except (HTTPError, URLError, TimeoutError):
        return get_link(address, experiment)


def make_view() -> dict[str, Any]:
    """Returns the state of MLflow's page of runs: order, columns, and the first charts in their sections."""
    sections = {metric: metric.rpartition("/")[0] or "Model metrics" for metric in FRONT_METRICS}
    kept = {"deleted": False, "isGenerated": True}
    return {
        "orderByKey": f"metrics.`{_BEST}`",
        "orderByAsc": False,
        "selectedColumns": [
            *(f"metrics.`{metric}`" for metric in FRONT_METRICS),
            *("attributes.`Duration`", "tags.`sweep`"),
        ],
        "isAccordionReordered": True,  # else MLflow sorts the sections by name: train before val
        "compareRunSections": [
            {"uuid": f"{_VIEW}-{name}", "name": name, "display": True, "isReordered": True, **kept}
            for name in dict.fromkeys(sections.values())
        ],
        "compareRunCharts": [
            {
                "uuid": f"{_VIEW}-{metric}",
                "type": "LINE",
                "metricSectionId": f"{_VIEW}-{section}",
                "metricKey": metric,
                "selectedMetricKeys": [metric],
                "displayName": metric,
                **kept,
            }
            for metric, section in sections.items()
        ],
    }


def _find_experiment(address: str, name: str) -> str:
    """Returns the id of an experiment; empty if it does not exist or the server does not answer."""
    try:
        with urlopen(
            f"{address}/api/2.0/mlflow/experiments/get-by-name?experiment_name={quote(name)}", timeout=10
        ) as response:
            return json.load(response)["experiment"]["experiment_id"]
    except (HTTPError, URLError, TimeoutError):
        return ""


@contextmanager
def run_server(uri: str, port: int, log: IO[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a server within the `with` block, and ends it with all its children."""
    prepare_environment()
    # Without job execution and with one worker, it starts in a third of the time with a quarter of the memory.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", uri]
    if database := get_database(uri):
        command += ["--artifacts-destination", (database.parent / "mlartifacts").as_uri()]
    # In a new session, so that Ctrl-C reaches only this script, which then ends the whole process group.
    server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield server
    finally:
        _end_group(server)


def wait_until_healthy(server: subprocess.Popen[bytes], address: str, log: IO[str]) -> None:
    """Waits until the server responds.

    Raises:
        FiresegError: If it exits before that, or does not respond within two minutes.
    """
    deadline = time.monotonic() + _START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urlopen(f"{address}/health", timeout=5):
                return
        except (HTTPException, OSError):  # refused, or the answer is not HTTP
            time.sleep(0.2)
    raise FiresegError(f"MLflow did not start:\n{_read_tail(log)}")


def _end_group(server: subprocess.Popen[bytes]) -> None:
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, signal_number)
            server.wait(_STOP_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _read_tail(log: IO[str]) -> str:
    log.seek(0)
    return "".join(log.readlines()[-15:]).rstrip()


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
