"""What has to be in the configurations of containerd and dockerd for them to use the snapshotter."""

import json
from typing import Final

from services.snapshotter.settings import RemoteSnapshots, SnapshotterSettings

__all__ = [
    "CONTAINERD_VERSIONS",
    "LABELS",
    "NAME",
    "containerd_sections",
    "containerd_snippet",
    "cri_sections",
    "differ_sections",
    "dockerd_snippet",
    "snapshotter_section",
]

NAME: Final = "cvmfs"
"""Of the snapshotter: dockerd's storage driver."""

CONTAINERD_VERSIONS: Final = {"1.7": 2, "2": 3}
"""Version of the configuration by that of containerd."""

_SNAPSHOTTER: Final = """\
[proxy_plugins.{name}]
  type = "snapshot"
  address = "{socket}"
  [proxy_plugins.{name}.exports]
    root = "{state}"
"""

# The differ's order holds for the whole node. One that declines is followed by the next; one that cannot be reached is
# not, so that nothing is unpacked by any snapshotter while this one is down.
_DIFFER: Final = """\
[proxy_plugins.{name}-diff]
  type = "diff"
  address = "{socket}"

[plugins."io.containerd.service.v1.diff-service"]
  default = ["{name}-diff", "walking"]
"""

LABELS: Final = '    enable_remote_snapshot_annotations = "true"\n'
"""The end of the snapshotter's section where layers of ordinary images are to be taken from repositories: pulls by the
transfer service (2.1 and later) then name a layer's digest where they ask for a snapshot."""

_CRI: Final = {
    "1.7": """\
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "{name}"
  disable_snapshot_annotations = false
""",
    # From 2.1 on the second setting has CRI pull by itself, as before, instead of by the transfer service. That service
    # cannot unpack for others either, unless it knows the snapshotter.
    "2": """\
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "{name}"
  disable_snapshot_annotations = false

[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux"
  snapshotter = "{name}"
  differ = "walking"
""",
}
"""Has all pods of a node use the snapshotter, and pulls name the digest of each layer, by version of containerd."""


def containerd_sections(settings: SnapshotterSettings) -> str:
    """Return the sections of containerd's config.toml that are the same for all versions that are known."""
    labels = LABELS if settings.remote is RemoteSnapshots.CRI else ""
    return f"{snapshotter_section(settings)}{labels}\n{differ_sections(settings)}"


def cri_sections(version: str) -> str:
    """Return the sections that have all of a node's pods use the snapshotter, for a version of containerd."""
    return _CRI[version].format(name=NAME)


def snapshotter_section(settings: SnapshotterSettings) -> str:
    """Return the section of the snapshotter alone, whose absence harms nobody who does not ask for it."""
    return _SNAPSHOTTER.format(name=NAME, socket=settings.socket, state=settings.state)


def differ_sections(settings: SnapshotterSettings) -> str:
    """Return the sections of the differ, on which the whole node depends."""
    return _DIFFER.format(name=NAME, socket=settings.socket)


def containerd_snippet(settings: SnapshotterSettings, version: str) -> str:
    """Return a whole config.toml for a version of containerd."""
    text = f"version = {CONTAINERD_VERSIONS[version]}\n\n{containerd_sections(settings)}"
    return f"{text}\n{cri_sections(version)}" if settings.remote is RemoteSnapshots.CRI else text


def dockerd_snippet() -> str:
    """Return a whole daemon.json."""
    return json.dumps({"features": {"containerd-snapshotter": True}, "storage-driver": NAME}, indent=2) + "\n"
