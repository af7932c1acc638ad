"""A stand-in for `cvmfs2`, the CVMFS client: takes its arguments, mounts by Debian's bindfs.

Like the client it leaves a process behind that serves a FUSE mount, so a killed or stopped one gives what a dead or
hung client gives: ENOTCONN, or no answer. Unlike the client's, its directories report a proper name length, so
ENAMETOOLONG from a union of repository directories alone cannot be had here.

With `-f` it stays in the foreground. The repositories are the directories below `--source`.
`<repository>.behaviour` beside one makes it misbehave: `fail`, `hang` (before mounting), `elsewhere` (end well with
nothing mounted, as where it is mounted already). Every call is appended to `calls.jsonl`, and `<repository>.pid` holds
the number of the process that serves it.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

__all__ = ["SOCKETS", "Call", "calls", "install", "say", "serving_process"]

SOCKETS: Final = Path("/var/run/cvmfs")
"""Where the client has a socket, unless its configuration says otherwise; it does not make the directory."""

_OPTIONS: Final = {"fsname", "allow_other", "grab_mountpoint", "cvmfs_suid", "nodev", "ro", "config", "uid", "gid"}
"""Options of `-o` that the client knows, of the many that there are."""


def install(directory: Path, source: Path) -> Path:
    """Write the program `cvmfs2` into a directory and return its path."""
    program = directory / "cvmfs2"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} --source {source} -- "$@"\n')
    program.chmod(0o755)
    return program


def calls(source: Path) -> list[list[str]]:
    """Return the arguments of every call so far."""
    log = source / "calls.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def serving_process(source: Path, repository: str) -> int:
    """Return the number of the process that serves a repository."""
    return int((source / f"{repository}.pid").read_text())


@dataclass(frozen=True)
class Call:
    """What the client is asked for: `cvmfs2 [-f] -o OPTIONS REPOSITORY MOUNTPOINT`."""

    repository: str
    point: Path
    options: dict[str, str]
    foreground: bool

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Self:
        """Understand arguments as the client does, which ends at an option that it does not know."""
        parser = argparse.ArgumentParser(prog="cvmfs2")
        parser.add_argument("-f", dest="foreground", action="store_true")
        parser.add_argument("-o", dest="options", action="append", default=[])
        parser.add_argument("repository")
        parser.add_argument("mountpoint", type=Path)
        parsed = parser.parse_args(arguments)
        options = dict(option.partition("=")[::2] for option in ",".join(parsed.options).split(",") if option)
        if unknown := options.keys() - _OPTIONS:
            say(f"fuse: unknown option(s): {' '.join(sorted(unknown))}")
            sys.exit(1)
        return cls(parsed.repository, parsed.mountpoint, options, parsed.foreground)


def say(text: str) -> None:
    """Write what the client writes."""
    os.write(2, f"{text}\n".encode())


def main() -> int:
    """Mount a repository as the client does."""
    own = argparse.ArgumentParser()
    own.add_argument("--source", type=Path, required=True)
    mine, theirs = own.parse_known_args(sys.argv[1 : sys.argv.index("--")])[0], sys.argv[sys.argv.index("--") + 1 :]
    source: Path = mine.source
    with (source / "calls.jsonl").open("a") as log:
        log.write(json.dumps(theirs) + "\n")
    call = Call.parse(theirs)
    return _mount(source, call)


def _mount(source: Path, call: Call) -> int:
    repository, point = call.repository, call.point
    say("CernVM-FS: running in fuse mode")
    behaviour = source / f"{repository}.behaviour"
    match behaviour.read_text().strip() if behaviour.exists() else "":
        case "fail":
            say("Failed to initialize root file catalog (16 - file catalog failure)")
            return 9
        case "hang":
            signal.pause()
        case "elsewhere":
            say(f"CernVM-FS: loading Fuse module... \nCernVM-FS: repository {repository} already mounted on {point}")
            return 0
    if not (source / repository).is_dir():
        say(f"failed to load configuration of {repository} (7 - not found)")
        return 7
    if not point.is_dir():
        say(f"failed to access mountpoint {point} ({point} - no such directory)")
        return 4
    if not SOCKETS.is_dir():
        say("Failed to initialize loader socket")
        return 10
    say(f"CernVM-FS: loading Fuse module... done\nCernVM-FS: mounted cvmfs on {point}")
    return _serve(source, call)


def _serve(source: Path, call: Call) -> int:
    repository, point = call.repository, call.point
    fuse = ["ro", f"fsname={call.options.get('fsname', 'cvmfs2')}"]
    if "cvmfs_suid" in call.options:
        fuse.append("suid")
    command = ["bindfs", "-f", "--xattr-ro", "-o", ",".join(fuse), str(source / repository), str(point)]
    if "allow_other" not in call.options:
        command.insert(1, "--no-allow-other")
    # It keeps the output open, as the client does in the background.
    server = subprocess.Popen(command, start_new_session=True)
    (source / f"{repository}.pid").write_text(str(server.pid))
    deadline = time.monotonic() + 120
    while not os.path.ismount(point):
        if server.poll() is not None or time.monotonic() > deadline:
            return 1
        time.sleep(0.005)
    return server.wait() if call.foreground else 0


if __name__ == "__main__":
    sys.exit(main())
