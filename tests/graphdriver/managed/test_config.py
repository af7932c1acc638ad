"""The plugin's config.json says what the settings say, and asks the engine for no more than is needed."""

import json
import re
import subprocess
import sys

from services.common.archive.limits import ArchiveLimits
from services.common.object_store.settings import ObjectStoreSettings
from services.common.settings import variables
from services.graphdriver.managed.config import LAYERS, SECRETS, plugin_config
from services.graphdriver.settings import GraphDriverSettings

_INSIDE = {"GRAPHDRIVER_SOCKET", "GRAPHDRIVER_STATE", "GRAPHDRIVER_CVMFS_ROOT", "GRAPHDRIVER_CVMFS2",
           "GRAPHDRIVER_CVMFS_TALK"}  # fmt: skip
_SECRETS = {"LAYER_STORE_ACCESS_KEY", "LAYER_STORE_SECRET_KEY"}

_CONFIG = plugin_config(version="1.2.3", revision="c0ffee")


def test_every_setting_can_be_set_but_for_places_inside_the_plugin() -> None:
    described = {entry["name"]: entry for entry in _CONFIG["env"]}
    expected = [
        variable
        for group in (GraphDriverSettings, ObjectStoreSettings, ArchiveLimits)
        for variable in variables(group)
        if variable.name not in _INSIDE
    ]
    names = {f"{variable.name}_FILE" if variable.name in _SECRETS else variable.name for variable in expected}
    assert described.keys() == {*names, "AWS_CA_BUNDLE"}
    for variable in expected:
        entry = described.get(variable.name) or described[f"{variable.name}_FILE"]
        assert variable.description in entry["description"]
        assert entry["settable"] == ["value"]


def test_a_secret_can_be_given_as_a_file_only() -> None:
    # `docker plugin inspect` shows all values.
    entries = {entry["name"]: entry.get("value") for entry in _CONFIG["env"]}
    assert [name for name in entries if re.search(r"KEY|SECRET|TOKEN|PASSW", name) and not name.endswith("_FILE")] == []
    assert {name: value for name, value in entries.items() if value is not None} == {
        "LAYER_STORE_ACCESS_KEY_FILE": f"{SECRETS}/access-key",
        "LAYER_STORE_SECRET_KEY_FILE": f"{SECRETS}/secret-key",
    }


def test_it_asks_for_no_more_than_is_needed() -> None:
    config = _CONFIG
    assert config["interface"] == {"socket": "cvmfs.sock", "types": ["docker.graphdriver/1.0"]}
    assert config["network"] == {"type": "host"}
    assert config["propagatedMount"] == str(LAYERS)
    assert config["linux"]["capabilities"] == ["CAP_SYS_ADMIN"]
    assert not config["linux"]["allowAllDevices"]
    assert [device["path"] for device in config["linux"]["devices"]] == ["/dev/fuse"]
    assert not config.keys() & {"pidHost", "ipcHost"}


def test_mounts_can_be_moved_and_repositories_propagate_inwards_only() -> None:
    mounts = {mount["name"]: mount for mount in _CONFIG["mounts"]}
    assert {name: (mount["source"], mount["destination"], mount["options"]) for name, mount in mounts.items()} == {
        "cvmfs": ("/cvmfs", "/cvmfs", ["rbind", "rslave"]),
        "cvmfs-config": ("/etc/cvmfs", "/etc/cvmfs", ["rbind", "ro"]),
        "cvmfs-state": ("/var/lib/cvmfs", "/var/lib/cvmfs", ["rbind", "rslave"]),
        "secrets": ("/etc/cvmfs-graphdriver", str(SECRETS), ["rbind", "ro"]),
    }
    assert all(mount["settable"] == ["source"] and mount["description"] for mount in mounts.values())


def test_the_module_writes_it() -> None:
    command = [sys.executable, "-m", "services.graphdriver.managed.config", "1.2.3", "c0ffee"]
    written = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert written == plugin_config(version="1.2.3", revision="c0ffee")
    assert written["description"].endswith("(version 1.2.3, revision c0ffee)")
