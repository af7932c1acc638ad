"""A stand-in for `cvmfs2` that reads a native repository by HTTP: takes its arguments and its configuration.

It believes what the repository's key has signed, leaves a process behind that shows new revisions as they come (the
real client looks for one when it is told to, or minutes later), and fails where the real one does. Unlike that it
fetches all files at once, into its cache (`tests/support/cvmfs_client.py`), and mounts that without FUSE, since bindfs
shows no group above 2**31. Two that share a cache are taken for the same mount, as by the client.
"""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from services.common.repository_name import RepositoryName
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.reader.source import HttpSource
from tests.support.cvmfs2 import Call, say
from tests.support.cvmfs_client import ClientView

__all__ = ["install"]

_ROOT: Final = Path(__file__).parents[2]
_POLL: Final = 0.2
"""Seconds between two looks for a new revision."""
_NEEDED: Final = tuple(
    f"CVMFS_{name}" for name in ("SERVER_URL", "PUBLIC_KEY", "HTTP_PROXY", "CACHE_BASE", "RELOAD_SOCKETS")
)
"""What the client has no default of, or one outside of the test."""


def install(directory: Path) -> Path:
    """Write the program `cvmfs2` into a directory and return its path."""
    program = directory / "cvmfs2"
    module = "tests.support.native_cvmfs2"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={_ROOT} exec {sys.executable} -m {module} "$@"\n')
    program.chmod(0o755)
    return program


def main() -> int:
    """Mount a repository as `cvmfs2 -o config=FILE -o OPTIONS REPOSITORY MOUNTPOINT` does."""
    call = Call.parse(sys.argv[1:])
    say("CernVM-FS: running in fuse mode")
    lines = Path(call.options["config"]).read_text().splitlines()
    settings = dict(line.partition("=")[::2] for line in lines)
    if missing := [name for name in _NEEDED if not settings.get(name)]:
        say(f"{', '.join(missing)} required (7 - not found)")
        return 7
    if not Path(settings["CVMFS_RELOAD_SOCKETS"]).is_dir():
        say("Failed to initialize loader socket")
        return 10
    tree = Path(settings["CVMFS_CACHE_BASE"]) / call.repository
    if tree.exists():
        say(f"CernVM-FS: repository {call.repository} already mounted on {call.point}")
        return 0
    told, mounted = os.pipe()
    if os.fork() == 0:
        os.close(told)
        os.setsid()
        _serve(settings, call, tree, mounted)
        return 0
    os.close(mounted)
    if not os.read(told, 1):
        return 1
    say(f"CernVM-FS: loading Fuse module... done\nCernVM-FS: mounted cvmfs on {call.point}")
    return 0


def _serve(settings: Mapping[str, str], call: Call, tree: Path, mounted: int) -> None:
    """Mount, tell so, and show every new revision until it is unmounted."""
    keys = [Path(settings["CVMFS_PUBLIC_KEY"]).read_bytes()]
    source = HttpSource(settings["CVMFS_SERVER_URL"])
    with RepositoryReader(source, name=RepositoryName(call.repository), master_keys=keys) as reader:
        view = ClientView(reader, tree)
        view.update()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(call.point)], check=True)
        _show(tree, call.point)
        os.write(mounted, b"1")
        os.close(mounted)
        while os.path.ismount(call.point):
            time.sleep(_POLL)
            view.update()
            _show(tree, call.point)


def _show(tree: Path, point: Path) -> None:
    """Have in a file system, as the mount of a client is one, what is in the tree."""
    for entry in tree.iterdir():
        place = point / entry.name
        if os.path.lexists(place):
            continue
        if entry.is_symlink():
            place.symlink_to(entry.readlink())
        else:
            place.mkdir()
            subprocess.run(["mount", "--bind", "--options", "ro", str(entry), str(place)], check=True)


if __name__ == "__main__":
    sys.exit(main())
