"""The snapshotter's command line."""

import sys

from services.common.archive.limits import ArchiveLimits
from services.common.object_store.settings import ObjectStoreSettings
from services.common.settings import SettingsError, render_help
from services.node.configuration import Configuration
from services.snapshotter.kubernetes import kubernetes_snippet, kubernetes_snippet_with_commits
from services.snapshotter.process import run
from services.snapshotter.rpc.greeting import Greeter
from services.snapshotter.settings import SnapshotterSettings
from services.snapshotter.snippets import CONTAINERD_VERSIONS, containerd_snippet, dockerd_snippet

__all__ = ["command"]

_PURPOSE = (
    "The containerd snapshotter for thin images: serves containerd's Snapshots and Diff on a unix socket. Start it as "
    "root before containerd. Without LAYER_STORE_ENDPOINT regular and thin images run, but commits of thin containers "
    "fail."
)


_USAGE = """\
usage: python -m services.snapshotter config --dockerd
           daemon.json of dockerd
       python -m services.snapshotter config --containerd VERSION [--kubernetes [--commits]]
           config.toml of containerd ({versions}): for Docker, or for nodes of Kubernetes, there without commits or with
"""


def command(inherited: Greeter | None) -> int:
    """Run until SIGTERM or SIGINT, or write a configuration; return the exit status.

    Parameters
    ----------
    inherited
        Has the socket that a service manager has handed over, if it has.
    """
    try:
        match sys.argv[1:]:
            case []:
                return run(Configuration.load(SnapshotterSettings), inherited)
            case ["--help" | "-h"]:
                groups = (SnapshotterSettings, ObjectStoreSettings, ArchiveLimits)
                text = f"{render_help('python -m services.snapshotter', _PURPOSE, groups)}\n{_usage()}"
            case ["config", "--containerd", version] if version in CONTAINERD_VERSIONS:
                text = containerd_snippet(SnapshotterSettings.load(), version)
            case ["config", "--containerd", version, "--kubernetes"] if version in CONTAINERD_VERSIONS:
                text = kubernetes_snippet(SnapshotterSettings.load(), version)
            case ["config", "--containerd", version, "--kubernetes", "--commits"] if version in CONTAINERD_VERSIONS:
                text = kubernetes_snippet_with_commits(SnapshotterSettings.load(), version)
            case ["config", "--dockerd"]:
                text = dockerd_snippet()
            case arguments:
                hint = "settings come from the environment, see --help"
                sys.stderr.write(f"unknown arguments {' '.join(arguments)}: {hint}\n{_usage()}")
                return 2
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(text)
    return 0


def _usage() -> str:
    return _USAGE.format(versions=" or ".join(CONTAINERD_VERSIONS))
