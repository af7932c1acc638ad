"""The spool bounds the disk that archives take, fairly."""

import asyncio
import hashlib
import os
import stat
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.common.digest import Digest
from services.publisher.pipeline.spool import Spool

_DIGEST = Digest(hashlib.sha256(b"content").hexdigest())
_OTHER = Digest(hashlib.sha256(b"other").hexdigest())
_THIRD = Digest(hashlib.sha256(b"third").hexdigest())


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    with ThreadPoolExecutor(1) as threads:
        spool = Spool(directory=tmp_path / "spool", limit=100, threads=threads)
        await spool.clean(keep=())
        yield spool


async def _settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_room_is_given_in_the_order_of_asking(spool: Spool) -> None:
    await spool.reserve(_DIGEST, 60)
    order: list[int] = []

    async def ask(size: int) -> None:
        await spool.reserve(_DIGEST, size)
        order.append(size)

    async with asyncio.TaskGroup() as group:
        group.create_task(ask(70))
        await _settled()
        group.create_task(ask(10))  # would fit, but came later
        await _settled()
        assert order == []
        await spool.release(_DIGEST, 60)
    assert order == [70, 10]
    assert spool.used == 80


async def test_what_is_larger_than_the_spool_holds_up_only_its_like(spool: Spool) -> None:
    await spool.reserve(_OTHER, 60)
    await spool.reserve_all({_DIGEST: 1000, _THIRD: 500})
    second = asyncio.create_task(spool.reserve(_DIGEST, 2000))
    await _settled()
    await spool.reserve(_OTHER, 40)
    assert spool.used == 1600
    await spool.release(_DIGEST, 1000)
    await _settled()
    assert not second.done()  # the first is not out whole
    full = asyncio.create_task(spool.reserve(_OTHER, 1))
    await spool.release(_THIRD, 500)
    await second
    assert not full.done()
    assert spool.used == 2100
    await spool.release(_OTHER, 60)
    await full
    for digest, size in ((_DIGEST, 2000), (_OTHER, 40), (_OTHER, 1)):
        await spool.release(digest, size)
    assert spool.used == 0


async def test_a_large_one_that_gives_up_waiting_keeps_no_large_one_waiting(spool: Spool) -> None:
    await spool.reserve(_DIGEST, 1000)
    waiting = [asyncio.create_task(spool.reserve(_OTHER, size)) for size in (2000, 3000)]
    await _settled()
    waiting[0].cancel()
    await spool.release(_DIGEST, 1000)
    await waiting[1]
    assert spool.used == 3000


async def test_whoever_gives_up_waiting_keeps_nobody_waiting(spool: Spool) -> None:
    await spool.reserve(_DIGEST, 60)
    waiting = [asyncio.create_task(spool.reserve(_DIGEST, size)) for size in (90, 40)]
    await _settled()
    waiting[0].cancel()
    await waiting[1]
    assert spool.used == 100


async def test_room_of_a_failure_is_given_back_with_its_file(spool: Spool) -> None:
    async def fail() -> None:
        async with spool.room(_DIGEST, 50):
            spool.path(_DIGEST).write_bytes(b"content")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert (spool.used, spool.path(_DIGEST).exists()) == (0, False)
    async with spool.room(_DIGEST, 50):
        pass
    assert spool.used == 50


async def test_only_verified_archives_survive_a_restart(spool: Spool, tmp_path: Path) -> None:
    spool.path(_DIGEST).write_bytes(b"content")
    spool.path(_OTHER).write_bytes(b"other")
    (tmp_path / "spool" / f".{_DIGEST}.part").touch()
    await spool.clean(keep=(_DIGEST,))
    assert os.listdir(tmp_path / "spool") == [_DIGEST]


async def test_what_nobody_will_come_for_any_more_goes(spool: Spool) -> None:
    for digest in (_DIGEST, _OTHER, _THIRD):
        spool.path(digest).write_bytes(b"content")
    await spool.clean(keep=(_DIGEST, _OTHER, _THIRD))
    await spool.reserve(_OTHER, 5)  # somebody has
    await spool.drop_left(keep=(_THIRD,))
    assert [spool.path(digest).exists() for digest in (_DIGEST, _OTHER, _THIRD)] == [False, True, True]
    assert spool.has_left
    await spool.drop_left(keep=())
    assert (spool.path(_THIRD).exists(), spool.has_left) == (False, False)


async def test_an_archive_counts_only_while_it_is_what_it_was(spool: Spool) -> None:
    assert not await spool.holds(_DIGEST)
    spool.path(_DIGEST).write_bytes(b"content")
    assert await spool.holds(_DIGEST)
    spool.path(_DIGEST).write_bytes(b"changed")
    assert not await spool.holds(_DIGEST)


async def test_nobody_else_can_read_it(spool: Spool, tmp_path: Path) -> None:
    del spool
    assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o700


async def test_an_archive_that_a_new_attempt_wants_is_kept(spool: Spool) -> None:
    await spool.reserve(_DIGEST, 10)
    spool.path(_DIGEST).write_bytes(b"content")
    await spool.reserve(_DIGEST, 10)
    await spool.release(_DIGEST, 10)
    assert await spool.holds(_DIGEST)
    assert spool.used == 10
    await spool.release(_DIGEST, 10)
    assert not spool.path(_DIGEST).exists()
    assert spool.used == 0
