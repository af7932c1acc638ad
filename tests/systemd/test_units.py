"""The units of services outside containers: systemd finds nothing wrong with them, and they can do their work."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from services.common.object_store.settings import ObjectStoreSettings
from services.common.settings import variables
from services.converter.settings import ConverterSettings
from services.graphdriver.settings import GraphDriverSettings
from services.publisher.settings import PublisherSettings
from services.snapshotter.rpc.server import CALLS_TIMEOUT, END_TIMEOUT, LEAVE_TIMEOUT
from services.snapshotter.settings import SnapshotterSettings

_UNITS: Final = Path(__file__).parents[2] / "systemd"
_ALL: Final = sorted(path.name for path in _UNITS.iterdir())
_NAMES: Final = [name for name in _ALL if name.endswith(".service")]
_EXPOSURE: Final = 53
"""Most that `systemd-analyze security` may find, of 100: nearly all of it is what mounting and all owners need."""
_CONVERTER: Final = "cvmfs-thin-converter.service"
"""Which mounts nothing and owns nothing."""
_CONVERTERS_EXPOSURE: Final = 15
_MOUNT_NAMESPACE: Final = {
    *("BindPaths", "BindReadOnlyPaths", "ExecPaths", "ExtensionDirectories", "ExtensionImages", "InaccessiblePaths"),
    *("MountAPIVFS", "MountFlags", "MountImages", "NoExecPaths", "PrivateDevices", "PrivateIPC", "PrivateMounts"),
    *("PrivateTmp", "ProcSubset", "ProtectControlGroups", "ProtectHome", "ProtectHostname", "ProtectKernelLogs"),
    *("ProtectKernelModules", "ProtectKernelTunables", "ProtectProc", "ProtectSystem", "ReadOnlyPaths"),
    *("ReadWritePaths", "RootDirectory", "RootImage", "TemporaryFileSystem", "DynamicUser"),
}
"""Options that make a mount namespace (systemd.exec(5)), whose mounts nobody else sees."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root of a machine on which everything is installed as the documentation says."""
    shutil.copytree("/usr/lib/systemd/system", tmp_path / "usr/lib/systemd/system", symlinks=True)
    shutil.copytree(_UNITS, tmp_path / "etc/systemd/system")
    program = tmp_path / "opt/cvmfs-thin/bin/python"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    return tmp_path


def _analyze(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", f"--root={root}", *arguments], capture_output=True, text=True, check=False, timeout=300
    )


def _options(name: str) -> list[tuple[str, str]]:
    lines = (_UNITS / name).read_text().splitlines()
    return [(key, value) for key, mark, value in (line.partition("=") for line in lines) if mark and key.isalpha()]


def test_there_is_one_for_each_side() -> None:
    assert _ALL == [
        "cvmfs-graphdriver.service",
        "cvmfs-snapshotter.service",
        "cvmfs-snapshotter.socket",
        "cvmfs-thin-converter.service",
        "cvmfs-thin-publisher.service",
    ]


@pytest.mark.parametrize("name", _ALL)
def test_nothing_is_wrong(root: Path, name: str) -> None:
    done = _analyze(root, "verify", "--man=no", name)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_wrong_would_be_found(root: Path) -> None:
    unit = root / "etc/systemd/system" / _NAMES[0]
    unit.write_text(unit.read_text().replace("Restart=always", "Restart=ever"))
    assert "Failed to parse" in _analyze(root, "verify", "--man=no", _NAMES[0]).stderr


@pytest.mark.parametrize("name", _NAMES)
def test_it_is_hardened(root: Path, name: str) -> None:
    threshold = _CONVERTERS_EXPOSURE if name == _CONVERTER else _EXPOSURE
    done = _analyze(root, "security", "--offline=true", f"--threshold={threshold}", name)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", [name for name in _NAMES if name != _CONVERTER])
def test_its_mounts_are_everybodys(name: str) -> None:
    assert {key for key, _ in _options(name)} & _MOUNT_NAMESPACE == set()


def test_docker_starts_after_the_driver(root: Path) -> None:
    assert ("Before", "docker.service") in _options("cvmfs-graphdriver.service")
    for name in ("cvmfs-snapshotter.service", "cvmfs-snapshotter.socket"):
        assert ("Before", "containerd.service docker.service") in _options(name)
    for name in ("containerd.service", "docker.service"):
        assert (root / "usr/lib/systemd/system" / name).exists()


def test_the_snapshotter_is_back_before_its_clients_give_up() -> None:
    options = dict(_options("cvmfs-snapshotter.service"))
    assert (options["Restart"], options["RestartSec"], options["StartLimitIntervalSec"]) == ("always", "100ms", "0")
    # While nobody serves it, its socket is there.
    assert options["Requires"] == "cvmfs-snapshotter.socket"
    # More than its calls get to end, and what was given up to clean up.
    assert int(options["TimeoutStopSec"]) > LEAVE_TIMEOUT + CALLS_TIMEOUT + END_TIMEOUT


def test_the_socket_is_that_of_the_settings() -> None:
    listened = dict(_options("cvmfs-snapshotter.socket"))["ListenStream"]
    assert listened == str(SnapshotterSettings.model_fields["socket"].default)


@pytest.mark.parametrize("name", _NAMES)
def test_its_secrets_are_credentials(name: str) -> None:
    options = _options(name)
    credentials = {value.partition(":")[0] for key, value in options if key == "LoadCredential"}
    files = dict(
        part.split("=", 1) for key, value in options if key == "Environment" for part in re.split(r"\s+", value)
    )
    secrets = {
        f"{variable.name}_FILE"
        for group in (
            GraphDriverSettings,
            SnapshotterSettings,
            PublisherSettings,
            ConverterSettings,
            ObjectStoreSettings,
        )
        for variable in variables(group)
        if variable.type == "secret"
    }
    assert files.keys() <= secrets
    assert {value.removeprefix("%d/") for value in files.values()} == credentials


def test_state_directories_are_those_of_the_settings() -> None:
    for name, state in (
        ("cvmfs-graphdriver.service", GraphDriverSettings.model_fields["state"].default),
        ("cvmfs-snapshotter.service", SnapshotterSettings.model_fields["state"].default),
        (_CONVERTER, ConverterSettings.model_fields["state"].default),
        ("cvmfs-thin-publisher.service", PublisherSettings.model_fields["state"].default),
    ):
        assert f"/var/lib/{dict(_options(name))['StateDirectory']}" == str(state)
