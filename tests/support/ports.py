"""Ports that nobody listens on, none of them twice."""

from __future__ import annotations

import itertools
import os
import socket

_FIRST, _COUNT = 10_000, 22_000
"""Below those from which systems take the near end of a connection (32768 on Linux): a server that is
started again on its port must find it free."""
_next = itertools.count(os.getpid() * 7_919)


def free_port() -> int:
    """Find a port that nobody listens on, and that this process wasn't given before."""
    while True:
        port = _FIRST + next(_next) % _COUNT
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def free_ports(count: int) -> list[int]:
    """Find some of them."""
    return [free_port() for _ in range(count)]
