"""Messages over a stream socket: the size, in four bytes, then the message."""

import socket
from typing import Final

__all__ = ["receive", "send"]

_SIZE: Final = 4


def send(connection: socket.socket, message: bytes) -> None:
    """Send a message of less than 4 GiB.

    Raises
    ------
    OSError
        The other side has gone.
    """
    connection.sendall(len(message).to_bytes(_SIZE, "big") + message)


def receive(connection: socket.socket) -> bytearray:
    """Wait for a message.

    Raises
    ------
    EOFError
        The other side has closed the connection.
    OSError
        It broke.
    """
    return _exactly(connection, int.from_bytes(_exactly(connection, _SIZE), "big"))


def _exactly(connection: socket.socket, size: int) -> bytearray:
    message = bytearray(size)
    left = memoryview(message)
    while left:
        count = connection.recv_into(left)
        if not count:
            raise EOFError("the other side has closed the connection")
        left = left[count:]
    return message
