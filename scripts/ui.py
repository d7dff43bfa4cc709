"""Opens MLflow on the runs of this folder: starts a server on 127.0.0.1 and prints the link to the charts."""

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
from types import FrameType
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import urlopen

from fireseg.errors import FiresegError
from fireseg.tracker.mlflow_store import get_database, prepare_environment, resolve_uri

# Opens on the charts; without it MLflow shows an empty page for chat traces.
_CHARTS = "runs?workflowType=machine_learning&compareRunsMode=CHART"
_START_SECONDS, _STOP_SECONDS = 120.0, 5.0


def main() -> int:
    """Serves until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", default="fireseg", help="the experiment to open (%(default)s)")
    parser.add_argument("--port", type=int, default=5000, help="the first port to try (%(default)s)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    try:
        uri = resolve_uri(None)
        if uri.startswith("http"):
            print(f"Runs are tracked by a server already: {get_link(uri, arguments.experiment)}")
            return 0
        serve(uri, arguments.experiment, arguments.port)
    except FiresegError as error:
        print(f"fireseg: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Stopped.")
    return 0


def serve(uri: str, experiment: str, first_port: int) -> None:
    """Runs a server on the store and prints its link.

    Args:
        uri: The store.
        experiment: The name of the experiment that the link opens.
        first_port: The first port to try.

    Raises:
        FiresegError: If there is no store yet, or the server does not start.
    """
    database = get_database(uri)
    if database is not None and not database.exists():
        raise FiresegError(f"{database}: no runs yet; `make demo` or `python -m fireseg.train` makes the first")
    port = find_free_port(first_port)
    print(f"Starting MLflow on {database or 'the tracking store'}, about ten seconds …", flush=True)
    with tempfile.TemporaryFile("w+") as log, running(uri, port, log) as server:
        address = f"http://127.0.0.1:{port}"
        wait_for_answer(server, address, log)
        print(f"Open {get_link(address, experiment)}\nCtrl-C stops it.", flush=True)
        code = server.wait()
        raise FiresegError(f"MLflow ended by itself (exit code {code}):\n{_read_end(log)}")


def find_free_port(first: int) -> int:
    """The first port from `first` upwards that nobody listens on.

    Raises:
        FiresegError: If a hundred are taken.
    """
    for port in range(first, first + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise FiresegError(f"--port: {first} to {first + 99} are all taken; name another")


def get_link(address: str, experiment: str) -> str:
    """The page with the charts of an experiment, or with all experiments where there is none of that name."""
    question = f"{address}/api/2.0/mlflow/experiments/get-by-name?experiment_name={quote(experiment)}"
    try:
        with urlopen(question, timeout=10) as answer:
            found = json.load(answer)["experiment"]["experiment_id"]
    except (HTTPError, URLError, TimeoutError):
        return f"{address}/#/experiments"
    return f"{address}/#/experiments/{found}/{_CHARTS}"


@contextmanager
def running(uri: str, port: int, log: IO[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Within, a server runs; after it, neither the server nor its children do."""
    prepare_environment()
    # Without jobs and with one worker it starts in a third of the time, with a quarter of the memory.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", uri]
    if database := get_database(uri):
        command += ["--artifacts-destination", (database.parent / "mlartifacts").as_uri()]
    # In a session of its own, Ctrl-C reaches this script alone, which then ends the whole group.
    server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield server
    finally:
        _end_group(server)


def wait_for_answer(server: subprocess.Popen[bytes], address: str, log: IO[str]) -> None:
    """Returns when the server answers.

    Raises:
        FiresegError: If it ends before, or takes more than two minutes.
    """
    give_up = time.monotonic() + _START_SECONDS
    while server.poll() is None and time.monotonic() < give_up:
        try:
            with urlopen(f"{address}/health", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise FiresegError(f"MLflow did not start:\n{_read_end(log)}")


def _end_group(server: subprocess.Popen[bytes]) -> None:
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, signal_number)
            server.wait(_STOP_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _read_end(log: IO[str]) -> str:
    log.seek(0)
    return "".join(log.readlines()[-15:]).rstrip()


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
