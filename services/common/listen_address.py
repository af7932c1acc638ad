"""Where a service listens: a unix socket, or an address and a port."""

import contextlib
import ipaddress
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator

from services.common.errors import InvalidValueError
from services.common.unix_socket import SocketError, listen

__all__ = ["ListenAddress", "ListenAddressField", "listening"]

_PLACE = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<four>[0-9.]+)):(?P<port>[0-9]{1,5})")


class ListenAddress(str):
    """The absolute path of a unix socket, or an address with a port: `127.0.0.1:9478`, `[::1]:9478`.

    Names are refused, since what they stand for can change, and so is what stands for all addresses of a machine:
    nothing would be said then of who may connect.

    Raises
    ------
    InvalidValueError
        The value is anything else.
    """

    __slots__ = ()

    def __new__(cls, value: str) -> Self:
        """Check the form once, at the boundary."""
        if not value.startswith("/"):
            match = _PLACE.fullmatch(value)
            try:
                address = ipaddress.ip_address(match["six"] or match["four"]) if match else None
            except ValueError:
                address = None
            if match is None or address is None or not 0 < int(match["port"]) < 1 << 16:
                raise InvalidValueError(
                    f"neither the absolute path of a socket nor an address with a port, such as 127.0.0.1:9478: "
                    f"{value[:80]!r}"
                )
            if address.is_unspecified or address.is_multicast:
                raise InvalidValueError(f"{value} is no address of one network: name the one to listen on")
        return super().__new__(cls, value)


ListenAddressField = Annotated[str, AfterValidator(ListenAddress)]
"""A pydantic field that holds a `ListenAddress`."""


@contextlib.contextmanager
def listening(address: ListenAddress, *, setting: str) -> Iterator[socket.socket]:
    """Listen for as long as the context lasts. Blocks.

    Parameters
    ----------
    address
        Where. A unix socket is one that root alone can open, and is removed at the end.
    setting
        The setting that says so, for messages.

    Raises
    ------
    SocketError
        Another process listens there, or it cannot be done.
    """
    if address.startswith("/"):
        path = Path(address)
        with listen(path, setting=setting) as listener:
            try:
                yield listener
            finally:
                path.unlink(missing_ok=True)
        return
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    try:
        listener = socket.create_server((host.strip("[]"), int(port)), family=family)
    except OSError as error:
        raise SocketError(f"cannot listen on {address}: {error.strerror or error}: set {setting}") from error
    with listener:
        yield listener
