"""A user without privileges, who has subordinate ids and may use FUSE, as podman needs; known in this sandbox only."""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from harness.sandbox import Sandbox
from tests.support.mounts import mount
from tests.support.podman import Podman
from tests.support.processes import end_all_of

__all__ = ["rootless_podman"]

_USER: Final = 4711
_SUBORDINATES: Final = range(200000, 265536)
_PLACE: Final = Path("/run/tester")
"""Nobody else's temporary directories are open to the user."""
_FUSE: Final = Path("/dev/fuse")
_FUSE_OVERLAYFS: Final = '[storage.options.overlay]\nmount_program = "/usr/bin/fuse-overlayfs"\n'
_BECOME: Final = ("setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups", "--")


@contextmanager
def rootless_podman(stores: Sequence[Path]) -> Iterator[Podman]:
    """Give the user a podman.

    Parameters
    ----------
    stores
        Additional image stores.
    """
    system, home = _PLACE / "system", _PLACE / "home"
    system.mkdir(parents=True)
    subordinates = f"tester:{_SUBORDINATES.start}:{len(_SUBORDINATES)}\n"
    lines = {
        "passwd": f"tester:x:{_USER}:{_USER}::{home}:/bin/sh\n",
        "group": f"tester:x:{_USER}:\n",
        "subuid": subordinates,
        "subgid": subordinates,
    }
    fuse = Sandbox.current().workspace / "fuse"  # in /run there are no devices
    os.mknod(fuse, stat.S_IFCHR, os.stat(_FUSE).st_rdev)
    fuse.chmod(0o666)
    over = {_FUSE: fuse}
    for name, line in lines.items():
        place = Path("/etc", name)
        (system / name).write_text(place.read_text() + line)
        over[place] = system / name
    environment = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run"), "XDG_CONFIG_HOME": str(home / "config")}
    podman = Podman(home, stores, command=(*_BECOME, "podman"), storage=_FUSE_OVERLAYFS, environment=environment)
    (home / "run").mkdir(mode=0o700, exist_ok=True)
    for path in (home, *home.rglob("*")):
        shutil.chown(path, _USER, _USER)
    mounted: list[Path] = []
    try:
        for place, source in over.items():
            mount("--bind", source, place)
            mounted.append(place)
        yield podman
    finally:
        # podman leaves a process that has the user's namespaces, and one after every container that may still clean up.
        end_all_of({_USER, *_SUBORDINATES})
        for place in mounted:
            subprocess.run(["umount", place], check=True)
        shutil.rmtree(_PLACE)
        fuse.unlink()
