"""Layers that are prepared while their archives arrive: in a repository of each kind that reads them by itself."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from harness.processes import wait_until
from services.common.archive.model import LayerArchive
from services.common.arriving_file import ArrivingFile
from services.common.digest import Digest
from services.common.layout import LayerLayout
from services.common.repository_name import RepositoryName
from services.publisher.pipeline.arrivals import Arrivals
from services.publisher.pipeline.spool import Spool
from services.registry.errors import RegistryUnavailableError
from services.repository.directory.repository import DirectoryRepository
from services.repository.errors import LayerRefusedError
from services.repository.interface import Repository
from services.repository.layer import VerifiedLayer
from services.repository.native.trust.keyring import KeyFiles
from tests.support.native import NATIVE_NAME, NativeSite
from tests.support.publisher import make_layer, verified

PIECE = 1 << 16
Receive = Callable[[ArrivingFile], Awaitable[None]]


class Place:
    """A spool, a repository, and what brings them together."""

    def __init__(self, directory: Path, repository: Repository, threads: ThreadPoolExecutor) -> None:
        self.directory = directory
        self.repository = repository
        self.spool = Spool(directory=directory / "spool", limit=1 << 30, threads=threads)
        self.arrivals = Arrivals(spool=self.spool, repository=repository)

    def layer(self, archive: LayerArchive) -> VerifiedLayer:
        return replace(verified(archive), path=self.spool.path(archive.digest))

    @property
    def spooled(self) -> list[str]:
        return sorted(path.name for path in (self.directory / "spool").iterdir())

    @property
    def prepared(self) -> list[str]:
        return [path.name for path in (self.directory / "repository").rglob("layer.json")]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    with ThreadPoolExecutor(4) as threads:
        repository = DirectoryRepository(
            name=RepositoryName("test.cern.ch"),
            root=tmp_path / "repository",
            layout=LayerLayout.FLAT,
            threads=threads,
        )
        async with repository:
            place = Place(tmp_path, repository, threads)
            await place.spool.clean(keep=())
            yield place


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> LayerArchive:
    """Some megabytes that do not compress, in several files."""
    files = {f"file-{number}": os.urandom(1 << 20) for number in range(3)}
    return make_layer(tmp_path_factory.mktemp("archive"), "large", files)


def sent(content: bytes, *, then: BaseException | None = None, held: asyncio.Event | None = None) -> Receive:
    """Receive these bytes, the last ones when the event is set; fail in the end."""

    async def receive(file: ArrivingFile) -> None:
        for start in range(0, len(content), PIECE):
            if held is not None and start + PIECE >= len(content):
                await held.wait()
            await asyncio.to_thread(file.writelines, [content[start : start + PIECE]])
        if then is not None:
            raise then

    return receive


async def test_no_archive_stays_that_the_repository_reads_no_more(tmp_path: Path, archive: LayerArchive) -> None:
    site = NativeSite(root=tmp_path / "native", state=tmp_path / "state", keys=KeyFiles(tmp_path / "keys", NATIVE_NAME))
    site.create()
    async with site.opened() as repository:
        with ThreadPoolExecutor(1) as threads:
            place = Place(tmp_path, repository, threads)
            await place.spool.clean(keep=())
            prepared = await place.arrivals.prepare(place.layer(archive), sent(archive.path.read_bytes()))
            assert place.spooled == []
            async with repository.transaction("token") as transaction:
                await transaction.add(prepared)
                await transaction.publish()
        assert await repository.lookup(archive.digest) is not None
    assert site.problems() == []


async def test_a_layer_is_prepared_while_it_arrives_and_is_verified_in_the_end(
    place: Place, archive: LayerArchive
) -> None:
    held = asyncio.Event()
    layer = place.layer(archive)
    preparing = asyncio.create_task(place.arrivals.prepare(layer, sent(archive.path.read_bytes(), held=held)))

    async def begun() -> bool:
        return any(place.directory.glob("repository/**/file-0"))

    await wait_until(begun, what="the beginning is unpacked")
    assert not layer.path.exists()
    held.set()
    prepared = await preparing
    assert prepared.layer == layer
    assert place.spooled == [archive.digest]
    assert hashlib.sha256(layer.path.read_bytes()).hexdigest() == archive.digest
    async with place.repository.transaction("token") as transaction:
        await transaction.add(prepared)
        await transaction.publish()
    assert await place.repository.lookup(archive.digest) is not None


async def test_a_download_that_fails_is_what_is_told(place: Place, archive: LayerArchive) -> None:
    error = RegistryUnavailableError("the connection broke")
    with pytest.raises(RegistryUnavailableError) as caught:
        await place.arrivals.prepare(place.layer(archive), sent(archive.path.read_bytes()[: 1 << 20], then=error))
    assert caught.value is error
    assert place.spooled == []
    assert place.prepared == []


@pytest.mark.parametrize("at", [0, 40, 1 << 20, -1])
async def test_damage_is_told_as_such_wherever_it_is(place: Place, archive: LayerArchive, at: int) -> None:
    """And not as the broken compression or the odd entry that it makes."""
    content = bytearray(archive.path.read_bytes())
    content[at] ^= 0xFF
    found = hashlib.sha256(content).hexdigest()
    with pytest.raises(LayerRefusedError, match=f"the archive has the digest {found}.*damaged or forged") as caught:
        await place.arrivals.prepare(place.layer(archive), sent(bytes(content)))
    assert caught.value.kind == "digest"
    assert place.spooled == []
    assert place.prepared == []


async def test_a_rule_that_is_broken_is_told_of_the_right_archive(place: Place, archive: LayerArchive) -> None:
    broken = b"\x1f\x8b" + b"x" * 100_000
    layer = replace(place.layer(archive), digest=Digest(hashlib.sha256(broken).hexdigest()), size=len(broken))
    with pytest.raises(LayerRefusedError, match="the archive is refused: the gzip stream is corrupt") as caught:
        await place.arrivals.prepare(layer, sent(broken))
    assert caught.value.kind == "archive"
    with pytest.raises(LayerRefusedError, match=r"announced was 0{64}") as caught:
        await place.arrivals.prepare(
            replace(place.layer(archive), diff_id=Digest("0" * 64)), sent(archive.path.read_bytes())
        )
    assert caught.value.kind == "diff_id"
    assert place.spooled == []


async def test_a_repository_that_fails_ends_the_download(
    place: Place, archive: LayerArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = asyncio.Event()

    async def receive(_file: ArrivingFile) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fails(_layer: VerifiedLayer) -> None:
        raise LayerRefusedError("as it is", kind="archive")

    monkeypatch.setattr(place.repository, "prepare", fails)
    with pytest.raises(LayerRefusedError, match="as it is"):
        await place.arrivals.prepare(place.layer(archive), receive)
    assert ended.is_set()
    assert place.spooled == []


async def test_a_cancellation_ends_both_and_leaves_nothing(place: Place, archive: LayerArchive) -> None:
    held = asyncio.Event()
    preparing = asyncio.create_task(
        place.arrivals.prepare(place.layer(archive), sent(archive.path.read_bytes(), held=held))
    )

    async def begun() -> bool:
        return bool(place.spooled)

    await wait_until(begun, what="the archive arrives")
    preparing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await preparing
    assert place.spooled == []
    assert place.prepared == []
