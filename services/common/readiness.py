"""Tells the service manager that started a process that it serves now (sd_notify(3))."""

import os
import socket

__all__ = ["announce_ready"]


def announce_ready() -> None:
    """Say so where a service manager wants to know, as for units with `Type=notify`.

    Raises
    ------
    OSError
        The service manager does not listen where it said.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        # An abstract address is written with @ for its first byte.
        manager.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        manager.sendall(b"READY=1")
