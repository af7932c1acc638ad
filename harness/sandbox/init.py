"""Process 1 of the sandbox: sets it up, runs the command, and ends everything when the command or its starter ends.

It is run by `harness.sandbox.__main__` and by nothing else.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from harness.sandbox import CGROUP_VARIABLE, WORKSPACE_VARIABLE
from harness.sandbox.network import use_name_server
from harness.sandbox.traces import CGROUP_ROOT, remove_cgroups, remove_workspace, unmount_below

__all__ = ["ALONE", "CONNECTED"]

ALONE = b"\0"
"""What the starter says first to a sandbox that has a loopback interface only."""

CONNECTED = b"\1"
"""What the starter says first to a sandbox that has been given a way to the outside."""

_HIDDEN = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "BUILDKIT_HOST", "XDG_RUNTIME_DIR")
"""Variables that would lead a client to a daemon outside."""

_HYBRID = CGROUP_ROOT / "unified"
"""Where machines with control groups of version 1 also have the hierarchy of version 2, without controllers."""

_DEFAULT_AGAIN = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT)


def _set_up(*, connected: bool) -> None:
    """Hide what the machine's own daemons use; the namespaces are there already."""
    resolver = Path("/etc/resolv.conf")
    # On machines with systemd-resolved this is a link into /run, which is about to be hidden.
    behind = resolver.resolve() if resolver.is_symlink() else None
    content = resolver.read_bytes() if behind and behind.exists() else b""
    # As systemd has it on machines; the peers are in this namespace only. Elsewhere dockerd mounts its data root over
    # itself, and if / is a part of a file system (btrfs, containers) it never unmounts it.
    subprocess.run(["mount", "--make-rshared", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755,nosuid,nodev", "tmpfs", "/run"], check=True)
    if Path("/dev").is_mount() and Path("/dev/shm").is_mount():  # noqa: S108 - it is looked at only
        # A program that writes its output beside its destination and renames it would replace the machine's /dev/null.
        subprocess.run(["mount", "-n", "-o", "remount,bind,ro", "/dev"], check=True)
    if _HYBRID.is_mount():
        # runc makes groups of managed plugins at its top, wherever they belong, so they would outlive the sandbox.
        subprocess.run(["umount", _HYBRID], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    if behind and behind.is_relative_to("/run"):
        behind.parent.mkdir(parents=True, exist_ok=True)
        behind.write_bytes(content)
    if connected:
        use_name_server(resolver)
    Path("/run/lock").mkdir()
    Path("/run/docker/plugins").mkdir(parents=True)


def _environment(workspace: Path) -> dict[str, str]:
    temporary = workspace / "tmp"
    temporary.mkdir()
    return {key: value for key, value in os.environ.items() if key not in _HIDDEN} | {"TMPDIR": str(temporary)}


def _reap(main: int) -> int | None:
    """Collect ended children, adopted ones included; return the command's exit status once it has ended."""
    status = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, raw = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == main:
                code = os.waitstatus_to_exitcode(raw)
                status = code if code >= 0 else 128 - code
    return status


def _run(command: list[str], environment: dict[str, str], control: int) -> int:
    """Run the command until it ends; bytes from the starter are signals for it, and the end of the pipe ends all."""
    wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    try:
        # Python itself ignores two signals that programs expect to end them, and a shell has what it starts in the
        # background ignore interrupts, which come from the starter here.
        main = os.posix_spawnp(command[0], command, environment, setsid=True, setsigdef=_DEFAULT_AGAIN)
    except OSError as error:
        print(f"sandbox: {command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    while True:
        ready, _, _ = select.select([wake, control], [], [])
        if wake in ready:
            os.read(wake, 4096)
        if (status := _reap(main)) is not None:
            return status
        if control in ready:
            requests = os.read(control, 64)
            if not requests:
                return 128 + signal.SIGKILL
            for number in requests:
                os.killpg(main, number)


def _end_all() -> None:
    """End and collect every other process of the namespace."""
    while True:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            return


def main() -> int:
    """Run as process 1: `init CONTROL_FD HERE_FD WORKSPACE CGROUP COMMAND...`."""
    control, here, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[5:]
    workspace, cgroup = Path(sys.argv[3]), sys.argv[4]
    os.set_inheritable(control, False)
    os.write(here, b"1")
    os.close(here)
    # The starter blocks signals until it can pass them on; the mask is inherited.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.environ[WORKSPACE_VARIABLE] = str(workspace)
    os.environ[CGROUP_VARIABLE] = cgroup
    try:
        order = os.read(control, 1)
        if not order:
            return 128 + signal.SIGKILL
        _set_up(connected=order == CONNECTED)
        status = _run(command, _environment(workspace), control)
    finally:
        _end_all()
        unmount_below(workspace)
        remove_cgroups(cgroup)
        remove_workspace(workspace)
    return status


if __name__ == "__main__":
    sys.exit(main())
