import contextlib
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from harness.cvmfs_client import CvmfsClient, NoClientError
from services.common.repository_name import RepositoryName
from services.node.cvmfs.client_socket import find_client


def test_a_client_is_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "cvmfs2"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert CvmfsClient.find().program == program


def test_a_machine_without_a_client_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoClientError, match=r"no CVMFS client \(cvmfs2\) on this machine"):
        CvmfsClient.find()


def test_nodes_share_neither_cache_nor_sockets(tmp_path: Path) -> None:
    client = CvmfsClient(Path("/usr/bin/cvmfs2"))
    settings = [
        client.driver_settings(tmp_path / node, url="http://127.0.0.1:8000", key=tmp_path / "key.pub") for node in "ab"
    ]
    directories = [Path(one["GRAPHDRIVER_CVMFS2"]).parent for one in settings]
    texts = [(directory / "client.conf").read_text() for directory in directories]
    assert directories[0] != directories[1]
    for directory, text in zip(directories, texts, strict=True):
        assert f"CVMFS_CACHE_BASE={directory}/cache" in text
        assert f"CVMFS_RELOAD_SOCKETS={directory}/sockets" in text


def test_a_nodes_client_is_found_by_its_own_configuration(tmp_path: Path) -> None:
    """That is how the driver asks it for new revisions: cvmfs_talk goes by the machine's configuration."""
    program = tmp_path / "cvmfs2"
    program.write_text("#!/bin/sh\nread line\n")
    program.chmod(0o755)
    name, root = RepositoryName("demo.example.org"), tmp_path / "root"
    settings = CvmfsClient(program).driver_settings(tmp_path / "a", url="http://127.0.0.1:8000", key=tmp_path / "key")
    (tmp_path / "a/cache/shared").mkdir()
    root.mkdir()
    with (
        socket.socket(socket.AF_UNIX) as listener,
        subprocess.Popen([settings["GRAPHDRIVER_CVMFS2"], name, str(root)], stdin=subprocess.PIPE) as client,
    ):
        with contextlib.chdir(tmp_path / "a/cache/shared"):
            listener.bind(f"cvmfs_io.{name}")
        os.setxattr(root, "user.pid", str(client.pid).encode())
        deadline = time.monotonic() + 120
        while (found := find_client(root, name)) is None or found.socket is None:
            # The shell has not become the client yet.
            assert time.monotonic() < deadline
        client.kill()
    assert found.socket == tmp_path / "a/cache/shared" / f"cvmfs_io.{name}"
