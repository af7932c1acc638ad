"""A file that is read while it arrives."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.common.arriving_file import ArrivalFailedError, ArrivingFile
from services.common.work_threads import begin_in_thread


@pytest.fixture
def file(tmp_path: Path) -> Iterator[ArrivingFile]:
    with ArrivingFile(tmp_path / "file") as file:
        yield file


def read_all(file: ArrivingFile, seen: threading.Event | None = None) -> bytes:
    reader, buffer, content = file.reader(), memoryview(bytearray(5)), b""
    while count := reader.readinto(buffer):
        content += buffer[:count]
        if seen is not None:
            seen.set()
    return content


async def test_what_has_arrived_is_read_before_the_rest_is_there(file: ArrivingFile) -> None:
    seen = threading.Event()
    reading = begin_in_thread(lambda: read_all(file, seen))
    file.write(b"first ")
    await asyncio.to_thread(seen.wait)
    assert not reading.done()
    file.writelines([b"second", b"", bytearray(b" third")])
    assert file.size == 18
    file.complete()
    assert await reading == b"first second third"
    assert file.path.read_bytes() == b"first second third"


async def test_it_can_be_read_again_and_by_several(file: ArrivingFile) -> None:
    reading = [begin_in_thread(lambda: read_all(file)) for _ in range(3)]
    for number in range(100):
        file.write(b"%02d" % number)
    file.complete()
    expected = b"".join(b"%02d" % number for number in range(100))
    assert [await each for each in reading] == [expected] * 3
    assert read_all(file) == expected


async def test_a_reader_that_waits_ends_with_what_the_writer_met(file: ArrivingFile) -> None:
    file.write(b"some")
    seen = threading.Event()
    reading = begin_in_thread(lambda: read_all(file, seen))
    await asyncio.to_thread(seen.wait)
    cause = ConnectionResetError("gone")
    file.fail(cause)
    with pytest.raises(ArrivalFailedError, match="the rest does not come: gone") as caught:
        await reading
    assert caught.value.cause is cause
    with pytest.raises(ArrivalFailedError):
        read_all(file)


def test_nothing_is_a_whole_file(file: ArrivingFile) -> None:
    file.complete()
    assert read_all(file) == b""


def test_no_file_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"x")
    with pytest.raises(FileExistsError):
        ArrivingFile(tmp_path / "there")


def test_a_disk_that_is_full_is_named(file: ArrivingFile, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        descriptor = full.fileno()
        monkeypatch.setattr(ArrivingFile, "fileno", lambda _: descriptor)
        with pytest.raises(OSError, match=f"No space left on device: '{file.path}'"):
            file.write(b"x")
