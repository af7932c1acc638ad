"""Each disk of stratum 0 fills up and is freed: it is said which one it is, nothing is lost, all goes on by itself."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from harness.processes import wait_until
from harness.reliability.figures import Chapter, Trial
from harness.s3 import S3Access
from services.common.archive.model import LayerArchive
from services.common.layout import layer_tree, sidecar_path
from services.common.object_store.model import key_of
from services.repository.native.check.checker import Checker
from services.repository.native.create import create_repository
from services.repository.native.format import RepositoryFormat
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.trust.keyring import KeyFiles
from tests.support.cvmfs_server.standin import StandIn
from tests.support.mounts import SmallDisk, small_disk
from tests.support.notifications import minio_event
from tests.support.publisher import REPOSITORY, PublisherProcess, cvmfs_publisher, make_layer, upload
from tests.support.soak import Soak

_MEGABYTES: Final = 16
_LAYER: Final = 1 << 18
"""Bytes of a layer, which no file system can squeeze in somewhere."""
_SHOWN: Final = 20.0
"""Seconds in which somebody must be told."""
_RECOVERED: Final = 30.0
"""Seconds in which everything must be published; attempts are a second apart at most."""


@dataclass(frozen=True, kw_only=True)
class _Site:
    """A publisher, one of whose disks is small."""

    publisher: PublisherProcess
    disk: SmallDisk
    place: Path
    """What errors must name."""
    read: Callable[[str], bytes | None]
    """Returns a file of the repository as its clients see it, or None."""
    problems: Callable[[], object]
    """Returns what is wrong with the whole repository."""

    async def announce(self, layers: list[LayerArchive]) -> list[LayerArchive]:
        """Announce layers; return those that were not taken."""
        bodies = [minio_event(self.publisher.access.bucket, key_of(layer.digest)) for layer in layers]
        taken = [await self.publisher.announce(body) for body in bodies]
        return [layer for layer, status in zip(layers, taken, strict=True) if status != 204]

    async def shown(self, layers: list[LayerArchive]) -> bool:
        """Tell whether the publisher says which disk it is: in what it says of layers, or of itself."""
        texts = [str((await self.publisher.layer(layer.digest)).get("reason")) for layer in layers]
        ready = await self.publisher.get("/readyz")
        texts += map(str, [ready["waiting_for"], *ready["checks"].values()])
        return any(str(self.place) in text and ("No space left" in text or "is full" in text) for text in texts)


@contextmanager
def _site(kind: str, directory: Path, access: S3Access) -> Iterator[_Site]:
    """Make a site, one of whose disks is small."""
    keys = KeyFiles(directory / "keys", REPOSITORY)
    native = {"PUBLISHER_REPOSITORY_KIND": "native", "PUBLISHER_KEYS": str(directory / "keys")}
    if kind == "cvmfs_server":
        standin = StandIn(directory / "stratum0", REPOSITORY)
        with small_disk(directory / "stratum0", megabytes=_MEGABYTES) as disk:
            standin.create()
            publisher = cvmfs_publisher(directory / "publisher", access, standin)
            try:
                yield _Site(
                    publisher=publisher,
                    disk=disk,
                    place=standin.spool,
                    read=lambda path: _content(standin.published / path),
                    problems=lambda: () if standin.healthy else "it is not healthy",
                )
            finally:
                standin.end()
        return
    publisher = PublisherProcess(directory / "publisher", access, native if kind.startswith("native") else {})
    place = {"spool": publisher.spool, "journal": publisher.state, "native state": publisher.state}.get(
        kind, publisher.root
    )
    with small_disk(place, megabytes=_MEGABYTES) as disk:
        if not kind.startswith("native"):
            root = publisher.root
            yield _Site(
                publisher=publisher, disk=disk, place=place, read=lambda path: _content(root / path), problems=tuple
            )
            return
        storage = DirectoryStorage(publisher.root)
        create_repository(name=REPOSITORY, storage=storage, keys=keys, chosen=RepositoryFormat(), meta={})
        public = [keys.public.read_bytes()]

        def read(path: str) -> bytes | None:
            with RepositoryReader(storage, name=REPOSITORY, master_keys=public) as reader:
                revision = reader.newest(reader.head())
                entry = revision.stat(f"/{path}".encode())
                return None if entry is None else b"".join(revision.content(entry))

        yield _Site(
            publisher=publisher,
            disk=disk,
            place=place,
            read=read,
            problems=lambda: Checker(storage, name=REPOSITORY, master_keys=public).run().problems,
        )


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


@pytest.fixture(
    params={
        "spool": "spool of a publisher",
        "journal": "journal of a publisher, a file",
        "directory": "repository in a directory",
        "native": "native repository in a directory",
        "native state": "state of a native repository",
        "cvmfs_server": "transaction and storage of cvmfs_server",
    }.items(),
    ids=lambda param: str(param[0]),
)
async def site(request: pytest.FixtureRequest, tmp_path: Path, bucket: S3Access) -> AsyncIterator[tuple[str, _Site]]:
    """A publisher that runs, and what it is whose disk is small."""
    kind, subject = request.param
    with _site(kind, tmp_path, bucket) as made:
        async with made.publisher.running():
            yield subject, made


async def test_a_disk_fills_up_and_is_freed(soak: Soak, site: tuple[str, _Site], tmp_path: Path) -> None:
    subject, made = site
    publisher = made.publisher
    rounds, layers = soak.pick(1, 4), list[LayerArchive]()
    half = 0
    shown, recovered = list[float](), list[float]()
    for number in range(rounds):
        new = [make_layer(tmp_path / "made", f"{number}-{which}", {"name": os.urandom(_LAYER)}) for which in range(3)]
        await upload(publisher.access, *new)
        assert await made.announce(new[:1]) == []
        await publisher.published(new[0])
        await asyncio.to_thread(made.disk.fill)
        begun = time.monotonic()
        refused = await made.announce(new[1:])

        async def is_shown(announced: list[LayerArchive] = new[1:]) -> bool:
            return await made.shown(announced)

        await wait_until(is_shown, what=f"it is said that {made.place} is full", timeout=_SHOWN)
        shown.append(time.monotonic() - begun)
        half += sum(made.read(str(sidecar_path(layer.digest))) is not None for layer in new[1:])
        made.disk.free()
        begun = time.monotonic()
        while refused:
            refused = await made.announce(refused)  # as object stores do
        await publisher.published(*new[1:])
        recovered.append(time.monotonic() - begun)
        layers += new
    contents = [made.read(f"{layer_tree(layer.digest)}/name") for layer in layers]
    lost = sum(
        content != (tmp_path / "made" / layer.path.name.replace(".tar.zst", ".tree") / "name").read_bytes()
        for layer, content in zip(layers, contents, strict=True)
    )
    assert not made.problems()
    soak.record(
        Trial(
            chapter=Chapter.LOAD,
            subject=subject,
            tried="its disk fills up, and is freed",
            times=rounds,
            losses={"layers lost": lost, "layers half visible": half},
            shown=tuple(shown),
            shown_bound=_SHOWN,
            recovery=tuple(recovered),
            recovery_bound=_RECOVERED,
        )
    )
