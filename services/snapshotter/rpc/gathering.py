"""One packet for what is written in one moment."""

import asyncio

__all__ = ["GatheringTransport"]


class GatheringTransport(asyncio.Transport):
    """A transport that sends what is written to it when those who write have had their turn.

    grpclib writes an answer in three parts. Each would be a system call, and would wake the client up, which finds that
    there is nothing yet to go on with: most of what a short call costs.

    Parameters
    ----------
    transport
        What sends.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._parts: list[bytes | bytearray | memoryview] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send something soon."""
        if not self._parts:
            asyncio.get_running_loop().call_soon(self._send)
        self._parts.append(data)

    def _send(self) -> None:
        if self._parts:
            parts, self._parts = self._parts, []
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))

    def is_closing(self) -> bool:
        """Return whether nothing is sent any more."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Send the rest, and close the connection."""
        self._send()
        self._transport.close()

    def get_extra_info(self, name: str, default: object = None) -> object:
        """Return what is known of the connection."""
        return self._transport.get_extra_info(name, default)
