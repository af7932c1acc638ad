"""What is written in one moment goes out as one."""

import asyncio
import socket
from typing import cast

import pytest

from services.snapshotter.rpc.gathering import GatheringTransport


class _Recorder:
    """Takes the transport's place, and notes what it is given."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.sent.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


@pytest.fixture
def recorder() -> _Recorder:
    return _Recorder()


@pytest.fixture
def transport(recorder: _Recorder) -> GatheringTransport:
    return GatheringTransport(cast("asyncio.Transport", recorder))


async def test_one_moment_is_one_packet(recorder: _Recorder, transport: GatheringTransport) -> None:
    for part in (b"headers ", b"data ", b"trailers"):
        transport.write(part)
    assert recorder.sent == []
    await asyncio.sleep(0)
    assert recorder.sent == [b"headers data trailers"]
    transport.write(b"next")
    await asyncio.sleep(0)
    assert recorder.sent == [b"headers data trailers", b"next"]


async def test_the_rest_is_sent_before_the_end(recorder: _Recorder, transport: GatheringTransport) -> None:
    transport.write(b"last words")
    transport.close()
    assert recorder.sent == [b"last words"]
    assert transport.is_closing()
    await asyncio.sleep(0)
    assert recorder.sent == [b"last words"]


async def test_a_connection() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        made, _ = await asyncio.get_running_loop().connect_accepted_socket(asyncio.Protocol, ours)
        transport = GatheringTransport(made)
        assert transport.get_extra_info("socket").fileno() == ours.fileno()  # type: ignore[attr-defined]
        transport.write(b"one ")
        transport.write(b"two")
        transport.close()
        theirs.settimeout(300)
        assert await asyncio.to_thread(theirs.recv, 100) == b"one two"
