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


@pytest.mark.parametrize("version", ["1.7", "2"])
async def test_kubernetes_takes_layers_from_repositories(tmp_path: Path, version: str) -> None:
    written = await run_module(
        "services.snapshotter", "config", "--containerd", version, env={"SNAPSHOTTER_REMOTE": "cri"}
    )
    document = tomllib.loads(written.out.decode())
    form = document["version"]
    configuration = tmp_path / "config.toml"
    configuration.write_bytes(written.out.replace(f"version = {form}".encode(), b"version = 2"))
    dumped = tomllib.loads((await run("containerd", "--config", str(configuration), "config", "dump")).text)
    assert dumped["proxy_plugins"]["cvmfs"]["exports"]["enable_remote_snapshot_annotations"] == "true"
    if version == "1.7":
        cri = dumped["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]
    else:
        # Debian's containerd has the transfer service already, and not CRI's images as a plugin of their own.
        (unpacking,) = dumped["plugins"]["io.containerd.transfer.v1.local"]["unpack_config"]
        assert (unpacking["platform"], unpacking["snapshotter"], unpacking["differ"]) == ("linux", "cvmfs", "walking")
        cri = document["plugins"]["io.containerd.cri.v1.images"]
    assert (cri["snapshotter"], cri["disable_snapshot_annotations"]) == ("cvmfs", False)
