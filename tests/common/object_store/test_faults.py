import asyncio
import io
import secrets
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from harness.ports import free_ports
from harness.s3 import S3Access, s3_client
from services.common.archive.model import LayerArchive
from services.common.logs import LogLevel, configure_logging
from services.common.object_store.errors import (
    AccessDeniedError,
    ChecksumMismatchError,
    ObjectConflictError,
    ObjectMissingError,
    ObjectStoreError,
    StoreRefusedError,
    StoreUnavailableError,
)
from services.common.object_store.store import ObjectStore
from services.common.repository_name import RepositoryName
from tests.common.object_store.conftest import store_settings
from tests.support.fault_proxy import Answer, Effect, Fault, FaultProxy, cut, damage, stall
from tests.support.layer_files import random_archive

pytestmark = pytest.mark.asyncio(loop_scope="session")

REPOSITORY = RepositoryName("test.cern.ch")
SMALL = 3_000_000
LARGE = (13 << 20) + 5  # three parts
SLOW_DOWN = Answer(503, "SlowDown")


@asynccontextmanager
async def behind_faults(
    access: S3Access, *faults: Fault, **overrides: object
) -> AsyncIterator[tuple[ObjectStore, FaultProxy]]:
    async with (
        FaultProxy.before(access.endpoint, *faults) as proxy,
        ObjectStore(settings=store_settings(replace(access, endpoint=proxy.endpoint), **overrides)) as store,
    ):
        yield store, proxy


async def is_whole(store: ObjectStore, archive: LayerArchive, copy: Path) -> bool:
    """Whether the server itself holds the archive."""
    await store.download(archive.digest, copy)
    return copy.read_bytes() == archive.path.read_bytes()


async def uploads_in_progress(access: S3Access, archive: LayerArchive) -> list[str]:
    async with s3_client(access) as client:
        answer = await client.list_multipart_uploads(Bucket=access.bucket, Prefix=f"sha256/{archive.digest}")
        return [upload["UploadId"] for upload in answer.get("Uploads", ())]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("PUT ", times=3, answer=SLOW_DOWN),
        Fault("PUT ", times=2, answer=Answer(500, "InternalError")),
        Fault("PUT ", times=2, answer=Answer(502, "BadGateway")),
        Fault("PUT ", times=1, answer=Answer(400, "RequestTimeout")),
        Fault("PUT ", times=1, answer=Answer(409, "ConditionalRequestConflict")),
        Fault("PUT ", times=2, request=cut(1_000_000)),
    ],
    ids=["503", "500", "502", "request time-out", "409", "broken"],
)
async def test_an_upload_outlives_transient_failures(
    s3_access: S3Access, store: ObjectStore, tmp_path: Path, fault: Fault
) -> None:
    archive = random_archive(tmp_path / "archive", SMALL)
    times = fault.times

    async with behind_faults(s3_access, replace(fault)) as (faulty, proxy):
        await faulty.upload(archive, repository=REPOSITORY)

    assert proxy.seen("PUT ") == times + 1
    assert await is_whole(store, archive, tmp_path / "copy")


@pytest.mark.parametrize(
    "fault", [Fault("PUT ", request=stall(1_000_000)), Fault("PUT ", response=stall(0))], ids=["stalled", "silent"]
)
async def test_an_upload_outlives_silence(
    s3_access: S3Access, store: ObjectStore, tmp_path: Path, fault: Fault
) -> None:
    archive = random_archive(tmp_path / "archive", SMALL)

    limits = {"connect_timeout": 1, "read_timeout": 1, "minimum_rate": 4 << 20}
    async with behind_faults(s3_access, replace(fault), **limits) as (faulty, proxy):
        await faulty.upload(archive, repository=REPOSITORY)

    # On a busy machine an honest answer may be late as well.
    assert proxy.seen("PUT ") >= 2
    assert await is_whole(store, archive, tmp_path / "copy")


async def test_an_upload_whose_answer_was_lost_is_found_stored(
    s3_access: S3Access, store: ObjectStore, tmp_path: Path
) -> None:
    archive = random_archive(tmp_path / "archive", SMALL)

    async with behind_faults(s3_access, Fault("PUT ", response=cut(100))) as (faulty, proxy):
        await faulty.upload(archive, repository=REPOSITORY)

    assert proxy.seen("PUT ") == 2
    assert await is_whole(store, archive, tmp_path / "copy")


@pytest.mark.parametrize(
    ("matches", "fault"),
    [
        (r"\?uploads", Fault("", times=2, answer=SLOW_DOWN)),
        ("partNumber=2", Fault("", times=2, answer=SLOW_DOWN)),
        ("partNumber=1", Fault("", times=2, request=cut(1_000_000))),
        ("partNumber=3", Fault("", times=1, response=cut(100))),
        ("^POST ", Fault("", times=2, answer=SLOW_DOWN)),
    ],
    ids=["creation", "a part", "a broken part", "a part's answer", "everything"],
)
async def test_an_upload_in_parts_outlives_transient_failures(
    s3_access: S3Access, store: ObjectStore, tmp_path: Path, matches: str, fault: Fault
) -> None:
    archive = random_archive(tmp_path / "archive", LARGE)

    async with behind_faults(s3_access, replace(fault, matches=matches)) as (faulty, proxy):
        assert await faulty.upload(archive, repository=REPOSITORY)

    assert proxy.seen(matches) >= fault.times + 1
    assert await is_whole(store, archive, tmp_path / "copy")
    assert await uploads_in_progress(s3_access, archive) == []


async def test_a_completion_whose_answer_was_lost_is_found_done(
    s3_access: S3Access, store: ObjectStore, tmp_path: Path
) -> None:
    archive = random_archive(tmp_path / "archive", LARGE)

    async with behind_faults(s3_access, Fault("^POST .*uploadId=", response=cut(0))) as (faulty, proxy):
        await faulty.upload(archive, repository=REPOSITORY)

    assert proxy.seen("^POST .*uploadId=") == 2
    assert await is_whole(store, archive, tmp_path / "copy")
    assert await uploads_in_progress(s3_access, archive) == []


async def test_parts_that_share_a_slow_network_get_their_time(
    s3_access: S3Access, store: ObjectStore, tmp_path: Path
) -> None:
    archive = random_archive(tmp_path / "archive", LARGE)

    async def late(position: int, data: bytes) -> bytes:
        await asyncio.sleep(4.2 if position == 0 else 0)
        return data

    # A part alone would have 4 seconds, each time that it is sent; four have 11.5.
    limits = {"minimum_rate": 2 << 20, "connect_timeout": 0.4, "read_timeout": 1.1, "parallel_parts": 4}
    async with behind_faults(s3_access, Fault("partNumber=", times=99, response=late), **limits) as (faulty, proxy):
        assert await faulty.upload(archive, repository=REPOSITORY)

    # A server on a busy machine is silent for longer than it may be, so that a part may be sent again.
    assert proxy.seen("partNumber=") >= 3
    assert await is_whole(store, archive, tmp_path / "copy")


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["whole", "in parts"])
async def test_the_server_finds_damage_on_the_way_up(
    s3_access: S3Access, store: ObjectStore, tmp_path: Path, size: int
) -> None:
    archive = random_archive(tmp_path / "archive", size)

    async with behind_faults(s3_access, Fault("PUT ", request=damage(1_000_000))) as (faulty, _):
        with pytest.raises(ChecksumMismatchError, match="arrived damaged"):
            await faulty.upload(archive, repository=REPOSITORY)

    assert await store.head(archive.digest) is None
    assert await uploads_in_progress(s3_access, archive) == []


async def test_damage_on_the_way_down_is_found(s3_access: S3Access, store: ObjectStore, tmp_path: Path) -> None:
    archive = await stored(store, tmp_path, SMALL)

    async with behind_faults(s3_access, Fault("GET ", response=damage(2_000_000))) as (faulty, _):
        with pytest.raises(ChecksumMismatchError, match="damaged or forged"):
            await faulty.download(archive.digest, tmp_path / "copy")

    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


@pytest.mark.parametrize(
    ("effect", "read_timeout"),
    [(cut(2_000_000), 60), (cut(2_900_000), 60), (stall(1_500_000), 3)],
    ids=["early", "late", "stalled"],
)
async def test_a_broken_download_goes_on_where_it_broke(
    s3_access: S3Access, store: ObjectStore, tmp_path: Path, effect: Effect, read_timeout: int
) -> None:
    archive = await stored(store, tmp_path, SMALL)
    sent = 0

    async def counting(position: int, data: bytes) -> bytes:
        nonlocal sent
        data = await effect(position, data)
        sent += len(data)
        return data

    async def counting_rest(_position: int, data: bytes) -> bytes:
        nonlocal sent
        sent += len(data)
        return data

    faults = Fault("GET ", response=counting), Fault("GET ", response=counting_rest)
    async with behind_faults(s3_access, *faults, read_timeout=read_timeout) as (faulty, proxy):
        await faulty.download(archive.digest, tmp_path / "copy")

    assert (tmp_path / "copy").read_bytes() == archive.path.read_bytes()
    # On a busy machine an honest answer may be late as well, for who waits for a short time only.
    assert proxy.seen("GET ") == 2 or read_timeout == 3
    assert sent < archive.size + 300_000  # what was in flight when it broke, and two heads


async def test_a_download_that_breaks_before_its_first_byte_starts_again(
    s3_access: S3Access, store: ObjectStore, tmp_path: Path
) -> None:
    archive = await stored(store, tmp_path, SMALL)

    async def head_only(_position: int, data: bytes) -> bytes:
        return data[: data.index(b"\r\n\r\n") + 4] if b"\r\n\r\n" in data else await cut(0)(0, data)

    async with behind_faults(s3_access, Fault("GET ", times=2, response=head_only)) as (faulty, proxy):
        await faulty.download(archive.digest, tmp_path / "copy")

    assert proxy.seen("GET ") == 3


async def test_a_download_does_not_mix_an_object_with_its_successor(
    s3_access: S3Access, store: ObjectStore, tmp_path: Path
) -> None:
    archive = await stored(store, tmp_path, SMALL)

    async def overwrite(position: int, data: bytes) -> bytes:
        if position + len(data) > 1_500_000:
            async with s3_client(s3_access) as client:
                await client.put_object(
                    Bucket=s3_access.bucket, Key=f"sha256/{archive.digest}", Body=bytes(archive.size)
                )
            raise ConnectionResetError
        return data

    async with behind_faults(s3_access, Fault("GET ", response=overwrite)) as (faulty, _):
        with pytest.raises(ObjectConflictError, match="was overwritten while it was downloaded"):
            await faulty.download(archive.digest, tmp_path / "copy")


async def test_a_server_that_sends_something_else_than_the_rest_is_refused(
    s3_access: S3Access, store: ObjectStore, tmp_path: Path
) -> None:
    archive = await stored(store, tmp_path, SMALL)

    async def forged(_position: int, data: bytes) -> bytes:
        return data.replace(b"content-range:", b"content-rangX:").replace(b"Content-Range:", b"Content-RangX:")

    faults = Fault("GET ", response=cut(1_500_000)), Fault("GET ", response=forged)
    async with behind_faults(s3_access, *faults) as (faulty, _):
        with pytest.raises(ObjectConflictError, match=f"sent all of it when asked for bytes \\d+-{SMALL - 1}/{SMALL}"):
            await faulty.download(archive.digest, tmp_path / "copy")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(403, "AccessDenied"), AccessDeniedError),
        (Answer(403, "RequestTimeTooSkewed"), AccessDeniedError),
        (Answer(404, "NoSuchKey"), ObjectMissingError),
        (Answer(400, "InvalidArgument"), StoreRefusedError),
        (Answer(501, "NotImplemented"), StoreRefusedError),
    ],
    ids=["403", "clock", "404", "400", "501"],
)
async def test_a_refusal_is_final(
    s3_access: S3Access, tmp_path: Path, answer: Answer, error: type[ObjectStoreError]
) -> None:
    archive = random_archive(tmp_path / "archive", SMALL)
    faults = Fault("GET ", times=9, answer=answer), Fault("PUT ", times=9, answer=answer)

    async with behind_faults(s3_access, *faults) as (faulty, proxy):
        with pytest.raises(error, match=answer.code):
            await faulty.download(archive.digest, tmp_path / "copy")
        with pytest.raises(error, match=answer.code):
            await faulty.upload(archive, repository=REPOSITORY)

    assert len(proxy.requests) == 2


async def test_a_server_that_stays_overloaded_is_given_up(s3_access: S3Access, tmp_path: Path) -> None:
    archive = random_archive(tmp_path / "archive", SMALL)

    async with behind_faults(s3_access, Fault("", times=999, answer=SLOW_DOWN), retry_seconds=3) as (faulty, proxy):
        with pytest.raises(StoreUnavailableError, match=r"overloaded: HTTP 503 SlowDown"):
            await faulty.upload(archive, repository=REPOSITORY)

    assert 2 <= len(proxy.requests) <= 8  # the pauses grow


async def test_an_unreachable_server_is_named(tmp_path: Path) -> None:
    archive = random_archive(tmp_path / "archive", SMALL)
    access = S3Access(f"http://127.0.0.1:{free_ports(1)[0]}", "layers", "key", "hidden-secret")

    async with ObjectStore(settings=store_settings(access, retry_seconds=0.3)) as store:
        for call in (
            store.check(),
            store.upload(archive, repository=REPOSITORY),
            store.download(archive.digest, tmp_path / "copy"),
        ):
            with pytest.raises(StoreUnavailableError, match=f"{access.endpoint}: the connection failed: .*reachable"):
                await call

    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


async def test_a_trickling_transfer_ends_by_its_deadline(
    s3_access: S3Access, store: ObjectStore, tmp_path: Path
) -> None:
    archive = await stored(store, tmp_path, SMALL)

    async def trickle(_position: int, data: bytes) -> bytes:
        await asyncio.sleep(0.2)
        return data

    limits = {"minimum_rate": 10 << 20, "read_timeout": 2, "connect_timeout": 1, "retry_seconds": 0.5}
    async with behind_faults(s3_access, Fault("GET ", times=99, response=trickle), **limits) as (faulty, _):
        with pytest.raises(StoreUnavailableError, match=r"slower than LAYER_STORE_MINIMUM_RATE of 10\.0MiB/s"):
            await faulty.download(archive.digest, tmp_path / "copy")

    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


@pytest.mark.parametrize(
    "matches", [r"\?uploads", "partNumber=2", "^POST .*uploadId="], ids=["creation", "part", "completion"]
)
async def test_a_cancelled_upload_leaves_nothing_behind(s3_access: S3Access, tmp_path: Path, matches: str) -> None:
    archive = random_archive(tmp_path / "archive", LARGE)
    reached = asyncio.Event()

    async def hold(_position: int, data: bytes) -> bytes:
        reached.set()
        await asyncio.sleep(0.3)
        return data

    # The creation of an upload is held when the server has done it, a completion before it gets there.
    fault = Fault(matches, response=hold) if matches == r"\?uploads" else Fault(matches, request=hold)
    async with behind_faults(s3_access, fault) as (faulty, proxy):
        task = asyncio.create_task(faulty.upload(archive, repository=REPOSITORY))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert proxy.seen("DELETE ") == 1
        assert await faulty.head(archive.digest) is None

    assert await uploads_in_progress(s3_access, archive) == []


async def test_a_failed_upload_in_parts_leaves_nothing_behind(s3_access: S3Access, tmp_path: Path) -> None:
    archive = random_archive(tmp_path / "archive", LARGE)

    async with behind_faults(s3_access, Fault("partNumber=2", answer=Answer(403, "AccessDenied"))) as (faulty, _):
        with pytest.raises(AccessDeniedError, match="uploading part 2 of sha256/"):
            await faulty.upload(archive, repository=REPOSITORY)

    assert await uploads_in_progress(s3_access, archive) == []


async def test_a_cancelled_download_leaves_nothing_behind(
    s3_access: S3Access, store: ObjectStore, tmp_path: Path
) -> None:
    archive = await stored(store, tmp_path, SMALL)
    reached = asyncio.Event()

    async def hold(position: int, data: bytes) -> bytes:
        if position > 1_000_000:
            reached.set()
            await asyncio.Event().wait()
        return data

    async with behind_faults(s3_access, Fault("GET ", response=hold)) as (faulty, _):
        task = asyncio.create_task(faulty.download(archive.digest, tmp_path / "copy"))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


async def test_an_archive_cut_off_while_it_is_sent_is_named(s3_access: S3Access, tmp_path: Path) -> None:
    archive = random_archive(tmp_path / "archive", SMALL)

    async def truncate(_position: int, data: bytes) -> bytes:
        with archive.path.open("r+b") as file:
            file.truncate(1000)
        return data

    async with behind_faults(s3_access, Fault("PUT ", request=truncate)) as (faulty, proxy):
        with pytest.raises(OSError, match=f"{archive.path} became shorter"):
            await faulty.upload(archive, repository=REPOSITORY)

    assert proxy.seen("PUT ") <= 2  # aiohttp itself tries an idempotent request twice


@pytest.mark.usefixtures("own_logging")
async def test_neither_logs_nor_errors_show_credentials(s3_access: S3Access, tmp_path: Path) -> None:
    archive = random_archive(tmp_path / "archive", LARGE)
    output = io.StringIO()
    configure_logging(level=LogLevel.DEBUG, stream=output)
    faults = (
        Fault("partNumber=1", answer=SLOW_DOWN),
        Fault("partNumber=2", request=cut(1_000_000)),
        Fault("GET ", response=cut(2_000_000)),
    )

    async with behind_faults(s3_access, *faults) as (faulty, _):
        await faulty.upload(archive, repository=REPOSITORY)
        await faulty.download(archive.digest, tmp_path / "copy")
    wrong = replace(s3_access, secret_key=secrets.token_hex(20))
    async with behind_faults(wrong) as (faulty, _):
        with pytest.raises(AccessDeniedError) as refusal:
            await faulty.upload(archive, repository=REPOSITORY)

    shown = output.getvalue() + "".join(traceback.format_exception(refusal.value))
    assert "stamina.retry_scheduled" in shown
    assert "download interrupted" in shown
    for secret in (s3_access.secret_key, wrong.secret_key, s3_access.access_key):
        assert secret not in shown


async def stored(store: ObjectStore, directory: Path, size: int) -> LayerArchive:
    """Put an archive into the bucket, past the faults."""
    archive = random_archive(directory / "archive", size)
    await store.upload(archive, repository=REPOSITORY)
    return archive
