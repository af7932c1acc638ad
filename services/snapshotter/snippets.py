"""What has to be in the configurations of containerd and dockerd for them to use the snapshotter."""

import json
from typing import Final

from services.snapshotter.settings import SnapshotterSettings

__all__ = [
    "CONTAINERD_VERSIONS",
    "NAME",
    "containerd_sections",
    "containerd_snippet",
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


def containerd_sections(settings: SnapshotterSettings) -> str:
    """Return the sections of containerd's config.toml, the same for all versions that are known."""
    return f"{snapshotter_section(settings)}\n{differ_sections(settings)}"


def snapshotter_section(settings: SnapshotterSettings) -> str:
    """Return the section of the snapshotter alone, whose absence harms nobody who does not ask for it."""
    return _SNAPSHOTTER.format(name=NAME, socket=settings.socket, state=settings.state)


def differ_sections(settings: SnapshotterSettings) -> str:
    """Return the sections of the differ, on which the whole node depends."""
    return _DIFFER.format(name=NAME, socket=settings.socket)


def containerd_snippet(settings: SnapshotterSettings, version: str) -> str:
    """Return a whole config.toml for a version of containerd."""
    return f"version = {CONTAINERD_VERSIONS[version]}\n\n{containerd_sections(settings)}"


def dockerd_snippet() -> str:
    """Return a whole daemon.json."""
    return json.dumps({"features": {"containerd-snapshotter": True}, "storage-driver": NAME}, indent=2) + "\n"
