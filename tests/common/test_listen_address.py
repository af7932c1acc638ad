import os
import socket
import stat
from pathlib import Path

import pytest

from harness.ports import free_ports
from services.common.errors import InvalidValueError
from services.common.listen_address import ListenAddress, listening
from services.common.unix_socket import SocketError


@pytest.mark.parametrize("value", ["/run/x.sock", "127.0.0.1:1", "[::1]:65535", "192.0.2.7:9478"])
def test_what_is_an_address(value: str) -> None:
    assert ListenAddress(value) == value


@pytest.mark.parametrize(
    "value",
    [
        *("", "x.sock", "./x.sock", "127.0.0.1", "localhost:9478", "127.0.0.1:http", ":9478", "::1:9478"),
        *("127.0.0.1:0", "127.0.0.1:65536", "127.0.0.256:9478", "[127.0.0.1:9478", "127.0.0.1:9478 "),
        *("0.0.0.0:9478", "[::]:9478", "224.0.0.1:9478"),
    ],
)
def test_what_is_none(value: str) -> None:
    with pytest.raises(InvalidValueError):
        ListenAddress(value)


def test_a_unix_socket_is_roots_and_goes(tmp_path: Path) -> None:
    place = tmp_path / "socket"
    with listening(ListenAddress(str(place)), setting="SETTING"):
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(os.fspath(place))
    assert not place.exists()


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("[::1]", socket.AF_INET6)])
def test_a_port_is_of_one_address(host: str, family: socket.AddressFamily) -> None:
    (port,) = free_ports(1)
    address = ListenAddress(f"{host}:{port}")
    with listening(address, setting="SETTING") as listener:
        assert listener.getsockname()[:2] == (host.strip("[]"), port)
        with socket.socket(family) as client:
            client.connect((host.strip("[]"), port))
        with (
            pytest.raises(SocketError, match=r"cannot listen on .*: Address already in use.*: set SETTING"),
            listening(address, setting="SETTING"),
        ):
            pass
