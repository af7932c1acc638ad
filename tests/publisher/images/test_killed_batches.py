"""A publisher that is killed while it changes images, or collects: images are there whole or not, nothing is lost."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import pytest
import pytest_asyncio

from harness.s3 import S3Access
from services.common.image_name import ImageName
from services.common.layout import sidecar_path
from services.publisher.settings import RepositoryKind
from services.repository.native.check.checker import Checker
from services.repository.native.create import create_repository
from services.repository.native.format import RepositoryFormat
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.trust.keyring import KeyFiles
from tests.support.cvmfs_server.standin import StandIn
from tests.support.image_site import ImagePublisher, layer_of, push_image, sha256
from tests.support.images_killed import (
    BATCH_PLACES,
    COLLECTION_PLACES,
    ChangeOfImages,
    KilledSite,
    change_until,
    collect_until,
)
from tests.support.publisher import REPOSITORY
from tests.support.registries import RegistryServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

_POINTS = ("publish.sync", "publish.committed")
"""Where `cvmfs_server` is at work when everything is killed."""
_ROUNDS = len(BATCH_PLACES) + len(_POINTS)
_SHARED = layer_of("killed batches shared")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pushed(registry: RegistryServer) -> str:
    """Images KIND:ROUND, of a layer that all have and one of their own; return what their names begin with."""
    # One by one: the registry fails now and then where the same blob is pushed twice at a time.
    for number in range(_ROUNDS + 1):
        for kind in ("replaced", "new"):
            await push_image(registry, f"killed-{kind}:{number}", [_SHARED, layer_of(f"{kind} {number}")])
    return f"{registry.address}/killed"


@dataclass(frozen=True, kw_only=True)
class _Place(KilledSite):
    """What a publisher works with, and how others see it."""

    names: str
    """What the names of images in the registry begin with."""
    bucket: S3Access
    standin: StandIn | None = None
    keys: KeyFiles | None = None

    @property
    def site(self) -> KilledSite:
        """What the process needs that is killed."""
        return KilledSite(
            directory=self.directory, kind=self.kind, settings=self.settings, environment=self.environment
        )

    def change(self, number: int) -> ChangeOfImages:
        """Replace an image, publish a new one, and remove the one that was new in the round before."""
        wanted = {f"{self.names}:replaced": f"{self.names}-replaced:{number}"}
        wanted[f"{self.names}:new-{number}"] = f"{self.names}-new:{number}"
        return ChangeOfImages(wanted=wanted, gone=f"{self.names}:new-{number - 1}" if number else None)

    def layers(self, number: int) -> list[bytes]:
        """Return the layers of the images that there are after a round."""
        return [_SHARED, layer_of(f"replaced {number}"), layer_of(f"new {number}")]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ImagePublisher]:
        """Run the publisher in this process."""
        async with ImagePublisher.running(self.directory, store=self.bucket.settings, **self.settings) as publisher:
            yield publisher

    def has(self, *paths: str) -> list[bool]:
        """Say which files readers see."""
        if self.keys is not None:
            with self._reader() as reader:
                revision = reader.newest(reader.head())
                return [revision.stat(f"/{path}".encode()) is not None for path in paths]
        root = self.directory / "repository" if self.standin is None else self.standin.published
        return [(root / path).exists() for path in paths]

    def has_images(self, number: int) -> list[bool]:
        """Say whether the images of a round are there, and the one is gone that was there before."""
        shown = [
            self.has(*(f".metadata/{ImageName(name).path}/{file}.json" for file in ("manifest", "config", "image")))
            for name in (f"{self.names}:new-{number}", f"{self.names}:new-{number - 1}")
        ]
        assert {len(set(files)) for files in shown} == {1}, f"an image is there in part: {shown}"
        return [shown[0][0], not shown[1][0]]

    def has_layers(self, *layers: bytes) -> list[bool]:
        """Say which layers, given by their archives, readers see."""
        return self.has(*(sidecar_path(sha256(layer)) for layer in layers))

    @contextmanager
    def _reader(self) -> Iterator[RepositoryReader]:
        assert self.keys is not None
        keys = [self.keys.public.read_bytes()]
        storage = DirectoryStorage(self.directory / "repository")
        with RepositoryReader(storage, name=REPOSITORY, master_keys=keys) as reader:
            yield reader

    def check(self) -> None:
        """Check the repository as its operators do."""
        if self.keys is not None:
            storage = DirectoryStorage(self.directory / "repository")
            checker = Checker(storage, name=REPOSITORY, master_keys=[self.keys.public.read_bytes()])
            assert checker.run().problems == ()
        if self.standin is not None:
            assert (self.standin.in_transaction, self.standin.healthy) == (False, True)


@pytest.fixture(params=RepositoryKind)
def place(
    request: pytest.FixtureRequest, tmp_path: Path, pushed: str, bucket: S3Access, monkeypatch: pytest.MonkeyPatch
) -> _Place:
    """A publisher that is not started, and its repository."""
    kind: RepositoryKind = request.param
    directory = tmp_path / "publisher"
    settings = {"repository_kind": kind, "collect_after": 0, "collect_interval": 0, "keep_replaced": 0}
    if kind is RepositoryKind.CVMFS_SERVER:
        standin: StandIn = request.getfixturevalue("standin")
        for name, value in standin.environment.items():
            monkeypatch.setenv(name, value)
        settings["cvmfs_mount"] = standin.mount
        settings["cvmfs_spool"] = standin.spool
        settings["cvmfs_configuration"] = standin.configuration
        return _Place(
            directory=directory,
            kind=kind,
            settings=settings,
            environment=standin.environment,
            names=pushed,
            bucket=bucket,
            standin=standin,
        )
    keys = None
    if kind is RepositoryKind.NATIVE:
        keys = KeyFiles(tmp_path / "keys", REPOSITORY)
        settings["keys"] = keys.public.parent
        storage = DirectoryStorage(directory / "repository")
        create_repository(name=REPOSITORY, storage=storage, keys=keys, chosen=RepositoryFormat(), meta={})
    return _Place(directory=directory, kind=kind, settings=settings, names=pushed, bucket=bucket, keys=keys)


async def _published(place: _Place, publisher: ImagePublisher, number: int) -> None:
    """Wait until a round has come to its end; look at what there is then."""
    change = place.change(number)
    for name in change.wanted:
        await publisher.becomes(ImageName(name), "published")
    if change.gone is not None:
        await publisher.becomes(ImageName(change.gone), "removed")
        assert place.has_images(number) == [True, True]
    assert set(place.has_layers(*place.layers(number))) == {True}
    assert await publisher.disagreements() == []
    place.check()


async def test_kills_leave_images_whole_and_all_that_they_name(place: _Place, processes: ForkServerContext) -> None:
    async with place.running() as publisher:
        await place.change(0).ask(publisher)
        await _published(place, publisher, 0)
    number = 0
    for where, collecting in zip(BATCH_PLACES, COLLECTION_PLACES, strict=True):
        number += 1
        await _killed(processes.Process(target=change_until, args=(place.site, where, place.change(number))))
        assert set(place.has_images(number)) == {where in ("after the switch", "recorded")}, where
        unnamed = place.layers(number - 1)[1:]
        async with place.running() as publisher:
            await _published(place, publisher, number)
            assert place.has_layers(*unnamed) == [True, True]
            if where == "recorded":
                assert await publisher.metric("publisher_publish_seconds_count") == 0
        # What this one leaves is cleaned up by the next one that is killed.
        await _killed(processes.Process(target=collect_until, args=(place.site, collecting)))
        assert set(place.has_layers(*unnamed)) == {collecting not in ("after the switch", "recorded")}, collecting
    for point in _POINTS if place.standin is not None else ():
        number += 1
        await _all_killed(place, processes, point, number)
        async with place.running() as publisher:
            await _published(place, publisher, number)
    async with place.running() as publisher:
        await publisher.collected()
        await _published(place, publisher, number)
        assert not any(place.has_layers(*(layer for former in range(number) for layer in place.layers(former)[1:])))


async def _killed(process: ForkServerProcess) -> None:
    """Wait until a process has killed itself."""
    process.start()
    await asyncio.to_thread(process.join, 120)
    assert process.exitcode == -signal.SIGKILL


async def _all_killed(place: _Place, processes: ForkServerContext, point: str, number: int) -> None:
    """Kill a publisher, and `cvmfs_server` where it is at work."""
    assert place.standin is not None
    place.standin.want(f"hang.{point}")
    process = processes.Process(target=change_until, args=(place.site, None, place.change(number)))
    process.start()
    await place.standin.reached(point)
    process.kill()
    await asyncio.to_thread(process.join, 120)
    await place.standin.kill_programs()
    place.standin.no_longer(f"hang.{point}")
