"""A stand-in for `cvmfs2` that reads a native repository by HTTP: takes its arguments and its configuration.

It believes what the repository's key has signed, shows the revision that is the newest when it mounts (the real client
looks for another one minutes later), and fails where the real one does. Unlike that it fetches all files at once, into
its cache (`tests/support/cvmfs_client.py`), and mounts that without FUSE, since bindfs shows no group above 2**31. Two
that share a cache are taken for the same mount, as by the client.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

from services.common.repository_name import RepositoryName
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.reader.source import HttpSource
from tests.support.cvmfs2 import Call, say
from tests.support.cvmfs_client import ClientView

__all__ = ["install"]

_ROOT: Final = Path(__file__).parents[2]
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
    keys = [Path(settings["CVMFS_PUBLIC_KEY"]).read_bytes()]
    source = HttpSource(settings["CVMFS_SERVER_URL"])
    with RepositoryReader(source, name=RepositoryName(call.repository), master_keys=keys) as reader:
        ClientView(reader, tree).update()
    _mount(tree, call.point)
    say(f"CernVM-FS: loading Fuse module... done\nCernVM-FS: mounted cvmfs on {call.point}")
    return 0


def _mount(tree: Path, point: Path) -> None:
    """Mount a file system, as the mount of a client is one, with the tree in it."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(point)], check=True)
    for entry in tree.iterdir():
        place = point / entry.name
        if entry.is_symlink():
            place.symlink_to(entry.readlink())
        else:
            place.mkdir()
            subprocess.run(["mount", "--bind", "--options", "ro", str(entry), str(place)], check=True)


if __name__ == "__main__":
    sys.exit(main())
