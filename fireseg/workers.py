"""Worker processes of commands: signals that their driver receives, threads of each, and the connection to Ray."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from fireseg.console import handling_signals, leave_terminal
from fireseg.errors import FiresegError, SettingError

_PASSED_ON = ("MLFLOW_", "WANDB_", "HF_", "FIRESEG_", "PYTHONPATH")
"""Beginnings of the environment variables of the command that the workers get; the others are those of their node."""

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no report to the makers of Ray
    "RAY_DEDUP_LOGS": "0",  # epochs of different jobs look alike
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a job with no GPU sees none; without a word, Ray warns of a change
}


@contextmanager
def receiving_signals(received: list[int]) -> Iterator[None]:
    """Appends the number of each SIGINT, SIGTERM and SIGHUP to a list, in place of the effect it would have."""

    def receive(signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGHUP:
            leave_terminal()
        received.append(signum)

    with handling_signals(receive, signal.SIGINT, signal.SIGTERM):
        yield


def limit_threads(num_cores: int) -> int:
    """Returns the threads of a process that may use some cores: one for each, or `OMP_NUM_THREADS` if that is fewer."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(given), num_cores) if given.isdigit() and int(given) > 0 else num_cores


@contextmanager
def connected_to_ray(address: str | None, option: str) -> Iterator[None]:
    """Connects to a Ray cluster within the context, and passes settings of this process on to its workers.

    Args:
        address: Address of a running cluster; that of `RAY_ADDRESS` if None, and without it a Ray of its own here.
        option: The option that asks for Ray, such as `--engine`, for messages.

    Raises:
        SettingError: If Ray is not installed.
        FiresegError: If the cluster cannot be reached.
    """
    if importlib.util.find_spec("ray") is None:
        raise SettingError(f"{option}: ray, but the package ray is not installed; pip install 'fireseg[ray]'")
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    address = address or os.environ.get("RAY_ADDRESS")
    # Ray warns that it protects its local cluster by a token.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    names = [name for name in os.environ if name.startswith(_PASSED_ON)]
    try:
        ray.init(
            address=address or "local",
            include_dashboard=None if address else False,
            logging_level=logging.WARNING,
            runtime_env={"env_vars": {name: os.environ[name] for name in names}},
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise FiresegError(
            f"--address: no Ray cluster at {address} ({reason}); start one with `ray start --head`, or leave out "
            "--address and RAY_ADDRESS"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def choose_gpus(requested: float | None, option: str) -> float:
    """Returns the GPUs of a task of the connected Ray cluster: what is requested, else 1 if the cluster has any.

    Args:
        requested: GPUs of a task, or a share of one.
        option: The option that says so, for messages.

    Raises:
        SettingError: If the cluster has too few for even one task, which would wait for ever.
    """
    import ray

    available = ray.cluster_resources().get("GPU", 0.0)
    if requested is None:
        return min(1.0, available)
    if requested > available:
        raise SettingError(
            f"{option}: {requested:g}, but the Ray cluster has {available:g} GPUs; choose fewer, or start its nodes "
            "with --num-gpus=N"
        )
    return requested
