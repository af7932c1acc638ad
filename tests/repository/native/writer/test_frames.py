"""Messages over a stream socket, which knows of no messages."""

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.repository.native.writer.frames import receive, send


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_messages_come_one_by_one(size: int) -> None:
    messages = [bytes([number]) * size for number in range(3)]
    one, other = socket.socketpair()
    with one, other, ThreadPoolExecutor(1) as threads:
        sent = [threads.submit(send, one, message) for message in messages]
        assert [receive(other) for _ in messages] == messages
        for each in sent:
            each.result()


@pytest.mark.parametrize("part", [b"", b"\0\0", b"\0\0\0\x02a"])
def test_a_side_that_has_gone_is_told(part: bytes) -> None:
    one, other = socket.socketpair()
    with other:
        with one:
            one.sendall(part)
        with pytest.raises(EOFError):
            receive(other)
