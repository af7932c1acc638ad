"""The first word to clients that come before there is anything to serve.

containerd gives a server about a second for its first frame, and a call that finds no server fails at once. To load the
program and to open its state takes longer where the machine has much to do. So a thread greets whoever connects
meanwhile, and what they ask waits in their sockets until the server takes them over.

Nothing that takes long to load is imported here.
"""

import os
import select
import socket
import threading
from typing import Final

__all__ = ["Greeter", "inherited_socket"]

_FIRST_INHERITED: Final = 3
"""Number of the first descriptor that a service manager hands over (sd_listen_fds(3))."""

_GREETING: Final = b"\0\0\0\4\0\0\0\0\0"
"""An empty SETTINGS frame (RFC 9113, 3.4 and 6.5): the server's own settings follow in another one."""


def inherited_socket() -> socket.socket | None:
    """Return the listening socket that a service manager has handed over, if there is one."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    return socket.socket(fileno=_FIRST_INHERITED)


class Greeter:
    """Accepts and greets clients until a server takes them over.

    Parameters
    ----------
    listener
        Where they come from; closed with the greeter.
    """

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self._greeted: list[socket.socket] = []
        self._ours, self._theirs = socket.socketpair()
        listener.setblocking(False)
        self._thread = threading.Thread(target=self._greet, name="greeter", daemon=True)
        self._thread.start()

    def _greet(self) -> None:
        poll = select.poll()
        for watched in (self.listener, self._theirs):
            poll.register(watched, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._theirs.fileno() in ready:
                return
            try:
                client, _ = self.listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                # Gone again.
                continue
            client.setblocking(False)
            try:
                client.send(_GREETING)
            except OSError:
                client.close()
            else:
                self._greeted.append(client)

    def take_over(self) -> list[socket.socket]:
        """Greet nobody any more; return the sockets of those who have been greeted, for the caller to close."""
        self._ours.close()
        self._thread.join()
        self._theirs.close()
        greeted, self._greeted = self._greeted, []
        return greeted

    def close(self) -> None:
        """Close everything that nobody has taken over."""
        for client in self.take_over():
            client.close()
        self.listener.close()
