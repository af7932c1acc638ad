"""`python -m services.graphdriver.managed`: the driver inside the managed plugin.

The engine writes what comes to standard error to its own log as errors, and the rest as information. That log is also
the only place where a plugin can say why it does not start: `docker plugin enable` shows that nobody listens, no more.

It looks for somebody who listens for some ten seconds, which are few where the machine has much to do. So the socket
listens as soon as the settings are known to do, and what the engine asks waits in it until the program is loaded.
"""

import os
import sys
from typing import Final

import structlog

from services.common.logs import configure_logging
from services.common.settings import SettingsError
from services.common.unix_socket import SocketError, listen
from services.graphdriver.settings import GraphDriverSettings, RepositoryMounts
from services.node.configuration import Configuration
from services.node.mounts import mount_table

__all__ = ["main"]

_log = structlog.get_logger(__name__)

_NO_STORE: Final = (
    "without an object store, for a node that commits nothing, set LAYER_STORE_ACCESS_KEY_FILE= and "
    "LAYER_STORE_SECRET_KEY_FILE= to nothing"
)


def main() -> int:
    """Run until the engine stops the plugin; return the exit status, 2 for settings that do not do."""
    problems = []
    if not os.environ.get("GRAPHDRIVER_REPOSITORIES"):
        problems.append("GRAPHDRIVER_REPOSITORIES is not set, so no thin image would run")
    try:
        configuration = Configuration.load(GraphDriverSettings)
    except SettingsError as error:
        problems.append(str(error))
    if problems:
        if not os.environ.get("LAYER_STORE_ENDPOINT"):
            problems.append(_NO_STORE)
        sys.stderr.write(f"settings (docker plugin set NAME VARIABLE=VALUE): {'; '.join(problems)}\n")
        return 2
    settings = configuration.settings
    try:
        listener = listen(settings.socket, setting=settings.variable("socket"))
    except SocketError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    _warn_of_hidden_mounts(settings)
    # To load this takes longer than everything before.
    from services.graphdriver.process import run  # noqa: PLC0415

    return run(configuration, calm=sys.stdout, listener=listener)


def _warn_of_hidden_mounts(settings: GraphDriverSettings) -> None:
    """Say that repositories which the machine mounts from now on will not show, where this is so."""
    root = str(settings.cvmfs_root)
    if settings.repository_mounts is not RepositoryMounts.HOST:
        return
    if any(mount.receives for mount in mount_table() if mount.point == root):
        return
    configure_logging(level=settings.log_level, output=settings.log_format)
    _log.warning(
        "later_mounts_do_not_show",
        hint=f"on the machine, {root} is no shared mount of its own, so a repository that is mounted there while the "
        f"plugin is enabled does not show in it: mount --bind {root} {root} && mount --make-rshared {root}, then "
        "disable and enable the plugin",
    )


if __name__ == "__main__":
    sys.exit(main())
