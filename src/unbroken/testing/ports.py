"""Ports for servers under test that no other socket of this machine happens to take meanwhile."""

from __future__ import annotations

import errno
import random
import socket
from typing import Final

__all__ = ["free_port"]

_PORTS: Final = range(20_000, 32_768)
"""Below what Linux (32768 on), macOS and Windows (49152 on) give to outgoing connections and to who asks for any port: a
port of that kind, found free, is soon somebody's."""

_random: Final = random.SystemRandom()


def free_port() -> int:
    """A TCP port of the loopback interface on which nobody listens now.

    It stays free until its server starts, and while that is down, unless another server is given the same number on
    purpose or by a chance of one in thousands. Raises `OSError` (`EADDRINUSE`) when they are all taken.
    """
    for port in _random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise
            else:
                return port
    raise OSError(errno.EADDRINUSE, f"no port from {_PORTS.start} to {_PORTS.stop - 1} is free")
