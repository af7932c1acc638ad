"""Settings of the snapshotter, from environment variables with the prefix `SNAPSHOTTER_`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator
from pydantic_settings import SettingsConfigDict

from services.node.settings import NodeSettings

__all__ = ["RemoteSnapshots", "SnapshotterSettings"]


class RemoteSnapshots(StrEnum):
    """Whose images are made of the layers in repositories, where those are published, without being converted."""

    OFF = "off"
    """Nobody's."""

    CRI = "cri"
    """Those that Kubernetes pulls."""


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("not an absolute path, which others could use as well")
    return path


_AbsolutePath = Annotated[Path, AfterValidator(_absolute)]


class SnapshotterSettings(NodeSettings):
    """Settings of one snapshotter."""

    model_config = SettingsConfigDict(env_prefix="SNAPSHOTTER_")

    socket: _AbsolutePath = Path("/run/cvmfs-snapshotter/snapshotter.sock")
    """Socket that containerd talks to; not made where a service manager hands one over."""
    state: _AbsolutePath = Path("/var/lib/cvmfs-snapshotter")
    """Directory of the snapshots, on a file system that can hold overlayfs upper directories. containerd, its shims and
    dockerd mount what is there, so it has this path for them, too."""
    containerd: Path = Path("/run/containerd/containerd.sock")
    """Socket of containerd, which gets the layers of committed images."""
    remote: RemoteSnapshots = RemoteSnapshots.OFF
    """Whether layers that the repositories hold are taken from there, and not downloaded, when an ordinary image is
    pulled: by Kubernetes (cri), or not at all (off)."""
