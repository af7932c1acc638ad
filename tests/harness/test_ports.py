import socket
from pathlib import Path

from harness.ports import free_ports


def test_ports_are_free_different_and_no_outgoing_connections() -> None:
    ports = free_ports(200)
    assert len(set(ports)) == 200
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert [port for port in ports if first <= port <= last] == []
    for port in ports:
        socket.create_server(("127.0.0.1", port)).close()
