"""The sandbox leaves nothing behind, however it ends. Each test starts one inside the one that the tests run in."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.sandbox import CGROUP_VARIABLE, Sandbox, SandboxError
from harness.sandbox.traces import CGROUP_ROOT
from tests.support.processes import command_lines

_ROOT = Path(__file__).parents[2]

_LINGER = """
import json, os, pathlib, signal, subprocess, sys, time
workspace, cgroup = os.environ["HARNESS_WORKSPACE"], os.environ["HARNESS_CGROUP"]
pathlib.Path(workspace, "mounted").mkdir()
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", workspace + "/mounted"], check=True)
roots = [pathlib.Path("/sys/fs/cgroup"), *pathlib.Path("/sys/fs/cgroup").glob("*/")]
root = next(root for root in reversed(roots) if (root / "cgroup.procs").exists())
group = pathlib.Path(str(root) + cgroup, "inner")
group.mkdir(parents=True)
stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", stubborn, "MARK"], start_new_session=True)
(group / "cgroup.procs").write_text(str(child.pid))
print(json.dumps({"workspace": workspace, "group": str(group)}), flush=True)
"""
"""Makes one of everything that could be left: a mount, a control group, a process that does not want to end."""

_INTERRUPTIBLE = """
import signal, sys
def end(*_):
    print("interrupted", flush=True)
    sys.exit(5)
signal.signal(signal.SIGINT, end)
"""


class _Run:
    """A sandbox that has made its things."""

    def __init__(self, script: str, mark: str, temporary: Path) -> None:
        self.mark = mark.encode()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "harness.sandbox", "--", sys.executable, "-c", script.replace("MARK", mark)],
            cwd=_ROOT,
            env={**os.environ, "TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read() if self.process.stderr else ""
        made = json.loads(line)
        self.workspace, self.group = Path(made["workspace"]), Path(made["group"])
        assert self.workspace.is_dir()
        assert self.group.is_dir()

    def left(self) -> list[str]:
        """Name what is still there."""
        found = [str(path) for path in (self.workspace, self.group, self.group.parent) if path.exists()]
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if self.mark in entry.read_bytes().split(b"\0"):
                    found.append(str(entry))
            except OSError:
                continue
        return found


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], _Run]]:
    runs: list[_Run] = []

    def start_one(script: str) -> _Run:
        runs.append(_Run(script, f"mark-{os.getpid()}-{time.monotonic_ns()}", tmp_path))
        return runs[-1]

    yield start_one
    for run in runs:
        run.process.kill()
        run.process.communicate()


def _wait_for_nothing(run: _Run) -> None:
    deadline = time.monotonic() + 120
    while run.left():
        assert time.monotonic() < deadline, run.left()
        time.sleep(0.02)


def test_nothing_is_left_when_the_command_ends(start: Callable[[str], _Run]) -> None:
    run = start(_LINGER + "sys.exit(3)")
    assert run.process.wait(120) == 3
    assert run.left() == []


def test_nothing_is_left_when_the_command_dies_of_a_signal(start: Callable[[str], _Run]) -> None:
    run = start(_LINGER + "os.kill(os.getpid(), signal.SIGKILL)")
    assert run.process.wait(120) == 128 + signal.SIGKILL
    assert run.left() == []


def test_an_interrupt_reaches_the_command_once(start: Callable[[str], _Run]) -> None:
    run = start(_INTERRUPTIBLE + _LINGER + "time.sleep(600)")
    run.process.send_signal(signal.SIGINT)
    output, errors = run.process.communicate(timeout=120)
    assert (output, errors, run.process.returncode) == ("interrupted\n", "", 5)
    assert run.left() == []


def test_an_interrupt_ends_what_was_started_in_the_background(tmp_path: Path) -> None:
    """A shell has what it starts so ignore interrupts."""
    command = [sys.executable, "-m", "harness.sandbox", "--", "sh", "-c", "echo here; exec sleep 600"]
    with subprocess.Popen(
        ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command],
        cwd=_ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 128 + signal.SIGINT


def test_sigterm_ends_everything(start: Callable[[str], _Run]) -> None:
    run = start(_LINGER + "time.sleep(600)")
    run.process.terminate()
    assert run.process.wait(120) == 128 + signal.SIGTERM
    assert run.left() == []


def test_a_second_signal_ends_a_command_that_ignores_the_first(start: Callable[[str], _Run]) -> None:
    run = start(_LINGER + "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)")
    assert run.process.stdout is not None
    assert run.process.stdout.readline() == "deaf\n"
    run.process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        run.process.wait(0.3)
    run.process.terminate()
    assert run.process.wait(120) == 128 + signal.SIGKILL
    assert run.left() == []


def test_nothing_is_left_when_the_starter_is_killed(start: Callable[[str], _Run]) -> None:
    run = start(_LINGER + "time.sleep(600)")
    run.process.kill()
    run.process.wait(120)
    _wait_for_nothing(run)


def test_nothing_is_left_when_the_starters_parent_is_killed(tmp_path: Path) -> None:
    # What make is to the sandbox: a parent that takes no child along when it is killed.
    inner = [sys.executable, "-m", "harness.sandbox", "--", sys.executable, "-c", _LINGER + "time.sleep(600)"]
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess; subprocess.run({inner!r})"],
        cwd=_ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        made = json.loads(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 120
    while Path(made["workspace"]).exists() or Path(made["group"]).exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_nothing_is_left_when_process_1_is_killed(start: Callable[[str], _Run]) -> None:
    run = start(_LINGER + "time.sleep(600)")
    (unshare,) = Path(f"/proc/{run.process.pid}/task/{run.process.pid}/children").read_text().split()
    (init,) = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()
    os.kill(int(init), signal.SIGKILL)
    assert run.process.wait(120) == 128 + signal.SIGKILL
    assert run.left() == []


def test_the_machines_daemons_are_out_of_reach(tmp_path: Path) -> None:
    script = (
        "import json, os, pathlib; print(json.dumps({"
        "'docker': os.environ.get('DOCKER_HOST'),"
        "'run': sorted(map(str, pathlib.Path('/run').rglob('*'))),"
        "'network': [line.split(':')[0].strip() for line in open('/proc/self/net/dev') if ':' in line],"
        "'processes': sorted(int(name) for name in os.listdir('/proc') if name.isdigit())}))"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "harness.sandbox", "--", sys.executable, "-c", script],
        cwd=_ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path), "DOCKER_HOST": "unix:///run/machine.sock"},
        capture_output=True,
        text=True,
        check=True,
    )
    seen = json.loads(ended.stdout)
    assert seen["docker"] is None
    # What systemd-resolved keeps is brought back for daemons that read /etc/resolv.conf.
    kept = [path for path in seen["run"] if not path.startswith("/run/systemd")]
    assert kept == ["/run/docker", "/run/docker/plugins", "/run/lock"]
    assert seen["network"] == ["lo"]
    assert seen["processes"][0] == 1
    assert len(seen["processes"]) == 2


def test_devices_can_be_used_and_not_be_replaced(tmp_path: Path) -> None:
    script = (
        "import pathlib, tempfile; pathlib.Path('/dev/null').write_bytes(b'x'); tempfile.TemporaryFile(dir='/dev/shm');"
        "pathlib.Path('/dev/thin-images-test').touch()"
    )
    ended = subprocess.run(
        [sys.executable, "-m", "harness.sandbox", "--", sys.executable, "-c", script],
        cwd=_ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "Read-only file system: '/dev/thin-images-test'" in ended.stderr


def test_a_program_is_started_in_a_control_group_of_every_hierarchy() -> None:
    cgroup = f"{Sandbox.current().cgroup}/trial/services"
    program = [sys.executable, "-m", "harness.sandbox.cgroup", cgroup, "cat", "/proc/self/cgroup"]
    lines = subprocess.run(program, cwd=_ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    # Without controllers beside those of version 1, the hierarchy of version 2 is not there in the sandbox.
    hybrid = [line for line in lines if len(lines) > 1 and line.startswith("0::")]
    assert [line.rpartition(":")[2] for line in lines if line not in hybrid] == [cgroup] * (len(lines) - len(hybrid))
    assert not (CGROUP_ROOT / "unified").is_mount()


def test_a_command_that_does_not_exist_is_named(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "harness.sandbox", "--", "no-such-program"],
        cwd=_ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (127, "sandbox: no-such-program: No such file or directory\n")
    assert list(tmp_path.iterdir()) == []


def test_private_daemons_are_refused_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CGROUP_VARIABLE)
    with pytest.raises(SandboxError, match="in a sandbox only"):
        Sandbox.current()


@pytest.mark.parametrize("behind", ["/run/systemd/resolve/stub-resolv.conf", "/run/resolv.conf"])
def test_a_resolver_configuration_in_run_is_kept(tmp_path: Path, behind: str) -> None:
    for name in ("upper", "work", "inner"):
        (tmp_path / name).mkdir()
    script = f"""
        mount -t overlay -o lowerdir=/etc,upperdir=upper,workdir=work overlay /etc &&
        mount -t tmpfs tmpfs /run && mkdir -p {Path(behind).parent} && echo 'nameserver 192.0.2.1' >{behind} &&
        ln -sf {behind} /etc/resolv.conf && cd {_ROOT} &&
        exec {sys.executable} -m harness.sandbox -- cat /etc/resolv.conf
    """
    ended = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path / "inner")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.stdout, ended.stderr) == ("nameserver 192.0.2.1\n", "")


_CONNECTED = """
import json, os, pathlib, socket
with socket.create_connection(("198.51.100.7", PORT), timeout=120) as connection:
    said = connection.recv(100).decode()
outside = [line.split()[2] for line in open("/proc/self/net/route") if line.split()[1] == "00000000"]
print(json.dumps({
    "network": [line.split(":")[0].strip() for line in open("/proc/self/net/dev") if ":" in line],
    "said": said,
    "gateways": outside,
    "resolver": pathlib.Path("/etc/resolv.conf").read_text(),
}))
"""


def _slirps() -> set[str]:
    return {str(process) for process, line in command_lines().items() if b"slirp4netns" in line.split(b"\0")[0]}


def _in_network(script: str, temporary: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "harness.sandbox", "--network", "--", sys.executable, "-c", script],
        cwd=_ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_sandbox_with_a_network_has_a_way_out_and_a_name_server(tmp_path: Path) -> None:
    before, resolver = _slirps(), Path("/etc/resolv.conf").read_text()
    subprocess.run(["ip", "address", "add", "198.51.100.7/32", "dev", "lo"], check=True)
    try:
        with socket.create_server(("198.51.100.7", 0)) as listener:
            process = _in_network(_CONNECTED.replace("PORT", str(listener.getsockname()[1])), tmp_path)
            listener.settimeout(120)
            with listener.accept()[0] as connection:
                connection.sendall(b"outside")
            output, errors = process.communicate(timeout=120)
    finally:
        subprocess.run(["ip", "address", "delete", "198.51.100.7/32", "dev", "lo"], check=True)
    assert (errors, process.returncode) == ("", 0)
    assert json.loads(output) == {
        "network": ["lo", "outside0"],
        "said": "outside",
        "gateways": ["0202000A"],  # 10.0.2.2, in the order of this processor's bytes
        "resolver": "nameserver 10.0.2.3\n",
    }
    assert (_slirps(), Path("/etc/resolv.conf").read_text()) == (before, resolver)
    assert list(tmp_path.iterdir()) == []


def test_the_loopback_interface_of_the_machine_is_out_of_reach_by_the_network(tmp_path: Path) -> None:
    script = "import socket; socket.create_connection(('10.0.2.2', PORT), timeout=10)"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        _, errors = (process := _in_network(script.replace("PORT", str(port)), tmp_path)).communicate(timeout=120)
    assert process.returncode == 1
    assert "ConnectionRefusedError" in errors or "Network is unreachable" in errors


def test_the_network_ends_with_a_killed_starter(tmp_path: Path) -> None:
    before = _slirps()
    process = _in_network("print('here', flush=True); import time; time.sleep(600)", tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    assert len(_slirps() - before) == 1
    process.kill()
    process.communicate(timeout=120)
    deadline = time.monotonic() + 120
    while _slirps() - before or list(tmp_path.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("other", ["bind", "tmpfs"])
def test_a_chroot_is_refused(tmp_path: Path, other: str) -> None:
    # There `docker exec` leaves the chroot, since setns(2) goes to the namespace's root: it would change the machine.
    mounts = {
        "bind": "mount --rbind / root",
        "tmpfs": " && ".join(
            ["mount -t tmpfs tmpfs root"]
            + [f"mkdir -p root{place} && mount --rbind {place} root{place}" for place in ("/usr", "/proc", "/dev")]
            + [f"mkdir -p root{place} && mount --rbind {place} root{place}" for place in (sys.base_prefix, str(_ROOT))]
            + ["ln -s usr/bin root/bin && ln -s usr/lib root/lib && ln -s usr/lib64 root/lib64"]
        ),
    }
    (tmp_path / "root").mkdir()
    script = (
        f"{mounts[other]} && exec chroot root sh -c 'cd {_ROOT} && exec {sys.executable} -m harness.sandbox -- true'"
    )
    ended = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("sandbox: this is a chroot: the kernel would run `docker exec` outside of it")
