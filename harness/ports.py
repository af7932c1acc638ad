"""Free TCP ports on the loopback interface."""

import errno
import secrets
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Final

__all__ = ["free_ports"]

_FIRST: Final = 10_000
"""Below, others have ports by agreement."""
_OUTGOING: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""From where the kernel takes ports of outgoing connections (ip(7))."""

_found: Final = set[int]()
"""Ports that this process has given to programs, which may not listen yet, or be stopped for a while."""


def free_ports(count: int) -> tuple[int, ...]:
    """Find ports that nothing listens on, all different.

    They are free when this returns. No outgoing connection gets one, so that a program which is stopped for a while and
    started again has its port but for bad luck.
    """
    end = int(_OUTGOING.read_text().split()[0])
    ports: list[int] = []
    with ExitStack() as stack:
        while len(ports) < count:
            port = _FIRST + secrets.randbelow(end - _FIRST)
            if port in _found:
                continue
            try:
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                ports.append(port)
                _found.add(port)
    return tuple(ports)
