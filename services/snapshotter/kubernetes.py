"""What has to be in the configuration of containerd on a node of Kubernetes for pods to ask for the snapshotter.

A pod asks by the name of a runtime, which its RuntimeClass names: that runtime alone has its containers made by this
snapshotter, so that nothing else on the node, the snapshotter's own pod included, depends on it.
"""

from typing import Final

from services.registry.platform import Platform
from services.snapshotter.settings import SnapshotterSettings
from services.snapshotter.snippets import CONTAINERD_VERSIONS, NAME, differ_sections, snapshotter_section

__all__ = ["RUNTIME", "kubernetes_snippet", "kubernetes_snippet_with_commits"]

RUNTIME: Final = NAME
"""Name of the runtime, which a RuntimeClass has as its handler."""

# Where one runtime is named, the default one is no longer there by itself.
_RUNTIMES: Final = """\
[plugins."{plugin}".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins."{plugin}".containerd.runtimes.runc.options]
    SystemdCgroup = true

# As runc, whatever that has on this node, but for the snapshotter.
[plugins."{plugin}".containerd.runtimes.{runtime}]
  runtime_type = "io.containerd.runc.v2"
  snapshotter = "{name}"
  [plugins."{plugin}".containerd.runtimes.{runtime}.options]
    SystemdCgroup = true
"""

# A pull for a pod whose annotation io.containerd.cri.runtime-handler names the runtime goes by what is below `images`.
# The transfer service, which pulls from 2.1 on, unpacks for no snapshotter that it is not told of, and is told a differ
# beside: containerd's own, whatever the order of differs is.
_VERSION_2: Final = """\
[plugins."io.containerd.cri.v1.images".runtime_platforms.{runtime}]
  snapshotter = "{name}"

[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "{platform}"
  snapshotter = "overlayfs"
  differ = "walking"
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "{platform}"
  snapshotter = "{name}"
  differ = "walking"
"""

_VERSION_1: Final = """\
[plugins."io.containerd.grpc.v1.cri".containerd]
  disable_snapshot_annotations = false
"""

_PLUGINS: Final = {"1.7": "io.containerd.grpc.v1.cri", "2": "io.containerd.cri.v1.runtime"}
"""The plugin that has the runtimes, by containerd's version."""

_PULLS: Final = {"1.7": _VERSION_1, "2": _VERSION_2}


def kubernetes_snippet(settings: SnapshotterSettings, version: str) -> str:
    """Return a whole config.toml for a version of containerd: the snapshotter, and the runtime that uses it."""
    names = {
        "plugin": _PLUGINS[version],
        "runtime": RUNTIME,
        "name": NAME,
        "platform": Platform.local(),
    }
    sections = (
        f"version = {CONTAINERD_VERSIONS[version]}\n",
        # They say which layers it may have without their content; without SNAPSHOTTER_REMOTE it does not look at them.
        snapshotter_section(settings, labels=True),
        _RUNTIMES.format(**names),
        _PULLS[version].format(**names),
    )
    return "\n".join(sections)


def kubernetes_snippet_with_commits(settings: SnapshotterSettings, version: str) -> str:
    """Return the same with the differ, which makes thin layers of commits."""
    return f"{kubernetes_snippet(settings, version)}\n{differ_sections(settings)}"
