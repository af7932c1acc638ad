"""The private Docker Engine behaves as a real machine's when dockerd is stopped, killed and started again."""

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.commands import CommandError
from harness.engine import Engine
from harness.sandbox import Sandbox
from tests.support.e2e import BASE, write_base
from tests.support.processes import command_lines


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small root file system."""
    path = tmp_path_factory.mktemp("rootfs") / "rootfs.tar"
    write_base(path)
    return path


@pytest.fixture
async def engine(tmp_path: Path, rootfs: Path) -> AsyncIterator[Engine]:
    engine = Engine(name="trial", directory=tmp_path / "trial")
    await engine.start()
    try:
        await engine.docker("import", rootfs, BASE)
        yield engine
    finally:
        await engine.close()


async def _run_sleeper(engine: Engine, name: str, *options: str) -> int:
    common = ("--detach", "--network=none", "--stop-timeout=1", f"--name={name}", *options)
    await engine.docker("run", *common, BASE, "sleep", "600")
    return int((await engine.docker("inspect", "--format={{.State.Pid}}", name)).text)


async def test_containers_survive_a_killed_dockerd_and_are_found_again(engine: Engine) -> None:
    pid = await _run_sleeper(engine, "sleeper", "--restart=always")
    await engine.kill()
    assert Path(f"/proc/{pid}").exists()
    await engine.start()
    # dockerd without live-restore ends the container of its predecessor and starts it again.
    assert not Path(f"/proc/{pid}").exists()
    assert (await engine.docker("ps", "--format={{.Names}}")).text == "sleeper"


async def test_a_killed_containerd_is_started_again(engine: Engine) -> None:
    await _run_sleeper(engine, "sleeper")
    await engine.kill()
    await engine.containerd.kill()
    await engine.start()
    await engine.docker("start", "sleeper")
    assert (await engine.docker("exec", "sleeper", "cat", "/etc/debian_version")).text


async def test_close_leaves_no_process_or_mount(engine: Engine, tmp_path: Path) -> None:
    pid = await _run_sleeper(engine, "sleeper")
    await engine.kill()
    await engine.close()
    assert not Path(f"/proc/{pid}").exists()
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert "br-trial" not in [name for _, name in socket.if_nameindex()]
    assert b"engine-trial" not in b"".join(command_lines().values())


async def test_containers_run_in_the_control_groups_of_the_sandbox(engine: Engine) -> None:
    pid = await _run_sleeper(engine, "sleeper")
    groups = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    # Version 2 has one hierarchy without controllers; where it is beside version 1, Docker does not use it.
    used = [path for _, controllers, path in groups if controllers or len(groups) == 1]
    assert used
    assert [path for path in used if not path.startswith(Sandbox.current().cgroup)] == []


async def test_a_failed_command_says_what_docker_said(engine: Engine) -> None:
    with pytest.raises(CommandError, match=r"docker run nothing:1: exit status 125\n.*nothing:1") as caught:
        await engine.docker("run", "nothing:1")
    assert caught.value.completed.returncode == 125


async def test_a_command_that_hangs_is_ended(engine: Engine) -> None:
    with pytest.raises(CommandError, match=r"docker events: not done within 0\.2 s"):
        await engine.docker("events", timeout=0.2)


async def test_the_machines_configuration_is_not_used(engine: Engine) -> None:
    assert engine.docker_env.keys() == {"DOCKER_HOST", "DOCKER_CONFIG"}
    info = (await engine.docker("info", "--format={{.Driver}} {{.DockerRootDir}} {{.CgroupDriver}}")).text
    assert info == f"overlay2 {engine.data_root} cgroupfs"
