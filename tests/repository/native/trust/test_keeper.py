"""The whitelist is signed anew before it expires, by a clock that runs as quickly as a test."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.repository.native.records import WHITELIST, HashAlgorithm
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.trust.errors import WhitelistError
from services.repository.native.trust.keeper import WhitelistKeeper
from services.repository.native.trust.keyring import KeyFiles
from services.repository.native.trust.renewal import WhitelistFile
from services.repository.native.trust.whitelist import Whitelist
from tests.repository.native.conftest import NAME

START = datetime(2026, 11, 24, 6, tzinfo=UTC)
DAY = timedelta(days=1)


class World:
    """A whitelist, its keeper, and the time."""

    def __init__(self, root: Path, keys: KeyFiles, threads: ThreadPoolExecutor) -> None:
        self.now = START
        self.end = START
        self.leads = True
        self.keys = keys
        self.storage = DirectoryStorage(root)
        self.storage.prepare()
        self.file = WhitelistFile(
            name=NAME, storage=self.storage, keys=keys, algorithm=HashAlgorithm.SHA1, clock=self.clock
        )
        self.keeper = WhitelistKeeper(
            whitelist=self.file,
            threads=threads,
            leads=lambda: self.leads,
            interval=40_000,
            sleep=self.sleep,
            clock=self.clock,
        )
        self.file.renew()

    def clock(self) -> float:
        return self.now.timestamp()

    async def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        if self.now >= self.end:
            raise asyncio.CancelledError
        await self.keeper.check()
        assert self.keeper.warning() is None

    def read(self) -> Whitelist:
        return Whitelist.verify(self.storage.read(WHITELIST), self.keys.load().public)


@pytest.fixture
def world(tmp_path: Path, keys: KeyFiles) -> Iterator[World]:
    with ThreadPoolExecutor(1) as threads:
        yield World(tmp_path / "repository", keys, threads)


async def test_clients_never_see_an_expired_one(world: World) -> None:
    world.end = START + 45 * DAY
    with pytest.raises(asyncio.CancelledError):
        await world.keeper.run()
    whitelist = world.read()
    assert START + 40 * DAY < whitelist.issued < START + 42 * DAY


async def test_one_that_has_expired_meanwhile_is_signed_anew_at_once(world: World) -> None:
    world.now += 100 * DAY
    await world.keeper.look()
    await world.keeper.check()
    assert world.read().issued == world.now
    assert world.keeper.until == world.read().expires.timestamp()


async def test_a_publisher_that_stands_by_knows_and_signs_nothing(world: World) -> None:
    world.leads = False
    world.now += 25 * DAY
    await world.keeper.look()
    assert world.read().issued == START
    assert world.keeper.until == world.read().expires.timestamp()
    world.leads = True
    await world.keeper.look()
    assert world.read().issued == world.now


async def test_without_the_master_key_everybody_is_told_in_time(world: World) -> None:
    world.keys.master.unlink()
    world.now += 19 * DAY
    await world.keeper.look()
    assert world.keeper.warning() is None
    world.now += 2 * DAY
    await world.keeper.look()
    assert world.keeper.warning() == (
        "clients refuse the repository in 9.0 days: the master key is not here: sign a whitelist where it is, and "
        "install it with thin-repository resign"
    )
    await world.keeper.check()  # until then it works
    world.now += 9 * DAY
    with pytest.raises(WhitelistError, match=r"has expired: clients refuse the repository in 0\.0 days"):
        await world.keeper.check()


async def test_a_whitelist_that_cannot_be_signed_is_tried_again(world: World) -> None:
    mode = world.keys.master.stat().st_mode
    world.keys.master.chmod(0o444)
    world.now += 15 * DAY
    await world.keeper.look()
    assert "chmod 0400" in (world.keeper.warning() or "")
    await asyncio.to_thread(world.keys.master.chmod, mode)
    await world.keeper.look()
    assert world.keeper.warning() is None
    assert world.read().issued == world.now


async def test_a_whitelist_that_is_no_good_from_the_start_is_no_readiness(world: World) -> None:
    world.storage.replace(WHITELIST, b"nonsense")
    await world.keeper.look()
    with pytest.raises(WhitelistError, match="not a text"):
        await world.keeper.check()
