import socket
import zlib
from pathlib import Path

import pytest

from services.common.readiness import announce_ready


@pytest.mark.parametrize("abstract", [False, True])
def test_the_service_manager_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, abstract: bool) -> None:  # noqa: FBT001 - a parameter of the test
    # Paths of sockets are short, hence not below the directory of a test.
    name = f"/run/manager-{zlib.crc32(bytes(tmp_path)):08x}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}" if abstract else name)
        manager.settimeout(300)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if abstract else name)
        announce_ready()
        assert manager.recv(100) == b"READY=1"
    Path(name).unlink(missing_ok=True)


def test_where_nobody_wants_to_know_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    announce_ready()
