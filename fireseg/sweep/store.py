"""The check that the jobs of several hosts can reach their MLflow store."""

from __future__ import annotations

from fireseg.console import format_override
from fireseg.errors import SettingError
from fireseg.runs.folder import host
from fireseg.sweep.plan import Plan
from fireseg.tracker.mlflow_store import resolve_uri

_PORT = 5000


def check_shared_store(plan: Plan) -> None:
    """Raises an error if a job would write to an SQLite file that processes on other hosts write as well.

    SQLite relies on locks that network file systems do not give: the file would be damaged.

    Args:
        plan: The sweep.

    Raises:
        SettingError: If the store of a job is an SQLite file; with the command that starts a server.
    """
    trackers = [job.settings["tracker"] for job in plan.jobs]
    stores = {resolve_uri(node.get("uri")) for node in trackers if "mlflow" in node["_target_"]}
    files = sorted(store for store in stores if store.startswith("sqlite:"))
    if files:
        address = f"{host()}:{_PORT}"
        server = f"mlflow server --backend-store-uri {files[0]} --host 0.0.0.0 --port {_PORT} --allowed-hosts {address}"
        raise SettingError(
            f"tracker.uri: {files[0]} is a file, and jobs on several hosts would damage it; start a server with "
            f"`{server}`, and the sweep anew with {format_override('tracker.uri', f'http://{address}')}, or this "
            f"command after `export MLFLOW_TRACKING_URI=http://{address}` if tracker.uri is not set; or leave MLflow "
            "out with tracker=none"
        )
