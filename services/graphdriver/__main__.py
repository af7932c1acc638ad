"""`python -m services.graphdriver`: the plugin as a process."""

import sys

from services.common.archive.limits import ArchiveLimits
from services.common.object_store.settings import ObjectStoreSettings
from services.common.settings import SettingsError, render_help
from services.graphdriver.process import run
from services.graphdriver.settings import GraphDriverSettings
from services.node.configuration import Configuration

__all__ = ["main"]

_PURPOSE = (
    "The Docker graphdriver plugin for thin images: serves the plugin protocol on a unix socket. Start it as root "
    "before the engine, which then runs with `--experimental -s NAME`: NAME is the socket's file name without .sock. "
    "Without LAYER_STORE_ENDPOINT regular and thin images run, but commits of thin containers fail."
)


def main() -> int:
    """Run the plugin until SIGTERM or SIGINT; return the exit status."""
    if sys.argv[1:] in (["--help"], ["-h"]):
        groups = (GraphDriverSettings, ObjectStoreSettings, ArchiveLimits)
        sys.stdout.write(render_help("python -m services.graphdriver", _PURPOSE, groups))
        return 0
    if sys.argv[1:]:
        sys.stderr.write(f"unknown argument {sys.argv[1]}: settings come from the environment, see --help\n")
        return 2
    try:
        configuration = Configuration.load(GraphDriverSettings)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return run(configuration)


if __name__ == "__main__":
    sys.exit(main())
