"""Free TCP ports on the loopback interface."""

import socket
from contextlib import ExitStack

__all__ = ["free_ports"]


def free_ports(count: int) -> tuple[int, ...]:
    """Find ports that nothing listens on, all different.

    They are free when this returns; a program started on one at once has it but for bad luck.
    """
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return tuple(each.getsockname()[1] for each in sockets)
