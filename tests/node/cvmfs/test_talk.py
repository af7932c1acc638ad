"""Clients are asked for the newest revision through their sockets, where there is no program for it."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.common.repository_name import RepositoryName
from services.node.cvmfs.talk import ClientTalk
from services.node.errors import RepositoryError

NAME = RepositoryName("test.example.org")


@pytest.fixture
def state() -> Iterator[Path]:
    """Directory of the clients' caches, with a path that is short enough for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture
def talk(state: Path) -> ClientTalk:
    return ClientTalk(command="cvmfs_talk-that-is-not-installed", state=state)


@asynccontextmanager
async def _client(socket: Path, answer: str) -> AsyncIterator[list[str]]:
    """Answer as a client does: once for a connection, and to what it gets at once."""
    asked: list[str] = []

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.read(512)).decode())
        writer.write(answer.encode())
        await writer.drain()
        writer.close()

    socket.parent.mkdir(exist_ok=True)
    async with await asyncio.start_unix_server(respond, socket):
        yield asked


@pytest.mark.parametrize("workspace", ["shared", NAME])
async def test_a_client_is_asked_through_its_socket(state: Path, talk: ClientTalk, workspace: str) -> None:
    assert not talk.reaches(NAME)
    async with _client(state / workspace / f"cvmfs_io.{NAME}", "New revision applied\n") as asked:
        assert talk.reaches(NAME)
        await talk.refresh(NAME)
    assert asked == ["remount sync"]


async def test_a_client_that_fails_is_an_error(state: Path, talk: ClientTalk) -> None:
    async with _client(state / "shared" / f"cvmfs_io.{NAME}", "Failed (no space)\n"):
        with pytest.raises(RepositoryError, match=r"test\.example\.org: the client says: Failed \(no space\)"):
            await talk.refresh(NAME)


async def test_a_client_that_is_gone_is_an_error(state: Path, talk: ClientTalk) -> None:
    socket = state / "shared" / f"cvmfs_io.{NAME}"
    async with _client(socket, ""):
        socket.rename(state / "kept")
    (state / "kept").rename(socket)
    with pytest.raises(RepositoryError, match=r"cvmfs_io\.test\.example\.org does not answer: .*Connection refused"):
        await talk.refresh(NAME)
