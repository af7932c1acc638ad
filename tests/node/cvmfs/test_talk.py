"""Clients are asked for the newest revision: by the sockets of the mounts, by the program, by usual sockets."""

import asyncio
import contextlib
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from services.common.repository_name import RepositoryName
from services.node.cvmfs.repository_io import RepositoryIo
from services.node.cvmfs.talk import ClientTalk
from services.node.errors import RepositoryError

NAME = RepositoryName("test.example.org")


@pytest.fixture
def state() -> Iterator[Path]:
    """Directory of the clients' caches, with a path that is short enough for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where a repository is mounted."""
    root = tmp_path / NAME
    root.mkdir()
    return root


@pytest.fixture
def talk(state: Path, io: RepositoryIo) -> ClientTalk:
    return ClientTalk(command="cvmfs_talk-that-is-not-installed", state=state, io=io)


@pytest.fixture
def program(tmp_path: Path, state: Path, io: RepositoryIo) -> ClientTalk:
    """One that has the program, which looks where the machine's configuration says, and finds nothing there."""
    program = tmp_path / "cvmfs_talk"
    program.write_text(
        f"#!/bin/sh\necho $@ >> {tmp_path}/talked\necho Seems like CernVM-FS is not running in {state}/shared\nexit 1\n"
    )
    program.chmod(0o755)
    return ClientTalk(command=str(program), state=state, io=io)


@contextmanager
def _serving(root: Path, workspace: Path, *arguments: str) -> Iterator[int]:
    """Run what serves a mount: a process that works in its workspace, whose number the mount's attribute says."""
    workspace.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(["/bin/sh", "-c", "read line", *arguments], cwd=workspace, stdin=subprocess.PIPE) as client:
        os.setxattr(root, "user.pid", str(client.pid).encode())
        # It has been started when its files are closed, a moment before its arguments show.
        while not Path(f"/proc/{client.pid}/cmdline").read_bytes():
            os.sched_yield()
        try:
            yield client.pid
        finally:
            client.kill()


@asynccontextmanager
async def _client(socket: Path, answer: str, *, directory: Path | None = None) -> AsyncIterator[list[str]]:
    """Answer as a client does: once for a connection, and to what it gets at once.

    A relative path starts in the directory, where a real client works itself.
    """
    asked: list[str] = []

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.read(512)).decode())
        writer.write(answer.encode())
        await writer.drain()
        writer.close()

    with contextlib.ExitStack() as stack:
        if directory is not None:
            stack.enter_context(contextlib.chdir(directory))
        else:
            socket.parent.mkdir(exist_ok=True)
        server = await asyncio.start_unix_server(respond, socket)
    async with server:
        yield asked


@pytest.mark.parametrize("workspace", ["shared", NAME])
async def test_a_client_is_asked_through_its_socket(state: Path, talk: ClientTalk, root: Path, workspace: str) -> None:
    async with _client(state / workspace / f"cvmfs_io.{NAME}", "New revision applied\n") as asked:
        await talk.refresh(NAME, root)
    assert asked == ["remount sync"]


async def test_the_client_of_the_mount_is_asked_wherever_its_cache_is(
    state: Path, program: ClientTalk, root: Path, tmp_path: Path
) -> None:
    """Its path may be longer than that of a socket; and another client of the machine has the same repository."""
    workspace = tmp_path / ("long" * 40) / "shared"
    with _serving(root, workspace):
        async with (
            _client(state / "shared" / f"cvmfs_io.{NAME}", "Catalog up to date\n") as other,
            _client(Path(f"cvmfs_io.{NAME}"), "New revision applied\n", directory=workspace) as asked,
        ):
            await program.refresh(NAME, root)
    assert (asked, other) == (["remount sync"], [])
    assert not (tmp_path / "talked").exists()


@pytest.mark.parametrize(
    ("setting", "below"),
    [
        ("CVMFS_CACHE_BASE={}", "shared"),
        ("CVMFS_CACHE_BASE='{}'  # fast", NAME),
        ("CVMFS_CACHE_DIR={}", "."),
        ('  CVMFS_WORKSPACE="{}"', "."),
    ],
)
async def test_a_client_whose_directory_cannot_be_seen_is_found_by_the_options_of_its_mount(
    state: Path, talk: ClientTalk, root: Path, tmp_path: Path, setting: str, below: str
) -> None:
    configuration = tmp_path / "client.conf"
    configuration.write_text(f"CVMFS_HTTP_PROXY=DIRECT\n#CVMFS_CACHE_BASE=/no\n{setting.format(state / 'own')}\n")
    (state / "own").mkdir()
    options = f"fsname=cvmfs2,config=/etc/cvmfs/default.conf:{configuration},allow_other"
    with _serving(root, tmp_path / "elsewhere", "cvmfs2", "-o", options, NAME, str(root)):
        async with _client(state / "own" / below / f"cvmfs_io.{NAME}", "Catalog up to date\n") as asked:
            await talk.refresh(NAME, root)
    assert asked == ["remount sync"]


async def test_a_client_that_cannot_be_found_is_an_error_that_says_what_to_do(
    state: Path, talk: ClientTalk, root: Path, tmp_path: Path
) -> None:
    with (
        _serving(root, tmp_path / "elsewhere") as pid,
        pytest.raises(RepositoryError, match=rf"process {pid}, cannot be asked.*{state}.*CVMFS_CACHE_BASE.*container"),
    ):
        await talk.refresh(NAME, root)


async def test_a_client_of_another_pid_namespace_is_no_process_here(talk: ClientTalk, root: Path) -> None:
    os.setxattr(root, "user.pid", b"4194304")
    with pytest.raises(RepositoryError, match="process 4194304, cannot be asked"):
        await talk.refresh(NAME, root)


async def test_the_program_is_asked_where_the_mount_says_nothing(
    program: ClientTalk, root: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        RepositoryError,
        match=r"status 1: Seems like CernVM-FS is not running.*sync` finds the client, by CVMFS_",
    ):
        await program.refresh(NAME, root)
    assert (tmp_path / "talked").read_text() == f"-i {NAME} remount sync\n"


async def test_a_repository_without_a_client_has_nobody_to_be_asked(talk: ClientTalk, root: Path) -> None:
    await talk.refresh(NAME, root)
    os.setxattr(root, "user.pid", b"not a number")
    await talk.refresh(NAME, root)


async def test_a_client_that_fails_is_an_error(state: Path, talk: ClientTalk, root: Path) -> None:
    async with _client(state / "shared" / f"cvmfs_io.{NAME}", "Failed (no space)\n"):
        with pytest.raises(RepositoryError, match=r"test\.example\.org: the client says: Failed \(no space\)"):
            await talk.refresh(NAME, root)


async def test_a_client_that_is_gone_is_an_error(state: Path, talk: ClientTalk, root: Path) -> None:
    socket = state / "shared" / f"cvmfs_io.{NAME}"
    async with _client(socket, ""):
        socket.rename(state / "kept")
    (state / "kept").rename(socket)
    with pytest.raises(RepositoryError, match=r"cvmfs_io\.test\.example\.org does not answer: .*Connection refused"):
        await talk.refresh(NAME, root)
