"""A stand-in for `systemctl` where no systemd runs: starts services as their units say.

`python -m tests.support.service_manager CGROUP COMMAND UNIT...` understands `enable --now` and `restart`. Of a unit it
does what the programs need to see: environment and its files, credentials, the program, and the wait until it says that
it is ready. Sockets it leaves to the services, which make their own where nobody hands one over. What is restarted does
not run yet.
"""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

__all__: list[str] = []

_UNITS: Final = (Path("/etc/systemd/system"), Path("/usr/lib/systemd/system"), Path("/lib/systemd/system"))
_STATE: Final = Path("/run/service-manager")
_PATIENCE: Final = 300
"""Most seconds until a service is ready."""
_HANDED_OVER: Final = {"fd://": "unix:///run/docker.sock"}
"""Where dockerd listens if no socket is handed over to it, which it does not do by itself."""


def _unit(name: str) -> list[tuple[str, str]]:
    (path, *_) = [place for directory in _UNITS if (place := directory / name).exists()]
    lines = path.read_text().splitlines()
    return [(key, value) for key, mark, value in (line.partition("=") for line in lines) if mark and key.isalpha()]


def _values(unit: list[tuple[str, str]], key: str) -> list[str]:
    return [value for name, value in unit if name == key]


def _environment(unit: list[tuple[str, str]], credentials: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in _values(unit, "Environment"):
        found |= dict(part.partition("=")[::2] for part in shlex.split(text.replace("%d", str(credentials))))
    for text in _values(unit, "EnvironmentFile"):
        file = Path(text.removeprefix("-"))
        if file.exists() or not text.startswith("-"):
            lines = (line for line in file.read_text().splitlines() if line and not line.startswith("#"))
            found |= {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines)}
    return found


def _start(name: str, cgroup: str) -> None:
    unit = _unit(f"{name}.service")
    credentials = Path(tempfile.mkdtemp(dir=_STATE))
    for text in _values(unit, "LoadCredential"):
        key, _, source = text.partition(":")
        shutil.copy(source, credentials / key)
    environment = _environment(unit, credentials)
    (line,) = _values(unit, "ExecStart")
    words = re.sub(r"\$(\w+)", lambda match: environment.get(match[1], ""), line).split()
    command = [_HANDED_OVER.get(word, word) for word in words]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, (_STATE / f"{name}.log").open("ab") as log:
        address = f"@service-manager-{os.getpid()}-{name}"
        manager.bind(f"\0{address[1:]}")
        manager.settimeout(1)
        process = subprocess.Popen(
            [sys.executable, "-m", "harness.sandbox.cgroup", cgroup, *command],
            env=_own_environment() | environment | {"NOTIFY_SOCKET": address},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        deadline = time.monotonic() + _PATIENCE
        while not _says_ready(manager):
            if process.poll() is not None or time.monotonic() > deadline:
                said = Path(log.name).read_text(errors="replace")
                sys.exit(f"{name} did not get ready, status {process.returncode}:\n{said[-4000:]}")


def _says_ready(manager: socket.socket) -> bool:
    try:
        return b"READY=1" in manager.recv(4096).split(b"\n")
    except TimeoutError:
        return False


def _own_environment() -> dict[str, str]:
    """Return what services have of the machine's environment, which is not that of the shell that starts them."""
    return {key: value for key, value in os.environ.items() if key in ("PATH", "LANG", "PYTHONPATH")}


def main() -> None:
    """Do what one command of systemctl does."""
    cgroup, *arguments = sys.argv[1:]
    _STATE.mkdir(exist_ok=True)
    match arguments:
        case ["enable", "--now", *units] | ["restart", *units]:
            for unit in units:
                if unit.endswith(".socket"):
                    _unit(unit)
                    continue
                name = unit.removesuffix(".service")
                _start(name, cgroup)
        case _:
            sys.exit(f"not understood: systemctl {shlex.join(arguments)}")


if __name__ == "__main__":
    main()
