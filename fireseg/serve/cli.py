"""Command line of `serve`."""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence

from fireseg.console import run_command, start_logging
from fireseg.errors import FiresegError
from fireseg.serve.options import ServeOptions

log = logging.getLogger("fireseg")

_STOP_S = 5


def serve(options: ServeOptions) -> int:
    """Serves a web page and a JSON interface that map scenes with a run.

    RUN is a run folder, a checkpoint file, or an MLflow URI (runs:/ID, models:/NAME@ALIAS). Scenes are dropped on the
    page, or picked from the folder --root, and mapped one after the other; the page shows each map over its scene. The
    queue and the maps lie in --out and outlive the server. Only this machine reaches it, unless --host and --token are
    given.
    The exit code is 1 if the run cannot be loaded or the port is taken, and 2 for an invalid argument.
    """
    _check_extra()
    # Imported here, so that --help answers without waiting for FastAPI.
    import uvicorn

    from fireseg.serve.app import create_app
    from fireseg.serve.store import Store
    from fireseg.serve.supervisor import Supervisor

    start_logging()
    with Store(options.out) as store, _listen(options) as listener:
        supervisor = Supervisor(store, options, on_failure=lambda: setattr(server, "should_exit", True))
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(store, supervisor, options),
                log_level="warning",
                server_header=False,
                h11_max_incomplete_event_size=32_768,
                limit_concurrency=200,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=_STOP_S,
            )
        )
        host, port = listener.getsockname()[:2]
        log.info("http://%s:%d (Ctrl-C stops it)", f"[{host}]" if ":" in host else host, port)
        server.run(sockets=[listener])
        if supervisor.error is not None:
            faults, exit_code = supervisor.error
            error = FiresegError(*faults)
            error.exit_code = exit_code
            raise error
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command with the given arguments, `sys.argv[1:]` if None, and returns the exit code."""
    stopped = "scenes that wait are mapped after the next start"
    return run_command(serve, arguments, program="python -m fireseg.serve", stopped=stopped)


def _check_extra() -> None:
    try:
        import fastapi  # noqa: F401
        import rio_tiler  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise FiresegError(
            f"serve: {error.name} is not installed; install it with pip install 'fireseg[serve]'"
        ) from error


def _listen(options: ServeOptions) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)  # before the address is printed, so that requests wait instead of being refused
    except OSError as error:
        raise FiresegError(
            f"{options.host}:{options.port}: cannot listen there ({error.strerror}); choose another --port or --host"
        ) from error
    return listener
