"""Settings of the snapshotter, from environment variables with the prefix `SNAPSHOTTER_`."""

from pathlib import Path

from pydantic_settings import SettingsConfigDict

from services.node.settings import NodeSettings

__all__ = ["SnapshotterSettings"]


class SnapshotterSettings(NodeSettings):
    """Settings of one snapshotter."""

    model_config = SettingsConfigDict(env_prefix="SNAPSHOTTER_")

    socket: Path = Path("/run/cvmfs-snapshotter/snapshotter.sock")
    """Socket that containerd talks to; not made where a service manager hands one over."""
    state: Path = Path("/var/lib/cvmfs-snapshotter")
    """Directory of the snapshots, on a file system that can hold overlayfs upper directories. containerd, its shims and
    dockerd mount what is there, so it has this path for them, too."""
    containerd: Path = Path("/run/containerd/containerd.sock")
    """Socket of containerd, which gets the layers of committed images."""
