"""What has to be in the configurations of containerd and dockerd for them to use the snapshotter."""

import json
from typing import Final

from services.snapshotter.settings import RemoteSnapshots, SnapshotterSettings

__all__ = [
    "CONTAINERD_VERSIONS",
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
    root = "{state}"{annotations}
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

_ANNOTATIONS: Final = """
    enable_remote_snapshot_annotations = "true\""""
"""Has the transfer service (2.1 and later) name a layer's digest where it asks for a snapshot."""

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
"""Has Kubernetes use the snapshotter, and name the digest of each layer, by version of containerd."""


def containerd_sections(settings: SnapshotterSettings) -> str:
    """Return the sections of containerd's config.toml that are the same for all versions that are known."""
    labels = settings.remote is RemoteSnapshots.CRI
    return f"{snapshotter_section(settings, labels=labels)}\n{differ_sections(settings)}"


def snapshotter_section(settings: SnapshotterSettings, *, labels: bool) -> str:
    """Return the section of the snapshotter alone, whose absence harms nobody who does not ask for it.

    Parameters
    ----------
    settings
        Those of the snapshotter.
    labels
        Whether it is told which layer a snapshot is for, also by the transfer service.
    """
    annotations = _ANNOTATIONS if labels else ""
    return _SNAPSHOTTER.format(name=NAME, socket=settings.socket, state=settings.state, annotations=annotations)


def differ_sections(settings: SnapshotterSettings) -> str:
    """Return the sections of the differ, on which the whole node depends."""
    return _DIFFER.format(name=NAME, socket=settings.socket)


def cri_sections(version: str) -> str:
    """Return the sections that have all of Kubernetes' containers made by it, for a version of containerd."""
    return _CRI[version].format(name=NAME)


def containerd_snippet(settings: SnapshotterSettings, version: str) -> str:
    """Return a whole config.toml for a version of containerd."""
    text = f"version = {CONTAINERD_VERSIONS[version]}\n\n{containerd_sections(settings)}"
    return f"{text}\n{cri_sections(version)}" if settings.remote is RemoteSnapshots.CRI else text


def dockerd_snippet() -> str:
    """Return a whole daemon.json."""
    return json.dumps({"features": {"containerd-snapshotter": True}, "storage-driver": NAME}, indent=2) + "\n"
