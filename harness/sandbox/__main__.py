"""Start a command in a sandbox: `python -m harness.sandbox [--network] -- COMMAND...` (as root)."""

import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType

from harness.sandbox import CGROUP_VARIABLE, SandboxError
from harness.sandbox import network as outside
from harness.sandbox.init import ALONE, CONNECTED
from harness.sandbox.traces import remove_cgroups, remove_workspace

__all__: list[str] = []

_NETWORK_OPTION = "--network"
_PROGRAMS = ("unshare", "mount", "ip", "rm")
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_GRACE = 30
"""Seconds that the command has to end after a signal before everything is killed."""

_CLONE_NEWNS = 0x20000
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _check(*, network: bool) -> None:
    if os.geteuid() != 0:
        raise SandboxError("the sandbox needs root: it makes namespaces, mounts and devices")
    needed = (*_PROGRAMS, outside.PROGRAM) if network else _PROGRAMS
    if missing := [program for program in needed if shutil.which(program) is None]:
        raise SandboxError(f"the sandbox needs these programs: {', '.join(missing)}")
    if _in_chroot():
        raise SandboxError(
            "this is a chroot: the kernel would run `docker exec` outside of it, on the machine itself; "
            "use a machine, a virtual machine or a container"
        )


def _root_mount(proc: int) -> bytes:
    """Return the number of the mount that is this process's root directory; `proc` is an open /proc."""
    root = os.open("/", os.O_PATH)
    info = os.open(f"{os.getpid()}/fdinfo/{root}", os.O_RDONLY, dir_fd=proc)
    (line,) = (line for line in os.read(info, 4096).splitlines() if line.startswith(b"mnt_id:"))
    os.close(info)
    os.close(root)
    return line


def _in_chroot() -> bool:
    """Whether the root directory is not that of the mount namespace, which is where setns(2) takes a process."""
    proc, namespace = os.open("/proc", os.O_RDONLY), os.open("/proc/self/ns/mnt", os.O_RDONLY)
    before = _root_mount(proc)
    child = os.fork()
    if child == 0:
        failed = ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNS)
        os._exit(2 if failed else before != _root_mount(proc))
    _, status = os.waitpid(child, 0)
    os.close(proc)
    os.close(namespace)
    if os.waitstatus_to_exitcode(status) not in (0, 1):
        raise SandboxError("the mount namespace cannot be entered: is CAP_SYS_ADMIN missing?")
    return bool(status)


def _bind_to_parent() -> None:
    """End with whoever started this, and adopt what process 1 could leave if it is killed."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _make_workspace() -> Path:
    """Make the workspace; in /var/tmp, since /tmp is memory on many machines and layers are large."""
    base = os.path.abspath(os.environ.get("TMPDIR") or "/var/tmp")  # noqa: S108 - mkdtemp makes a private directory there
    return Path(tempfile.mkdtemp(prefix="thin-images-", dir=base))


def _start(command: list[str], *, workspace: Path, cgroup: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start process 1 of the sandbox and wait until it is there.

    Returns
    -------
    tuple
        Its starter, which is in the sandbox's network as well, and the pipe that carries signals and, by its end, our
        own. Process 1 waits for the first byte of the pipe.
    """
    control_reader, control_writer = os.pipe()
    here_reader, here_writer = os.pipe()
    isolated = ["unshare", "--mount", "--net", "--ipc", "--pid", "--fork", "--mount-proc", "--propagation", "private"]
    descriptors = [control_reader, here_writer]
    init = [sys.executable, "-m", "harness.sandbox.init", *map(str, descriptors), str(workspace), cgroup, *command]
    # In a session of its own, so that a Ctrl-C in the terminal comes by the pipe only, and once.
    process = subprocess.Popen([*isolated, "--kill-child", "--", *init], pass_fds=descriptors, start_new_session=True)
    for descriptor in descriptors:
        os.close(descriptor)
    here = os.read(here_reader, 1)
    os.close(here_reader)
    if not here:
        os.close(control_writer)
        raise SandboxError(f"process 1 of the sandbox did not start: status {process.wait()}")
    return process, control_writer


def _run(command: list[str], *, network: bool, workspace: Path, cgroup: str) -> int:
    """Run the command in a new sandbox and return its exit status."""
    process, control = _start(command, workspace=workspace, cgroup=cgroup)
    connection: AbstractContextManager[None] = outside.connected(process.pid) if network else nullcontext()
    try:
        with connection:
            os.write(control, CONNECTED if network else ALONE)
            return _wait(process, control)
    finally:
        os.close(control)
        process.wait()


def _wait(process: subprocess.Popen[bytes], control: int) -> int:
    """Wait for the sandbox's end; pass a signal on, and end everything at the second one or after the grace."""
    received = 0

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal received
        received += 1
        if number == signal.SIGALRM or received > 1:
            process.kill()
            return
        try:
            os.write(control, bytes([number]))
        except BrokenPipeError:
            return
        signal.alarm(_GRACE)

    for number in (*_PASSED_ON, signal.SIGALRM):
        signal.signal(number, handle)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
    code = process.wait()
    return code if code >= 0 else 128 - code


def _wait_for_adopted() -> None:
    """Wait for process 1 of the sandbox where its starter was killed before it."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


def main() -> int:
    """Run the command of the arguments and return its exit status."""
    command = sys.argv[1:]
    network = command[:1] == [_NETWORK_OPTION]
    if network:
        command = command[1:]
    if command[:1] == ["--"]:
        command = command[1:]
    if not command:
        print(f"usage: python -m harness.sandbox [{_NETWORK_OPTION}] -- COMMAND [ARGUMENT...]", file=sys.stderr)
        return 2
    try:
        _check(network=network)
    except SandboxError as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return 1
    _bind_to_parent()
    signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    workspace = _make_workspace()
    # One sandbox inside another keeps its control groups below the other's.
    cgroup = f"{os.environ.get(CGROUP_VARIABLE, '')}/{workspace.name}-{secrets.token_hex(2)}"
    try:
        status = _run(command, network=network, workspace=workspace, cgroup=cgroup)
        _wait_for_adopted()
    except SandboxError as error:
        print(f"sandbox: {error}", file=sys.stderr)
        status = 1
    finally:
        remove_cgroups(cgroup)
        if workspace.exists():
            remove_workspace(workspace)
    return status


if __name__ == "__main__":
    sys.exit(main())
