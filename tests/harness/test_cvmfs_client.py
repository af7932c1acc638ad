from pathlib import Path

import pytest

from harness.cvmfs_client import CvmfsClient, NoClientError


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
