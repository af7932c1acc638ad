"""`python -m services.snapshotter`: the snapshotter as a process."""

import sys

from services.common.archive.limits import ArchiveLimits
from services.common.object_store import ObjectStoreSettings
from services.common.settings import SettingsError, render_help
from services.node.configuration import Configuration
from services.snapshotter.process import run
from services.snapshotter.settings import SnapshotterSettings

__all__ = ["main"]

_PURPOSE = (
    "The containerd snapshotter for thin images: serves containerd's Snapshots and Diff on a unix socket. Start it as "
    "root before containerd. Without LAYER_STORE_ENDPOINT regular and thin images run, but commits of thin containers "
    "fail."
)


def main() -> int:
    """Run until SIGTERM or SIGINT; return the exit status."""
    if sys.argv[1:] in (["--help"], ["-h"]):
        groups = (SnapshotterSettings, ObjectStoreSettings, ArchiveLimits)
        sys.stdout.write(render_help("python -m services.snapshotter", _PURPOSE, groups))
        return 0
    if sys.argv[1:]:
        sys.stderr.write(f"unknown argument {sys.argv[1]}: settings come from the environment, see --help\n")
        return 2
    try:
        configuration = Configuration.load(SnapshotterSettings)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return run(configuration)


if __name__ == "__main__":
    sys.exit(main())
