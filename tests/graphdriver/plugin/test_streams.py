"""Layers as they come and go through the socket: whole, or recognisably not."""

import asyncio
import contextlib
import gzip
import io
import os
import stat
import tarfile
import threading
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from harness.processes import wait_until
from tests.graphdriver.plugin.conftest import Plugin
from tests.support.engine_client import Answer
from tests.support.mounts import mounts_below
from tests.support.tars import END, archive, member


def _tar(**files: str) -> bytes:
    return archive(*(member(name.encode(), content.encode()) for name, content in files.items()))


async def _fill(plugin: Plugin, layer: str, *pieces: bytes, end: bool = True) -> Answer:
    async with plugin.client() as client:
        await client.stream(f"/GraphDriver.ApplyDiff?id={layer}&parent=", *pieces, end=end)
        return await client.answer()


async def _diff(plugin: Plugin, layer: str, parent: str = "") -> Answer:
    async with plugin.client() as client:
        return await client.call("/GraphDriver.Diff", {"ID": layer, "Parent": parent})


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "blocking-work"}


async def _no_threads_left() -> None:
    async def none() -> bool:
        return not _threads()

    await wait_until(none, what="the threads of the streams have ended")


@pytest.fixture
async def base(plugin: Plugin) -> str:
    await plugin.call("Create", ID="base", Parent="")
    return "base"


def _diff_directory(home: Path, layer: str) -> Path:
    return home / "layers" / layer / "diff"


# ApplyDiff


async def test_a_layer_in_chunks_of_any_size(plugin: Plugin, base: str, home: Path) -> None:
    content = _tar(a="alpha", b="x" * 10_000)
    for size in (7, 512, len(content)):
        pieces = [content[start : start + size] for start in range(0, len(content), size)]
        answer = await _fill(plugin, base, *pieces)
        assert (answer.status, answer.document) == (200, {"Size": 10_005, "Err": ""})
        assert (_diff_directory(home, base) / "a").read_text() == "alpha"


async def test_what_follows_the_end_of_the_archive_is_read_too(plugin: Plugin, base: str) -> None:
    """Writers pad to their record size; what is left unread would be taken for the next request."""
    async with plugin.client() as client:
        await client.stream(f"/GraphDriver.ApplyDiff?id={base}&parent=", _tar(a="a"), *([bytes(1 << 20)] * 8))
        assert (await client.answer()).status == 200
        assert (await client.call("/GraphDriver.Exists", {"ID": base})).document == {"Exists": True}


async def test_a_repeated_request_whose_body_is_used_up_fills_nothing(plugin: Plugin, base: str, home: Path) -> None:
    await _fill(plugin, base, _tar(a="a"))
    answer = await _fill(plugin, base)
    assert answer.status >= 400
    assert answer.error
    assert (_diff_directory(home, base) / "a").exists()


@pytest.mark.parametrize("keep", [1, 511, 512, 700, 1025, 5000])
async def test_a_cut_tar_is_refused(plugin: Plugin, base: str, home: Path, keep: int) -> None:
    answer = await _fill(plugin, base, _tar(a="a", b="b" * 9000)[:keep])
    assert answer.status == 500
    assert answer.error
    assert list(_diff_directory(home, base).iterdir()) == []


async def test_a_cut_connection_fills_nothing(plugin: Plugin, base: str, home: Path) -> None:
    whole = _tar(a="a", b="b" * 9000)
    async with plugin.client() as client:
        # Everything but the closing chunk: the archive itself is whole.
        await client.stream(f"/GraphDriver.ApplyDiff?id={base}&parent=", whole, end=False)
    await _no_threads_left()
    # The layer's lock is free again, and nothing has come of the cut one.
    assert list(_diff_directory(home, base).iterdir()) == []
    assert (await _fill(plugin, base, whole)).status == 200


async def test_a_cut_within_a_chunk_fills_nothing(plugin: Plugin, base: str, home: Path) -> None:
    async with plugin.client() as client:
        await client.stream(f"/GraphDriver.ApplyDiff?id={base}&parent=", end=False)
        await client.send(b"%x\r\n" % 9000 + _tar(a="a"))
    await _no_threads_left()
    assert list(_diff_directory(home, base).iterdir()) == []


@pytest.mark.parametrize("cut", [b"", b"%x\r\n" % 9000, b"%x\r\n" % 9000 + bytes(100), b"400\r\n" + bytes(1024)])
async def test_a_broken_body_is_one_line_in_the_log(plugin: Plugin, base: str, cut: bytes) -> None:
    """Somebody has pressed Ctrl-C; there is no fault to trace."""
    with capture_logs() as logs:
        async with plugin.client() as client:
            await client.stream(f"/GraphDriver.ApplyDiff?id={base}&parent=", _tar(a="a"), end=False)
            await client.send(cut)

        async def logged() -> bool:
            return bool(logs)

        await wait_until(logged, what="the cut is logged")
        await _no_threads_left()
    (event,) = logs
    assert (event["log_level"], event["event"], event["layer"]) == ("warning", "body_broken_off", base)
    assert event["reason"]
    assert "exc_info" not in event


@pytest.mark.parametrize("path", ["/GraphDriver.ApplyDiff?id={base}&parent=", "/GraphDriver.Exists"])
@pytest.mark.parametrize("body", [b"none", gzip.compress(b"", mtime=0)[:10] + b"\x07" * 50], ids=["no gzip", "cut"])
async def test_a_body_that_is_not_of_its_encoding_is_the_senders_fault(
    plugin: Plugin, base: str, home: Path, path: str, body: bytes
) -> None:
    with capture_logs() as logs:
        async with plugin.client() as client:
            answer = await client.call(path.format(base=base), body, headers="Content-Encoding: gzip\r\n")
    assert answer.status == 400
    assert "the body of the request cannot be read: 400, message: Can not decode content-encoding: gzip" in answer.error
    assert logs == []
    await _no_threads_left()
    assert list(_diff_directory(home, base).iterdir()) == []


async def test_a_layer_that_is_being_filled_is_removed_at_once(plugin: Plugin, base: str, home: Path) -> None:
    """Its content may never come to an end."""
    async with plugin.client() as client:
        await client.stream(f"/GraphDriver.ApplyDiff?id={base}&parent=", _tar(a="a"), end=False)

        async def begun() -> bool:
            return (_diff_directory(home, base).parent / "incoming").exists()

        await wait_until(begun, what="the layer is being filled")
        await asyncio.wait_for(plugin.call("Remove", ID=base), 120)
        answer = await client.answer()
    assert answer.status == 409
    assert answer.error == f"layer {base} was removed while it was being filled"
    assert (await plugin.call("Exists", ID=base))["Exists"] is False
    await _no_threads_left()


async def test_a_layer_is_read_to_its_end_before_it_is_refused(plugin: Plugin, base: str) -> None:
    """The engine's goroutine that reads a layer outlives a request that is answered early, and may end the engine."""
    evil = member(b"../outside", b"x")
    async with plugin.client() as client:
        path = f"/GraphDriver.ApplyDiff?id={base}&parent="
        with capture_logs() as logs:
            await client.stream(path, evil, *([bytes(1 << 20)] * 50), end=False)
            answered = asyncio.create_task(client.answer())
            # All of it was taken, the closing chunk is missing, and the extraction has ended.
            await _no_threads_left()
            assert (await asyncio.wait({answered}, timeout=0.2))[1], "not yet"
            await client.send(b"0\r\n\r\n")
            answer = await answered
        assert answer.status == 500
        assert "../outside" in answer.error
        assert [event["event"] for event in logs] == ["operation_failed"]
        assert (await client.call("/GraphDriver.Exists", {"ID": base})).document == {"Exists": True}


async def test_why_a_layer_is_refused_is_said_though_its_request_breaks_off(plugin: Plugin, base: str) -> None:
    with capture_logs() as logs:
        async with plugin.client() as client:
            path = f"/GraphDriver.ApplyDiff?id={base}&parent="
            await client.stream(path, member(b"../outside", b"x"), *([bytes(1 << 20)] * 50), end=False)
            await _no_threads_left()

        async def logged() -> bool:
            return bool(logs)

        await wait_until(logged, what="the refusal is logged")
    (event,) = logs
    assert event["event"] == "operation_failed"
    assert "../outside" in event["error"]


async def test_a_hostile_layer_reaches_nothing_outside(plugin: Plugin, base: str, home: Path) -> None:
    content = archive(
        member(b"link", b"", b"2", link=os.fsencode(home / "masks")), member(b"link/inside", b"through the link")
    )
    answer = await _fill(plugin, base, content)
    assert answer.status == 500
    assert "link/inside" in answer.error or "'link'" in answer.error
    assert list((home / "masks").iterdir()) == []


async def test_a_layer_with_everything_comes_back_as_it_went(plugin: Plugin, base: str, home: Path) -> None:
    content = archive(
        member(b"d/", b"", b"5", mode=0o1777, uid=1, gid=2, mtime=1_000_000_000),
        member(b"d/.wh.gone", b""),
        member(b"d/suid", b"x", mode=0o4755),
        member(b"d/hard", b"", b"1", link=b"d/suid"),
        member(b"d/fifo", b"", b"6"),
        member(b"d/device", b"", b"3", major=1, minor=3),
        member(b"o/", b"", b"5"),
        member(b"o/.wh..wh..opq", b""),
        member("ö\udcff".encode(errors="surrogateescape"), b"name"),
    )
    assert (await _fill(plugin, base, content)).status == 200
    place = _diff_directory(home, base)
    assert stat.S_ISCHR((place / "d/gone").lstat().st_mode)
    assert os.getxattr(place / "o", "trusted.overlay.opaque") == b"y"
    answer = await _diff(plugin, base)
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as tar:
        found = {entry.name: entry for entry in tar}
    assert set(found) == {
        "d", "d/.wh.gone", "d/device", "d/fifo", "d/hard", "d/suid", "o", "o/.wh..wh..opq", "ö\udcff",
    }  # fmt: skip
    assert (found["d"].mode, found["d"].uid, found["d"].gid, found["d"].mtime) == (0o1777, 1, 2, 1_000_000_000)
    assert found["d/suid"].linkname == "d/hard"
    assert found["d/hard"].mode == 0o4755
    assert (found["d/device"].devmajor, found["d/device"].devminor) == (1, 3)


# Diff


async def test_a_diff_is_whole(plugin: Plugin, base: str) -> None:
    await _fill(plugin, base, _tar(a="alpha", b="x" * 3_000_000))
    answer = await _diff(plugin, base)
    assert (answer.status, answer.whole) == (200, True)
    assert answer.body.endswith(END)
    with tarfile.open(fileobj=io.BytesIO(answer.body)) as tar:
        assert tar.getnames() == ["a", "b"]


async def test_a_diff_of_nothing_is_an_empty_tar(plugin: Plugin, base: str) -> None:
    answer = await _diff(plugin, base)
    assert (answer.status, answer.whole, answer.body) == (200, True, END)


async def test_a_diff_is_the_same_every_time(plugin: Plugin, base: str) -> None:
    await _fill(plugin, base, _tar(a="alpha", b="x"))
    assert (await _diff(plugin, base)).body == (await _diff(plugin, base)).body


@pytest.mark.parametrize("damage", ["missing", "unfit"])
async def test_a_diff_that_fails_at_once_has_a_status(plugin: Plugin, base: str, home: Path, damage: str) -> None:
    if damage == "missing":
        _diff_directory(home, base).rmdir()
    else:
        (_diff_directory(home, base) / "a").write_text("a")
        (_diff_directory(home, base) / ".wh.not a deletion").touch()
    answer = await _diff(plugin, base)
    assert answer.status == 500
    assert "cannot be read" in answer.error or "cannot hold" in answer.error


async def test_a_diff_that_fails_on_its_way_has_no_end(plugin: Plugin, base: str, home: Path) -> None:
    """More is on the wire than the buffers hold when the file becomes shorter."""
    large = _diff_directory(home, base) / "large"
    large.write_bytes(bytes(64 << 20))
    async with plugin.client() as client:
        request = b'{"ID": "base", "Parent": ""}'
        await client.send(
            b"POST /GraphDriver.Diff HTTP/1.1\r\nHost: plugin.moby.localhost\r\nContent-Length: %d\r\n\r\n%s"
            % (len(request), request)
        )
        status, headers = await client.head()
        assert (status, headers["transfer-encoding"]) == (200, "chunked")
        os.truncate(large, 1 << 20)
        received, end = 0, b""
        with contextlib.suppress(ConnectionError):
            while piece := await asyncio.wait_for(client.reader.read(1 << 20), 120):
                received += len(piece)
                end = (end + piece)[-5:]
    assert 1 << 20 < received < 64 << 20
    assert end != b"0\r\n\r\n"
    await _no_threads_left()
    assert await plugin.call("Exists", ID="base") == {"Exists": True}

    async def ended() -> bool:
        return bool(plugin.counted("Diff"))

    await wait_until(ended, what="the request has ended")
    assert plugin.counted("Diff") == {"failed": 1}


async def test_an_engine_that_goes_away_ends_the_work(plugin: Plugin, base: str, home: Path) -> None:
    with (_diff_directory(home, base) / "large").open("wb") as file:
        file.truncate(1 << 40)
    with capture_logs() as logs:
        async with plugin.client() as client:
            request = b'{"ID": "base", "Parent": ""}'
            await client.send(
                b"POST /GraphDriver.Diff HTTP/1.1\r\nHost: plugin.moby.localhost\r\nContent-Length: %d\r\n\r\n%s"
                % (len(request), request)
            )
            assert (await client.head())[0] == 200
            assert _threads()
        await _no_threads_left()

        # Later than the thread has ended.
        async def ended() -> bool:
            return bool(plugin.counted("Diff"))

        await wait_until(ended, what="the request has ended")
    assert [(event["log_level"], event["event"]) for event in logs] == [("warning", "diff_not_wanted")]
    assert plugin.counted("Diff") == {"cancelled": 1}


async def test_a_commit_feeds_its_diff_into_the_new_layer(plugin: Plugin, base: str, home: Path) -> None:
    """Many at a time: each holds a thread at either end."""
    await _fill(plugin, base, _tar(a="alpha"))

    async def commit(number: int) -> None:
        container, new = f"c{number}", f"new{number}"
        await plugin.call("CreateReadWrite", ID=container, Parent=base)
        directory = (await plugin.call("Get", ID=container, MountLabel=""))["Dir"]
        (Path(directory) / "own").write_text(str(number) * 2_000_000)
        await plugin.call("Create", ID=new, Parent=base)
        async with plugin.client() as source, plugin.client() as target:
            await target.stream(f"/GraphDriver.ApplyDiff?id={new}&parent={base}", end=False)
            diff = await source.call("/GraphDriver.Diff", {"ID": container, "Parent": base})
            assert diff.whole
            for start in range(0, len(diff.body), 1 << 18):
                piece = diff.body[start : start + (1 << 18)]
                await target.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            await target.send(b"0\r\n\r\n")
            assert (await target.answer()).document == {"Size": 2_000_000 * len(str(number)), "Err": ""}
        await plugin.call("Put", ID=container)

    await asyncio.gather(*(commit(number) for number in range(20)))
    for number in range(20):
        assert (_diff_directory(home, f"new{number}") / "own").read_text()[:2] == (str(number) * 2)[:2]
    assert mounts_below(home) == []


async def test_memory_stays_small_with_a_large_layer(plugin: Plugin, base: str) -> None:
    """256 MB through both directions at once leave no more behind than buffers."""
    before = _resident()
    header = member(b"large", b"", size=256 << 20)
    await _fill(plugin, base, header, *([bytes(1 << 20)] * 256), END)
    async with plugin.client() as client:
        request = b'{"ID": "base", "Parent": ""}'
        await client.send(
            b"POST /GraphDriver.Diff HTTP/1.1\r\nHost: plugin.moby.localhost\r\nContent-Length: %d\r\n\r\n%s"
            % (len(request), request)
        )
        await client.head()
        received = 0
        peak = 0
        while received < 256 << 20:
            received += len(await client.reader.read(1 << 20))
            peak = max(peak, _resident())
    assert peak - before < 100 << 20


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
