"""Free ports for servers that tests start."""

from __future__ import annotations

import itertools
import os
import socket

# From 32768 on, Linux gives ports to outgoing connections: a client that waits for a server at such a port may be
# given the same one, and is then connected to itself.
_FIRST, _LAST = 20_000, 32_000
_numbers = itertools.count(os.getpid() * 37)


def find_free_port() -> int:
    """Returns a free port of 127.0.0.1 that no outgoing connection is given."""
    for number in _numbers:
        port = _FIRST + number % (_LAST - _FIRST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("unreachable")
