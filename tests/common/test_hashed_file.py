import asyncio
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from aiofiles.threadpool.binary import AsyncFileIO

from services.common.hashed_file import HashedFile
from services.common.threads import to_end


def test_what_was_left_is_gone_on_with(tmp_path: Path) -> None:
    hidden, destination = tmp_path / ".hidden", tmp_path / "file"
    hidden.write_bytes(b"left")
    with HashedFile(hidden, "r+b") as file:
        file.take_over()
        file.writelines((b" and", memoryview(b" added"), b""))
        file.publish(destination)
        assert (file.size, file.digest) == (14, hashlib.sha256(b"left and added").hexdigest())
    assert destination.read_bytes() == b"left and added"
    assert not hidden.exists()


def test_nothing_stays_of_what_is_started_over(tmp_path: Path) -> None:
    with HashedFile(tmp_path / "file", "x+b") as file:
        file.write(b"wrong and long")
        file.start_over()
        file.write(b"right")
    assert (file.size, file.digest) == (5, hashlib.sha256(b"right").hexdigest())
    assert (tmp_path / "file").read_bytes() == b"right"


def test_an_error_names_the_file() -> None:
    full = Path("/dev/full")
    with HashedFile(full, "wb") as file, pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        file.write(b"x")


async def test_what_is_written_through_aiofiles_is_hashed_whole(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as threads, HashedFile(tmp_path / "file", "xb") as file:
        writer = AsyncFileIO(file, None, threads)
        await to_end(writer.writelines((b"one", b" two")))
        await to_end(writer.write(b" three"))
    assert (file.size, file.digest) == (13, hashlib.sha256(b"one two three").hexdigest())
    assert (tmp_path / "file").read_bytes() == b"one two three"


async def test_a_cancelled_writer_does_not_close_the_file_while_it_is_written(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    content = os.urandom(1 << 20)  # a pipe holds less, so that the thread waits in the middle
    files: list[HashedFile] = []

    async def write(threads: ThreadPoolExecutor) -> None:
        with HashedFile(pipe, "wb") as file:
            files.append(file)
            await to_end(AsyncFileIO(file, None, threads).writelines((content, b"end")))

    async def read() -> bytes:
        arrived = asyncio.Event()
        asyncio.get_running_loop().add_reader(reader, arrived.set)
        await arrived.wait()
        asyncio.get_running_loop().remove_reader(reader)
        return os.read(reader, len(content))

    try:
        with ThreadPoolExecutor(1) as threads:
            task = asyncio.create_task(write(threads))
            received = await read()
            for _ in range(3):  # however often it is cancelled
                task.cancel()
                await asyncio.wait((task,), timeout=0.02)
                assert not task.done()
            (file,) = files
            assert not file.closed
            while len(received) < len(content) + 3:
                received += await read()
            with pytest.raises(asyncio.CancelledError):
                await task
    finally:
        os.close(reader)
    assert file.closed
    assert received == content + b"end"
