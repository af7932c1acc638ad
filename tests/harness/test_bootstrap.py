"""What `make` does before anything else, on machines where something is missing or wrong."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]

_HIDE_BUILDX = "mount -t tmpfs tmpfs /usr/libexec/docker"

_RECORDING = """#!/bin/sh
echo "$0 $*" >>"$CALLS"
"""


class Machine:
    """A copy of the script, in a mount namespace where parts of the machine can be replaced."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.calls = directory / "calls"
        self._programs = directory / "programs"
        (directory / "harness").mkdir()
        self._programs.mkdir()
        shutil.copy(_ROOT / "harness" / "bootstrap.sh", directory / "harness")
        for name in ("uv.lock", "pyproject.toml"):
            shutil.copy(_ROOT / name, directory)
        (directory / ".cache").mkdir(mode=0o777)

    def replace_program(self, name: str, script: str) -> None:
        path = self._programs / name
        path.write_text(script)
        path.chmod(0o755)

    def run(self, target: str, *preparations: str, user: int = 0) -> subprocess.CompletedProcess[str]:
        script = " && ".join([*preparations, f'exec setpriv --reuid={user} sh "$0" "$1"'])
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "harness/bootstrap.sh", target]
        environment = {
            "PATH": f"{self._programs}:{os.environ['PATH']}",
            "CALLS": str(self.calls),
            "HOME": "/nonexistent",
        }
        return subprocess.run(
            command, cwd=self.directory, env=environment, capture_output=True, text=True, check=False, timeout=300
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    # Others than root must be able to get there.
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == 0 and parent.is_relative_to(os.environ["TMPDIR"]):
            parent.chmod(0o755)
    Path(os.environ["TMPDIR"]).parent.chmod(0o711)
    machine = Machine(tmp_path)
    machine.replace_program("apt-get", _RECORDING)
    return machine


def test_not_root_gets_a_list_of_what_is_missing(machine: Machine) -> None:
    ended = machine.run("demo", _HIDE_BUILDX, user=65534)
    assert ended.returncode == 1
    assert "not root, so nothing can be installed" in ended.stderr
    assert "docker-buildx (package docker-buildx)" in ended.stderr
    assert not machine.calls.exists()


def test_another_system_gets_a_list_of_what_is_missing(machine: Machine) -> None:
    (machine.directory / "os-release").write_text("ID=fedora\nVERSION_ID=42\n")
    ended = machine.run("demo", _HIDE_BUILDX, "mount --bind os-release /etc/os-release")
    assert ended.returncode == 1
    assert "neither Debian nor Ubuntu" in ended.stderr
    assert "docker-buildx (package docker-buildx)" in ended.stderr
    assert not machine.calls.exists()


@pytest.mark.parametrize("system", ["debian", "ubuntu"])
def test_packages_are_named_and_installed(machine: Machine, system: str) -> None:
    (machine.directory / "os-release").write_text(f"ID={system}\n")
    ended = machine.run("demo", _HIDE_BUILDX, "mount --bind os-release /etc/os-release")
    assert "bootstrap: installing with apt-get: docker-buildx\n" in ended.stdout
    update, install = machine.calls.read_text().splitlines()
    assert update.endswith("apt-get update -q")
    assert install.endswith("apt-get install -q -y --no-install-recommends docker-buildx")
    # This apt-get installs nothing, which is noticed.
    assert ended.returncode == 1
    assert "still missing:\n" in ended.stderr


def test_a_failed_installation_shows_why(machine: Machine) -> None:
    machine.replace_program("apt-get", '#!/bin/sh\n[ "$1" = update ] || { echo "E: no space left"; exit 100; }\n')
    ended = machine.run("demo", _HIDE_BUILDX)
    assert ended.returncode == 1
    assert "apt-get install failed:\nE: no space left" in ended.stderr


def test_the_newest_docker_that_still_has_graphdrivers_is_chosen(machine: Machine) -> None:
    machine.replace_program(
        "apt-cache",
        """#!/bin/sh
case $1 in
madison) printf ' docker.io | %s | http://mirror Packages\\n' 28.2.2-0ubuntu1 27.5.1-0ubuntu3 24.0.7-0ubuntu4 ;;
show) exit 100 ;;
esac
""",
    )
    hidden = "mkdir empty && mount --bind empty /usr/sbin"
    ended = machine.run("demo", hidden)
    line = next(line for line in ended.stdout.splitlines() if "installing" in line)
    assert " docker.io=27.5.1-0ubuntu3 " in f"{line} "
    # Ubuntu's docker.io holds the client.
    assert "docker-cli" not in line


def test_a_docker_without_graphdrivers_is_refused(machine: Machine) -> None:
    machine.replace_program("dockerd", "#!/bin/sh\necho 'Docker version 28.0.1, build bc3805a'\n")
    ended = machine.run("demo")
    assert ended.returncode == 1
    assert "Docker 28 has no graphdriver plugins any more: Docker up to 27 is needed" in ended.stderr


_UNUSABLE_PYTHON = """#!/bin/sh
exit 1
"""

_RECORDING_PYTHON = """#!/bin/sh
[ "$1" = -c ] && exit
[ "$1" = --version ] && echo "Python of $0" && exit
echo "$0 $*" >>"$CALLS"
exit 1
"""

_PYTHON_WITHOUT_ENSUREPIP = """#!/bin/sh
case $2 in *ensurepip*) exit 1 ;; esac
"""


def _hide_pythons(machine: Machine) -> str:
    """Have no Python found; return what must be done first in the machine."""
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        machine.replace_program(name, _UNUSABLE_PYTHON)
    (machine.directory / "empty").touch()
    hidden = 'if [ -e "$python" ]; then mount --bind empty "$python"; fi'
    return f"for python in /usr/bin/python3.1[123] /usr/bin/python3; do {hidden}; done"


def test_a_python_that_is_too_old_or_too_new_is_passed_over(machine: Machine) -> None:
    ended = machine.run("lint", _hide_pythons(machine), user=65534)
    assert ended.returncode == 1
    assert "Python 3.11 to 3.13 with venv and ensurepip (package python3-venv)" in ended.stderr


def test_a_new_environment_is_of_the_newest_python(machine: Machine) -> None:
    hidden = _hide_pythons(machine)
    for name in ("python3", "python3.11", "python3.12"):
        machine.replace_program(name, _RECORDING_PYTHON)
    ended = machine.run("lint", hidden)
    assert ended.stdout == f"bootstrap: making .venv with Python of {machine.directory}/programs/python3.12\n"
    assert machine.calls.read_text() == f"{machine.directory}/programs/python3.12 -m venv --clear .venv\n"


@pytest.mark.parametrize(
    ("there", "called"),
    [
        pytest.param(_RECORDING_PYTHON, ".venv/bin/pip install", id="of any version that will do"),
        pytest.param(_UNUSABLE_PYTHON, "programs/python3.12 -m venv --clear .venv", id="of none that would"),
    ],
)
def test_an_environment_that_can_be_used_stays(machine: Machine, there: str, called: str) -> None:
    hidden = _hide_pythons(machine)
    machine.replace_program("python3.12", _RECORDING_PYTHON)
    programs = machine.directory / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, script in (("python", there), ("pip", f"{_RECORDING}exit 1\n")):
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    machine.run("lint", hidden)
    assert called in machine.calls.read_text().splitlines()[0]


def test_what_the_system_s_own_python_lacks_is_installed(machine: Machine) -> None:
    (machine.directory / "os-release").write_text("ID=debian\n")
    hidden = _hide_pythons(machine)
    machine.replace_program("python3.11", _RECORDING_PYTHON)
    own = machine.directory / "own-python"
    own.write_text(_PYTHON_WITHOUT_ENSUREPIP)
    own.chmod(0o755)
    ended = machine.run(
        "demo", hidden, "mount --bind own-python /usr/bin/python3", "mount --bind os-release /etc/os-release"
    )
    assert "ensurepip for /usr/bin/python3 (package python3-venv)" in ended.stderr
    assert machine.calls.read_text().splitlines()[1].endswith(" python3-venv")


def test_where_nothing_is_missing_nothing_is_done(machine: Machine) -> None:
    environment = {**os.environ, "PATH": f"{machine.directory / 'programs'}:{os.environ['PATH']}"}
    ended = subprocess.run(
        ["sh", "harness/bootstrap.sh", "test"], cwd=_ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert (ended.stdout, ended.stderr) == ("", "")
    assert not machine.calls.exists()
