"""The stand-in's commands."""

import argparse
import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.cvmfs_server.area import Area
from tests.support.cvmfs_server.control import Control
from tests.support.cvmfs_server.revision import BundlesError, GraftError, PoisonError, build_revision

_DEFAULT_SECONDS = 0.05
"""How long a publish takes at least; the real one takes seconds."""


def _transaction(area: Area, control: Control, arguments: argparse.Namespace) -> int:
    control.point("transaction.begin")
    deadline = time.monotonic() + arguments.t
    while area.transaction_flag.exists():
        if time.monotonic() >= deadline:
            print("CernVM-FS transaction error: another transaction is already open", file=sys.stderr)
            return errno.EEXIST
        print("repository busy, retrying")
        time.sleep(0.1)
    area.repair()
    control.point("transaction.checked")
    if area.transaction_flag.exists():
        print("CernVM-FS transaction error: another transaction is already open", file=sys.stderr)
        return errno.EEXIST
    area.flag()
    control.point("transaction.flagged")
    area.let_write(True)
    control.point("transaction.opened")
    return 0


def _publish(area: Area, control: Control, arguments: argparse.Namespace) -> int:
    control.point("publish.begin")
    # The real program puts the message into a shell command as it is.
    if arguments.m and not re.fullmatch(r"[\w.:-]+", arguments.m):
        print(f"sh: 1: {arguments.m}: not found", file=sys.stderr)
        return 1
    if not area.lock_publishing():
        print(f"Another publish process is active for {area.name}", file=sys.stderr)
        return 1
    if not area.transaction_flag.exists():
        print(f"Repository {area.name} is not in a transaction")
        return 1
    if area.has_writers():
        print(f"Open writable file descriptors on {area.name}")
        return 1
    print("Using auto tag 'generic-2026-01-01T00:00:00Z'\nProcessing changes...")
    area.let_write(False)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        _synchronize(area, control)
        control.point("publish.hook")
    except BaseException:
        # The real program's trap, which a kill does not spring. Nothing comes of it where nothing is mounted.
        with contextlib.suppress(subprocess.CalledProcessError):
            area.let_write(True)
        area.unlock_publishing()
        raise
    area.unlock_publishing()
    control.point("publish.closed")
    return 0


def _synchronize(area: Area, control: Control) -> None:
    time.sleep(float(control.text("slow") or _DEFAULT_SECONDS))
    control.point("publish.sync")
    try:
        _commit(area, control, area.revision + 1)
    except (PoisonError, GraftError, BundlesError) as error:
        print(
            f"{error}: cannot be added\nSynchronization failed\n\nExecuted Command:\ncvmfs_swissknife sync",
            file=sys.stderr,
        )
        sys.exit(1)
    control.point("publish.committed")
    print("Exporting repository manifest\nTagging\nFlushing file system buffers\nSigning new manifest")
    print("Remounting newly created repository revision")
    device = area.union_device
    area.drop()
    control.point("publish.unmounted")
    while area.held(device):  # the real program waits for its CVMFS client to end, and says nothing
        time.sleep(0.05)
    area.mount()
    control.point("publish.mounted")
    area.close()


def _commit(area: Area, control: Control, revision: int) -> None:
    """Build the new revision and make it the current one, in one step for whoever reads."""
    new = area.revisions / f".new-{os.getpid()}"
    build_revision(
        published=area.revisions / str(revision - 1),
        upper=area.upper,
        destination=new,
        xattrs=area.configured("CVMFS_INCLUDE_XATTRS") == "true",
        poison=control.text("poison"),
    )
    os.setxattr(new, "user.revision", str(revision).encode())
    os.rename(new, area.revisions / str(revision))
    link = area.current.with_name(f"current.{os.getpid()}")
    link.symlink_to(f"revisions/{revision}")
    os.rename(link, area.current)


def _abort(area: Area, control: Control, arguments: argparse.Namespace) -> int:
    control.point("abort.begin")
    if not area.lock_publishing():
        print(f"Could not acquire lock {area.publishing_lock}", file=sys.stderr)
        return errno.EINVAL
    if not area.transaction_flag.exists():
        print(f"Repository {area.name} is not in a transaction", file=sys.stderr)
        return errno.EINVAL
    if not arguments.f:
        print(f"You are about to DISCARD ALL CHANGES OF THE CURRENT TRANSACTION for {area.name}!  Are you sure (y/N)? ")
        if sys.stdin.readline().strip() not in ("y", "Y"):
            return errno.EINTR
    try:
        control.point("abort.unmount")
    except SystemExit:
        # The real program looks at one kind of failure, and ends well after all others (2.8 to 2.12, cmd_abort.cc).
        return 0
    area.drop()
    area.unlock_publishing()
    area.mount()
    area.close()
    return 0


def _info(area: Area, control: Control, _arguments: argparse.Namespace) -> int:
    time.sleep(float(control.text("unanswering") or 0))
    if (problem := control.text("unreachable")) is not None:
        print(f"failed to load the whitelist: {problem}", file=sys.stderr)
        return 1
    print(f"Repository name: {area.name}\nCreated by CernVM-FS 2.12.0\nRevision: {area.revision}")
    print(control.text("whitelist") or "Whitelist is valid for another 29 days")
    return 0


def _check(area: Area, _control: Control, _arguments: argparse.Namespace) -> int:
    print(f"Inspecting log of references\nVerifying integrity of {area.name}...")
    return 0


def _mount(area: Area, control: Control, _arguments: argparse.Namespace) -> int:
    control.point("mount.begin")
    if not area.healthy:
        if not area.lock_publishing():
            print(f"WARNING: The repository {area.name} is currently publishing", file=sys.stderr)
            return 1
        area.unlock_publishing()
        area.repair()
    return 0


def _mkfs(area: Area, _control: Control, _arguments: argparse.Namespace) -> int:
    area.create()
    return 0


def _list(root: Path) -> int:
    for directory in sorted((root / "storage").iterdir()):
        area = Area(root, directory.name)
        status = " - in transaction" if area.transaction_flag.exists() else ""
        time.sleep(float(Control(area.control).text("unanswering") or 0))
        if not area.healthy:
            status += " - unhealthy"
        print(f"{area.name} ({area.configured('CVMFS_REPOSITORY_TYPE')} / local{status}) ")
    return 0


_COMMANDS: dict[str, Callable[[Area, Control, argparse.Namespace], int]] = {
    "transaction": _transaction,
    "publish": _publish,
    "abort": _abort,
    "info": _info,
    "check": _check,
    "mkfs": _mkfs,
    "mount": _mount,
}


def main() -> int:
    """Run one command."""
    root = Path(os.environ["CVMFS_STANDIN"])
    parser = argparse.ArgumentParser("cvmfs_server")
    parser.add_argument("command", choices=[*_COMMANDS, "list"])
    parser.add_argument("-t", type=int, default=0)
    parser.add_argument("-f", action="store_true")
    parser.add_argument("-m")
    parser.add_argument("-a")
    parser.add_argument("-p", action="store_true")
    parser.add_argument("-o")
    parser.add_argument("repository", nargs="?")
    arguments = parser.parse_intermixed_args()
    if arguments.command == "list":
        return _list(root)
    area = Area(root, arguments.repository)
    control = Control(area.control)
    if arguments.command != "mkfs" and not area.exists:
        print(f"The repository {area.name} does not exist.", file=sys.stderr)
        return 1
    control.garbage(arguments.command)
    return _COMMANDS[arguments.command](area, control, arguments)


sys.exit(main())
