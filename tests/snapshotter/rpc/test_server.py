"""The server: many calls of one client, its first word, its last one, and what is none of its methods."""

import asyncio
import contextlib
import socket
from contextlib import AsyncExitStack

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from grpclib.client import Channel, UnaryUnaryMethod
from h2.connection import H2Connection

from services.common.unix_socket import listen
from services.snapshotter.rpc.greeting import Greeter
from tests.snapshotter.conftest import Snapshotters
from tests.support.containerd import ContainerdClient
from tests.support.core_client import CoreClient
from tests.support.repositories import Repository, thin_json

MANY = 150
FRAME = 16384
GOODBYE = b"\0\0\x08\x06\0\0\0\0\0goodbye."
PONG = b"\0\0\x08\x06\x01\0\0\0\0goodbye."
"""A ping and its answer."""
SETTINGS = 4
"""Type of a frame."""


@pytest.fixture
def patient(snapshotters: Snapshotters) -> Snapshotters:
    """Snapshotters that wait long for a publication."""
    return Snapshotters(snapshotters.settings.model_copy(update={"publish_wait": 600.0}))


async def test_calls_that_wait_hold_up_no_others(patient: Snapshotters, repository: Repository) -> None:
    async with patient.running() as client, CoreClient.connected(patient.settings.socket) as core:
        await client.layer("thin", "", {"thin.json": thin_json(repository.url("late"))})
        async with asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(core.prepare(f"moby/{number}/container", "thin")) for number in range(MANY)]
            # Whatever comes after them on the same connection is answered before them.
            async with asyncio.timeout(300):
                assert (await core.stat("thin")).info.name == "thin"
                assert await core.list() == ["thin"]
            assert not any(task.done() for task in waiting)
            repository.publish("late", {"file": "x"})
        assert len({task.result().source for task in waiting}) == MANY


async def test_a_method_that_is_not_there(client: ContainerdClient, snapshotters: Snapshotters) -> None:
    await client.list()
    channel = Channel(path=str(snapshotters.settings.socket))
    try:
        for method in ("containerd.services.snapshots.v1.Snapshots/Shrink", "containerd.services.diff.v2.Diff/Apply"):
            with pytest.raises(GRPCError) as error:
                await UnaryUnaryMethod(channel, f"/{method}", Empty, Empty)(Empty())
            assert error.value.status is Status.UNIMPLEMENTED
    finally:
        channel.close()


async def test_a_message_that_nobody_would_send(client: ContainerdClient, snapshotters: Snapshotters) -> None:
    async with CoreClient.connected(snapshotters.settings.socket) as core:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await core.cleanup(17 << 20)
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "at most 16777216 are taken" in error.value.details()
    assert await client.list() == []


async def test_who_comes_before_the_server_is_greeted_and_served(snapshotters: Snapshotters) -> None:
    path = snapshotters.settings.socket
    greeter = Greeter(listen(path, setting="TEST"))
    with contextlib.closing(greeter), socket.socket(socket.AF_UNIX) as early:
        await asyncio.to_thread(early.connect, str(path))
        frame = await asyncio.to_thread(early.recv, 100)
        assert (len(frame), frame[3]) == (9, SETTINGS)
        with socket.socket(socket.AF_UNIX) as gone:
            gone.connect(str(path))
        async with CoreClient.connected(path) as core:
            # Not so before it has the server's first frame.
            await core.ready()
            asked = asyncio.create_task(core.list())
            async with snapshotters.running(greeter) as client:
                assert await asked == []
                await client.prepare("moby/1/new")
                assert await core.list() == ["moby/1/new"]


@pytest.mark.usefixtures("client")
async def test_calls_that_are_cancelled_at_once(snapshotters: Snapshotters) -> None:
    """What has been received for them is given back, so that the connection can take as much as before."""
    headers = [(":method", "POST"), (":scheme", "http"), (":path", "/containerd.services.snapshots.v1.Snapshots/Stat")]
    headers += [(":authority", "localhost"), ("te", "trailers"), ("content-type", "application/grpc")]
    reader, writer = await asyncio.open_unix_connection(snapshotters.settings.socket)
    h2 = H2Connection()
    h2.initiate_connection()
    sent = 0
    # More than a connection takes before any of it is read.
    while sent < 5 << 20:
        if h2.outbound_flow_control_window < FRAME:
            writer.write(h2.data_to_send())
            async with asyncio.timeout(300):
                h2.receive_data(await reader.read(65536))
            continue
        stream = h2.get_next_available_stream_id()
        h2.send_headers(stream, headers)
        h2.send_data(stream, bytes(FRAME))
        h2.reset_stream(stream)
        # All of it arrives at the same time.
        writer.write(h2.data_to_send())
        sent += FRAME
    writer.close()
    await writer.wait_closed()


async def test_a_client_reads_the_last_word_before_the_connection_is_closed(snapshotters: Snapshotters) -> None:
    """Otherwise it might write to a closed one, and not know that nothing came of it."""
    async with AsyncExitStack() as stack:
        server = AsyncExitStack()
        await server.enter_async_context(snapshotters.running())
        client = stack.enter_context(socket.socket(socket.AF_UNIX))
        await asyncio.to_thread(client.connect, str(snapshotters.settings.socket))
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        h2 = H2Connection()
        h2.initiate_connection()
        await loop.sock_sendall(client, h2.data_to_send())
        words = await loop.sock_recv(client, 65536)
        ending = asyncio.create_task(server.aclose())
        while GOODBYE not in words:
            more = await loop.sock_recv(client, 65536)
            assert more
            words += more
        # It is open yet: whatever comes now is read, and nothing done.
        await loop.sock_sendall(client, PONG)
        assert await loop.sock_recv(client, 65536) == b""
        await ending
