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


@pytest.mark.parametrize("commits", [(), ("--commits",)])
async def test_nodes_of_kubernetes_get_a_runtime_and_a_differ_only_for_commits(
    tmp_path: Path, commits: tuple[str, ...]
) -> None:
    written = await run_module("services.snapshotter", "config", "--containerd", "1.7", "--kubernetes", *commits)
    assert (written.status, written.errors) == (0, "")
    configuration = tmp_path / "config.toml"
    configuration.write_bytes(written.out)
    dumped = tomllib.loads((await run("containerd", "--config", str(configuration), "config", "dump")).text)
    assert ("cvmfs-diff" in dumped["proxy_plugins"]) is bool(commits)
    differs = dumped["plugins"]["io.containerd.service.v1.diff-service"]["default"]
    assert differs == ["cvmfs-diff", "walking"] if commits else ["walking"]
    assert dumped["proxy_plugins"]["cvmfs"]["exports"]["enable_remote_snapshot_annotations"] == "true"
    containers = dumped["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]
    # Who does not ask for the runtime has nothing to do with it.
    assert (containers["snapshotter"], containers["default_runtime_name"]) == ("overlayfs", "runc")
    assert not containers["disable_snapshot_annotations"]
    ours, theirs = containers["runtimes"].pop("cvmfs"), containers["runtimes"].pop("runc")
    assert (ours.pop("snapshotter"), theirs.pop("snapshotter")) == ("cvmfs", "")
    assert ours["options"] == {"SystemdCgroup": True}
    assert ours == theirs


async def test_the_newer_form_has_the_same_in_other_places() -> None:
    """No containerd 2 is here to read it: its sections are those that it was measured with."""
    written = await run_module("services.snapshotter", "config", "--containerd", "2", "--kubernetes", "--commits")
    document = tomllib.loads(written.out.decode())
    assert document["version"] == 3
    plugins = document["plugins"]
    runtimes = plugins["io.containerd.cri.v1.runtime"]["containerd"]["runtimes"]
    assert runtimes.pop("cvmfs") == {**runtimes.pop("runc"), "snapshotter": "cvmfs"}
    assert plugins["io.containerd.cri.v1.images"] == {"runtime_platforms": {"cvmfs": {"snapshotter": "cvmfs"}}}
    # Else a pull for this snapshotter finds no platform to unpack, and all pulls depend on this differ.
    unpacking = plugins["io.containerd.transfer.v1.local"]["unpack_config"]
    assert {(entry["snapshotter"], entry["differ"]) for entry in unpacking} == {
        ("overlayfs", "walking"),
        ("cvmfs", "walking"),
    }
    assert plugins["io.containerd.service.v1.diff-service"]["default"] == ["cvmfs-diff", "walking"]


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
