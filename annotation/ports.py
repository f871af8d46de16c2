"""Ports of this machine."""

from __future__ import annotations

import secrets
import socket

NOBODYS = range(20_000, 30_000)
"""Below those that systems take for outgoing connections. It may be long until somebody listens on the port that they
were given, and meanwhile any program's connection would take one that the system itself proposes.
"""


def any_free_port() -> int:
    """A port nobody listens on now."""
    while not is_free(port := secrets.choice(NOBODYS)):
        pass
    return port


def is_free(port: int) -> bool:
    """Whether nobody listens on `port` of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
