"""The configurations that the command writes are what containerd and dockerd understand."""

import json
import tomllib
from pathlib import Path

import pytest

from harness.commands import run
from services.snapshotter.settings import SnapshotterSettings
from tests.support.commands import run_module

SOCKET = "/run/cvmfs-snapshotter/snapshotter.sock"


@pytest.mark.parametrize(("version", "form"), [("1.7", 2), ("2", 3)])
async def test_containerd_finds_snapshotter_and_differ(tmp_path: Path, version: str, form: int) -> None:
    written = await run_module("services.snapshotter", "config", "--containerd", version)
    assert (written.status, written.errors) == (0, "")
    document = tomllib.loads(written.out.decode())
    assert document.pop("version") == form
    # Debian's containerd reads the older form only; what follows it is the same in both.
    configuration = tmp_path / "config.toml"
    configuration.write_bytes(written.out.replace(f"version = {form}".encode(), b"version = 2"))
    dumped = tomllib.loads((await run("containerd", "--config", str(configuration), "config", "dump")).text)
    snapshotter = dumped["proxy_plugins"]["cvmfs"]
    assert (snapshotter["type"], snapshotter["address"]) == ("snapshot", SOCKET)
    assert snapshotter["exports"]["root"] == str(SnapshotterSettings().state)
    # With `rebase`, layers would be prepared without their parents.
    assert not snapshotter.get("capabilities")
    assert dumped["proxy_plugins"]["cvmfs-diff"]["type"] == "diff"
    assert dumped["proxy_plugins"]["cvmfs-diff"]["address"] == SOCKET
    assert dumped["plugins"]["io.containerd.service.v1.diff-service"]["default"] == ["cvmfs-diff", "walking"]


async def test_dockerd_takes_it(tmp_path: Path) -> None:
    written = await run_module("services.snapshotter", "config", "--dockerd")
    assert json.loads(written.out) == {"features": {"containerd-snapshotter": True}, "storage-driver": "cvmfs"}
    (tmp_path / "daemon.json").write_bytes(written.out)
    checked = await run("dockerd", "--validate", f"--config-file={tmp_path / 'daemon.json'}")
    assert "configuration OK" in (checked.stdout + checked.stderr).decode()
