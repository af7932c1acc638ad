"""The plugin's config.json: what the engine gives it, and which settings `docker plugin set` knows.

`python -m services.graphdriver.managed.config VERSION REVISION` writes it to standard output. The settings are those of
the settings classes, so that names and descriptions are the same everywhere; what is fixed by the plugin's own file
system is left out. A secret can be given as a file only: the engine shows the values of all settings to everybody who
can ask it.

The format is that of the engine's "plugin config version 1".
"""

import json
import sys
from pathlib import PurePosixPath
from typing import Any, Final

from services.common.archive.limits import ArchiveLimits
from services.common.object_store.settings import ObjectStoreSettings
from services.common.settings import Settings, Variable, variables
from services.graphdriver.settings import GraphDriverSettings

__all__ = ["LAYERS", "SECRETS", "plugin_config"]

LAYERS: Final = PurePosixPath("/var/lib/docker-layers")
"""The one directory whose mounts the engine's machine sees; the driver's home is below it."""
SECRETS: Final = PurePosixPath("/run/secrets")
"""Where the machine's directory of secrets is in the plugin."""

_CODE: Final = "/opt/code"
_ENTRYPOINT: Final = ("/usr/bin/tini", "--", "/opt/suite/bin/python", "-m", "services.graphdriver.managed")
"""tini collects the processes of CVMFS clients, which give up their parents."""

_FIXED: Final = frozenset(f"GRAPHDRIVER_{name}" for name in ("SOCKET", "STATE", "CVMFS_ROOT", "CVMFS2", "CVMFS_TALK"))
"""Settings that say where things are in the plugin's own file system."""
_SECRET_FILES: Final = {
    "LAYER_STORE_ACCESS_KEY": SECRETS / "access-key",
    "LAYER_STORE_SECRET_KEY": SECRETS / "secret-key",
}


def plugin_config(*, version: str, revision: str) -> dict[str, Any]:
    """Return the document.

    Parameters
    ----------
    version
        Version of the suite. The engine has no labels for plugins, so the description says it.
    revision
        The commit that the plugin is built from.
    """
    return {
        "description": "CVMFS thin images: stacks layers from CernVM-FS, and uploads what is committed "
        f"(version {version}, revision {revision})",
        "entrypoint": list(_ENTRYPOINT),
        "workdir": _CODE,
        "interface": {
            "socket": PurePosixPath(GraphDriverSettings.model_fields["socket"].default).name,
            "types": ["docker.graphdriver/1.0"],
        },
        # The object store is reached as from the machine itself, also at 127.0.0.1.
        "network": {"type": "host"},
        "propagatedMount": str(LAYERS),
        "linux": {
            # On top of the engine's default set: mounts, and trusted.* attributes, which mark opaque directories.
            "capabilities": ["CAP_SYS_ADMIN"],
            "allowAllDevices": False,
            "devices": [
                {
                    "name": "fuse",
                    "description": "For CVMFS clients that the driver starts.",
                    "path": "/dev/fuse",
                    "settable": [],
                }
            ],
        },
        "mounts": _mounts(),
        "env": [
            *(entry for group in (GraphDriverSettings, ObjectStoreSettings, ArchiveLimits) for entry in _env(group)),
            {
                "name": "AWS_CA_BUNDLE",
                "description": "File with the certificates that the object store's is checked against, such as "
                f"{SECRETS / 'ca.pem'}; those of Debian by default.",
                "settable": ["value"],
            },
        ],
    }


def _mounts() -> list[dict[str, Any]]:
    return [
        _mount(
            "cvmfs",
            "/cvmfs",
            # What the machine (autofs) mounts there later shows in the plugin; nothing goes the other way.
            ["rbind", "rslave"],
            "The machine's CVMFS repositories; a mount of its own that is shared.",
        ),
        _mount("cvmfs-config", "/etc/cvmfs", ["rbind", "ro"], "Configuration and keys of the CVMFS client."),
        _mount(
            "cvmfs-state",
            "/var/lib/cvmfs",
            ["rbind", "rslave"],
            "Caches and sockets of the CVMFS client: the machine's, or those of clients that the driver starts.",
        ),
        _mount("secrets", str(SECRETS), ["rbind", "ro"], "Directory of files with secrets.", "/etc/cvmfs-graphdriver"),
    ]


def _mount(
    name: str, destination: str, options: list[str], description: str, source: str | None = None
) -> dict[str, Any]:
    return {
        "name": name,
        "description": description,
        "source": source or destination,
        "destination": destination,
        "type": "bind",
        "options": options,
        "settable": ["source"],
    }


def _env(settings: type[Settings]) -> list[dict[str, Any]]:
    return [_entry(variable) for variable in variables(settings) if variable.name not in _FIXED]


def _entry(variable: Variable) -> dict[str, Any]:
    # No values but these: an upgrade keeps all values, so that a default would be that of the first version for ever.
    if variable.name in _SECRET_FILES:
        return {
            "name": f"{variable.name}_FILE",
            "description": f"File with: {variable.description}",
            "value": str(_SECRET_FILES[variable.name]),
            "settable": ["value"],
        }
    default = "required" if variable.default is None else f"default: {variable.default or 'none'}"
    return {
        "name": variable.name,
        "description": f"{variable.description} ({variable.type}; {default})",
        "settable": ["value"],
    }


if __name__ == "__main__":
    _version, _revision = sys.argv[1:]
    json.dump(plugin_config(version=_version, revision=_revision), sys.stdout, indent=2)
    sys.stdout.write("\n")
