"""Connections of clients: gRPC as grpclib has it, and what it lacks for a client like containerd.

containerd has one connection for everything that a node does, and never closes it. So calls that wait must not use up
what a connection has, a server that ends must not lose those that are on their way to it, and a method that is not
there is refused in a form that clients understand.
"""

import asyncio
from asyncio import BaseTransport, Transport
from collections.abc import Callable, Sequence
from socket import socket
from typing import TYPE_CHECKING, Any, Final, cast

from grpclib import GRPCError, Status
from grpclib.config import Configuration
from grpclib.protocol import Connection, EventsProcessor, H2Protocol, Stream
from grpclib.server import Handler, Server
from grpclib.utils import Wrapper
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from services.snapshotter.rpc.gathering import GatheringTransport

if TYPE_CHECKING:
    from grpclib._typing import IServable

__all__ = ["CallServer", "Client"]

_CALLS: Final = 10_000
"""Calls of a client at the same time; more wait on its side. With h2's own limit, a hundred containers that wait for a
publication would keep everybody else on the node from unpacking anything."""

_MESSAGE_SIZE: Final = 16 << 20
"""Bytes in a message at most, as in containerd."""

_STATUS: Final = ":status"
_CONTENT_TYPE: Final = "content-type"


class _CallStream(Stream):
    async def recv_data(self, size: int) -> bytes:
        if size > _MESSAGE_SIZE:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"a message of {size} bytes: at most {_MESSAGE_SIZE} are taken")
        return await super().recv_data(size)

    async def send_headers(self, headers: list[tuple[str, str]], end_stream: bool = False) -> None:  # noqa: FBT001, FBT002 - as in grpclib
        names = {name for name, _ in headers}
        if _STATUS in names and _CONTENT_TYPE not in names:
            # grpclib refuses so what it does not know. Without the type, clients look no further for the reason.
            headers = [*headers, (_CONTENT_TYPE, "application/grpc+proto")]
        await super().send_headers(headers, end_stream)


class _Connection(Connection):
    def create_stream(self, *, stream_id: int | None = None, wrapper: Wrapper | None = None) -> Stream:
        return _CallStream(self, self._connection, self._transport, stream_id=stream_id, wrapper=wrapper)

    def __init__(self, connection: H2Connection, transport: Transport, *, config: Configuration) -> None:
        super().__init__(connection, transport, config=config)
        self.answered_ping = asyncio.Event()

    def send_goaway(self) -> None:
        # Not by h2, which would send nothing after it, and there are calls to be answered yet.
        frame = GoAwayFrame(last_stream_id=self._connection.highest_inbound_stream_id)
        self._transport.write(frame.serialize())
        # Who answers this has read the other.
        self._connection.ping(b"goodbye.")
        self.flush()

    def ping_ack_process(self) -> None:
        super().ping_ack_process()
        self.answered_ping.set()


class _CallHandler(Handler):
    """Serves the calls of one client."""

    parting = False
    """Whether no call is begun any more."""

    def __init__(self, calls: set[asyncio.Task[None]], *arguments: Any) -> None:  # noqa: ANN401 - grpclib's
        super().__init__(*arguments)
        self._calls = calls

    def accept(self, stream: Stream, headers: list[tuple[str, str]], release_stream: Callable[[], object]) -> None:
        """Begin a call, as grpclib does."""
        if self.parting:
            # The client is told which call was the last one to be served, and takes this one elsewhere.
            release_stream()
            return
        released = False

        def release(*_: object) -> None:
            nonlocal released
            if not released:
                released = True
                release_stream()

        super().accept(stream, headers, release)
        task = self._tasks[stream]
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        # A call that is cancelled before its first step, grpclib would keep for ever.
        task.add_done_callback(release)

    def close(self) -> None:
        """Cancel the calls; another time changes nothing, so that they can clean up."""
        if not self.closing:
            super().close()


class Client(H2Protocol):
    """The connection of one client.

    Parameters
    ----------
    clients
        All who are connected.
    arguments
        As in grpclib.
    """

    handler: _CallHandler
    connection: _Connection

    def __init__(self, clients: set["Client"], *arguments: Any) -> None:  # noqa: ANN401 - grpclib's
        super().__init__(*arguments)
        self._clients = clients
        self.closed = asyncio.Event()

    def connection_made(self, transport: BaseTransport) -> None:
        """Send the settings, grpclib's but for the number of calls."""
        h2 = H2Connection(config=self.h2_config)
        h2.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: _CALLS,
                SettingCodes.MAX_HEADER_LIST_SIZE: h2.DEFAULT_MAX_HEADER_LIST_SIZE,
                SettingCodes.INITIAL_WINDOW_SIZE: self.config.http2_stream_window_size,
            },
        )
        h2.initiate_connection()
        h2.increment_flow_control_window(self.config.http2_connection_window_size - h2.inbound_flow_control_window)
        self.connection = _Connection(h2, GatheringTransport(cast("Transport", transport)), config=self.config)
        self.connection.flush()
        self.connection.initialize()
        self.processor = EventsProcessor(self.handler, self.connection)
        self._clients.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the client."""
        self._clients.discard(self)
        self.closed.set()
        self.connection.answered_ping.set()
        super().connection_lost(exc)

    def part(self) -> None:
        """Begin no more calls, and have the client make them elsewhere; those that have begun go on."""
        self.handler.parting = True
        self.connection.answered_ping.clear()
        self.connection.send_goaway()

    async def left(self) -> None:
        """Wait until the client has read that it is to go elsewhere.

        One that has not might write to a connection that is closed already. It could not tell then that nothing was
        done of what it has written.
        """
        await self.connection.answered_ping.wait()

    def end(self) -> None:
        """Close the connection, and cancel its calls."""
        self.processor.close("the server ends")


class CallServer(Server):
    """Serves gRPC.

    Parameters
    ----------
    services
        What is served.
    """

    def __init__(self, services: Sequence["IServable"]) -> None:
        super().__init__(services)
        self.calls: set[asyncio.Task[None]] = set()
        """What is being served."""
        self.clients: set[Client] = set()
        """Who is connected."""

    async def take_over(self, connection: socket) -> None:
        """Serve a client who has been accepted."""
        await self._loop.connect_accepted_socket(self._protocol_factory, connection)

    def _protocol_factory(self) -> Client:
        arguments = (self._mapping, self._codec, self._status_details_codec, self.__dispatch__)
        return Client(self.clients, _CallHandler(self.calls, *arguments), self._config, self._h2_config)
