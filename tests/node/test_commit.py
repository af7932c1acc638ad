"""Commits into a real S3 server: what is uploaded, in which order, and what is left when it fails."""

import asyncio
import os
import re
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from pydantic import ByteSize

from harness.ports import free_ports
from harness.processes import wait_until
from harness.s3 import S3Access, s3_client
from services.common.archive.compression import open_archive
from services.common.archive.limits import ArchiveLimits
from services.common.archive.ondisk import OverlayDeletions
from services.common.archive.unpack import unpack
from services.common.descriptor import DESCRIPTOR_NAME, ThinDescriptor
from services.common.digest import Digest
from services.common.layout import LayerLayout
from services.common.object_store.store import ObjectStore
from services.common.repository_name import RepositoryName
from services.common.sidecar import LayerSidecar
from services.node.commit import Committer
from services.node.errors import CommitError
from services.node.layers import Layer
from services.node.store import NodeStore
from services.node.work_memory import LEAST_MEMORY, WorkMemory
from tests.common.object_store.conftest import store_settings
from tests.node.conftest import Core
from tests.support.deep import deepen, removed_afterwards
from tests.support.fault_proxy import Answer, Fault, FaultProxy, stall
from tests.support.metrics import counted, samples
from tests.support.repositories import Repository

pytestmark = pytest.mark.asyncio(loop_scope="session")

REPOSITORY = RepositoryName("test.example.org")


@dataclass(kw_only=True)
class Commits:
    """Commits the layers of a core into a bucket."""

    core: Core
    access: S3Access
    repository: RepositoryName | None = None
    layout: LayerLayout = LayerLayout.FLAT

    async def commit(self, layer: Layer, *faults: Fault, endpoint: str | None = None) -> ThinDescriptor:
        async with self._store(faults, endpoint) as (store, _):
            return await self._committer(store).commit(layer, self.core.lineage(layer))

    async def requests(self, layer: Layer) -> list[str]:
        """Commit, and return what was asked of the store."""
        async with self._store((), None) as (store, proxy):
            await self._committer(store).commit(layer, self.core.lineage(layer))
            return proxy.requests

    def _committer(self, store: NodeStore | None) -> Committer:
        return Committer(
            copies=self.core.copies,
            masks=self.core.masks,
            store=store,
            repository=self.repository,
            layout=self.layout,
            limits=ArchiveLimits(ratio_free_size=ByteSize(8 << 20)),
            metrics=self.core.metrics,
            memory=WorkMemory(LEAST_MEMORY, metrics=self.core.metrics),
        )

    @asynccontextmanager
    async def _store(
        self, faults: tuple[Fault, ...], endpoint: str | None
    ) -> AsyncIterator[tuple[NodeStore, FaultProxy]]:
        async with FaultProxy.before(self.access.endpoint, *faults) as proxy:
            access = replace(self.access, endpoint=endpoint or proxy.endpoint)
            async with NodeStore(settings=store_settings(access, retry_seconds=0.5)) as store:
                yield store, proxy

    async def without_store(self, layer: Layer) -> ThinDescriptor:
        return await self._committer(None).commit(layer, self.core.lineage(layer))

    async def stored(self) -> set[str]:
        """Return the digests of what is in the bucket."""
        async with s3_client(self.access) as client:
            listing = await client.list_objects_v2(Bucket=self.access.bucket)
        return {item["Key"].removeprefix("sha256/") for item in listing.get("Contents", ())}

    async def tree(self, digest: str, directory: Path) -> Path:
        """Fetch a layer from the bucket and unpack it."""
        archive, tree = directory / f"{digest}.archive", directory / digest
        async with ObjectStore(settings=self.access.settings) as store:
            await store.download(Digest(digest), archive)
        tree.mkdir()
        with archive.open("rb") as file:
            source = open_archive(file, limits=ArchiveLimits())
            unpack(source, tree, deletions=OverlayDeletions(), limits=ArchiveLimits())
        return tree


@pytest.fixture
def commits(core: Core, bucket: S3Access) -> Commits:
    return Commits(core=core, access=bucket)


def _thin_container(core: Core, repository: Repository) -> Layer:
    core.add_thin("thin", None, [repository.url("one"), repository.url("two")])
    core.add("c-init", "thin", {"hosts": "the engine's own"}, container=True)
    return core.add("c", "c-init", container=True)


def _spool(core: Core) -> list[str]:
    return os.listdir(core.home / "spool")


async def test_the_containers_changes_become_the_topmost_layer(
    commits: Commits, core: Core, repository: Repository, tmp_path: Path
) -> None:
    layer = _thin_container(core, repository)
    (layer.diff / "new").write_text("content")
    os.mknod(layer.diff / "gone", stat.S_IFCHR, os.makedev(0, 0))
    descriptor = await commits.commit(layer)
    digests = [part.digest for part in descriptor.layers]
    assert digests[:2] == [repository.url("one").digest, repository.url("two").digest]
    assert len(digests) == 3
    assert await commits.stored() == {digests[2]}
    assert descriptor.layers[2].url == f"cvmfs://test.example.org/{digests[2]}"
    tree = await commits.tree(digests[2], tmp_path)
    assert sorted(os.listdir(tree)) == ["gone", "new"]
    assert (tree / "new").read_text() == "content"
    assert stat.S_ISCHR((tree / "gone").lstat().st_mode)
    # Kept until the repository shows it.
    [copy] = core.copies.all()
    assert copy.archive.digest == digests[2]
    values = samples(core.metrics.render(None).decode())
    assert counted(values, "thin_node_uploads_total") == {'{outcome="ok"}': 1}
    assert values["thin_node_uploaded_bytes_total"] == copy.archive.size
    assert copy.url == descriptor.layers[2].url
    assert _spool(core) == []


@pytest.mark.parametrize(("layers", "deleting"), [(499, 0), (300, 199)])
async def test_an_image_that_could_not_be_started_is_not_made(
    commits: Commits, core: Core, repository: Repository, layers: int, deleting: int
) -> None:
    urls = [repository.url(str(number)) for number in range(layers)]
    for url in urls[:deleting]:
        core.masks.for_layer(
            LayerSidecar(
                digest=url.digest,
                diff_id=url.digest,
                archive_size=1,
                uncompressed_size=1,
                tree_size=1,
                entries=1,
                whiteouts=("gone",),
            )
        )
    core.add_thin("thin", None, urls)
    container = core.add("c", "thin", container=True)
    # What changes nothing is the image that is there.
    assert len((await commits.commit(container)).layers) == layers
    (container.diff / "new").touch()
    with pytest.raises(CommitError, match=r"its 500 layers, .* more than the 499 that .*: flatten the image"):
        await commits.commit(container)
    assert await commits.stored() == set()


async def test_the_object_says_where_it_belongs(commits: Commits, core: Core, repository: Repository) -> None:
    layer = _thin_container(core, repository)
    (layer.diff / "new").write_text("content")
    await commits.commit(layer)
    [copy] = core.copies.all()
    async with ObjectStore(settings=commits.access.settings) as store:
        stored = await store.head(copy.archive.digest)
    assert stored is not None
    assert (stored.repository, stored.diff_id) == (REPOSITORY, copy.archive.diff_id)
    assert (stored.size, stored.uncompressed_size) == (copy.archive.size, copy.archive.uncompressed_size)
    assert stored.media_type == copy.archive.media_type


async def test_every_local_layer_is_uploaded_base_first(
    commits: Commits, core: Core, repository: Repository, tmp_path: Path
) -> None:
    core.add("below", None, {"below": "is in no lineage"})
    core.add_thin("thin", "below", [repository.url("one")], {"beside": "thin.json"})
    core.add("local-1", "thin", {"first": "local"})
    core.add("empty", "local-1")
    core.add("local-2", "empty", {"second": "local"})
    core.add("c-init", "local-2", {"hosts": "init"}, container=True)
    layer = core.add("c", "c-init", {"own": "container"}, container=True)
    descriptor = await commits.commit(layer)
    trees = [await commits.tree(part.digest, tmp_path) for part in descriptor.layers[1:]]
    assert [os.listdir(tree) for tree in trees] == [["beside"], ["first"], ["second"], ["own"]]
    assert descriptor.layers[0].digest == repository.url("one").digest
    assert await commits.stored() == {part.digest for part in descriptor.layers[1:]}


async def test_uploads_come_in_the_order_of_the_layers(commits: Commits, core: Core, repository: Repository) -> None:
    core.add_thin("thin", None, [repository.url("one")])
    core.add("local", "thin", {"first": "local"})
    layer = core.add("c", "local", {"own": "container"}, container=True)
    requests = await commits.requests(layer)
    puts = [match[1] for line in requests if (match := re.match(r"PUT /[^/]*/sha256/([0-9a-f]{64})", line))]
    descriptor = await commits.commit(layer)
    assert puts == [part.digest for part in descriptor.layers[1:]]


async def test_a_container_without_changes_needs_no_upload_and_no_store(
    commits: Commits, core: Core, repository: Repository
) -> None:
    layer = _thin_container(core, repository)
    thin = core.lineage(layer).descriptor
    assert await commits.requests(layer) == []
    assert await commits.without_store(layer) == thin
    assert await commits.commit(layer, endpoint="http://127.0.0.1:9") == thin
    assert core.copies.all() == []


async def test_what_else_the_descriptor_says_is_kept(commits: Commits, core: Core, repository: Repository) -> None:
    layer = _thin_container(core, repository)
    place = core.layers.find(core.layers.chain(layer.id)[-1].id).diff / DESCRIPTOR_NAME
    text = place.read_text().replace('"version"', '"comment": "keep", "origin": "x@y", "future": [1], "version"')
    place.write_text(text)
    (layer.diff / "new").write_text("content")
    descriptor = await commits.commit(layer)
    assert (descriptor.comment, descriptor.origin) == ("keep", "x@y")
    assert b'"future": [' in descriptor.encode()


async def test_a_configured_repository_and_layout(core: Core, bucket: S3Access, repository: Repository) -> None:
    commits = Commits(
        core=core, access=bucket, repository=RepositoryName("commits.example.org"), layout=LayerLayout.DUCC
    )
    layer = _thin_container(core, repository)
    (layer.diff / "new").write_text("content")
    [*_, added] = (await commits.commit(layer)).layers
    home = f".layers/{added.digest[:2]}/{added.digest}"
    assert added.url == f"cvmfs://commits.example.org/{home}/layerfs"


@pytest.mark.parametrize("name", [".WH.f", ".Wh.f", ".wH."])
async def test_what_cvmfs_takes_for_a_deletion_is_not_committed(
    commits: Commits, core: Core, repository: Repository, name: str
) -> None:
    layer = _thin_container(core, repository)
    (layer.diff / "d").mkdir()
    (layer.diff / "d" / name).write_text("content")
    with pytest.raises(CommitError, match=rf"'d/{re.escape(name)}' cannot be published: CVMFS takes") as refused:
        await commits.commit(layer)
    assert "for a deletion" in str(refused.value)
    assert (layer.diff / "d" / name).read_text() == "content"
    assert await commits.stored() == set()
    assert _spool(core) == []
    # Its deletion can be.
    (layer.diff / "d" / name).unlink()
    os.mknod(layer.diff / "d" / name, stat.S_IFCHR, os.makedev(0, 0))
    await commits.commit(layer)


async def test_the_same_changes_again_are_stored_once(commits: Commits, core: Core, repository: Repository) -> None:
    layer = _thin_container(core, repository)
    (layer.diff / "new").write_text("content")
    first = await commits.commit(layer)
    assert await commits.commit(layer) == first
    assert len(await commits.stored()) == 1
    assert len(core.copies.all()) == 1
    assert _spool(core) == []


# Failures


def _snapshot(layer: Layer) -> list[tuple[str, str]]:
    return sorted((path.name, path.read_text()) for path in layer.diff.iterdir())


async def test_without_a_store_the_setting_is_named(commits: Commits, core: Core, repository: Repository) -> None:
    layer = _thin_container(core, repository)
    (layer.diff / "new").write_text("content")
    with pytest.raises(CommitError, match=r"no object store is configured \(LAYER_STORE_\*\)"):
        await commits.without_store(layer)


async def test_a_store_that_is_down_fails_the_commit_and_loses_nothing(
    commits: Commits, core: Core, repository: Repository
) -> None:
    layer = _thin_container(core, repository)
    (layer.diff / "new").write_text("content")
    before = _snapshot(layer)
    (port,) = free_ports(1)
    with pytest.raises(CommitError, match=f"layer c was not committed: .*127.0.0.1:{port}.*connection failed"):
        await commits.commit(layer, endpoint=f"http://127.0.0.1:{port}")
    values = samples(core.metrics.render(None).decode())
    assert counted(values, "thin_node_uploads_total") == {'{outcome="failed"}': 1}
    assert values["thin_node_uploaded_bytes_total"] == 0
    assert _snapshot(layer) == before
    assert core.copies.all() == []
    assert _spool(core) == []
    assert len((await commits.commit(layer)).layers) == 3


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(403, "AccessDenied"), "access denied"),
        (Answer(404, "NoSuchBucket"), "there is no such bucket"),
        (Answer(503, "SlowDown"), "failing or overloaded"),
        (Answer(507, "InsufficientStorage"), "507"),
    ],
)
async def test_a_refusal_is_the_reason(
    commits: Commits, core: Core, repository: Repository, answer: Answer, reason: str
) -> None:
    layer = _thin_container(core, repository)
    (layer.diff / "new").write_text("content")
    with pytest.raises(CommitError, match=reason):
        await commits.commit(layer, Fault("^PUT ", times=100, answer=answer))
    assert core.copies.all() == []
    assert _spool(core) == []


async def test_a_failure_halfway_is_made_good_by_the_next_attempt(
    commits: Commits, core: Core, repository: Repository
) -> None:
    core.add_thin("thin", None, [repository.url("one")])
    core.add("local", "thin", {"first": "local"})
    layer = core.add("c", "local", {"own": "container"}, container=True)
    with pytest.raises(CommitError, match="layer c was not committed"):
        await commits.commit(
            layer, Fault("^PUT ", times=1), Fault("^PUT ", times=100, answer=Answer(403, "AccessDenied"))
        )
    [first] = await commits.stored()
    assert [copy.archive.digest for copy in core.copies.all()] == [first]
    descriptor = await commits.commit(layer)
    assert descriptor.layers[1].digest == first
    assert await commits.stored() == {part.digest for part in descriptor.layers[1:]}


async def test_a_tree_that_no_archive_can_hold_is_named(commits: Commits, core: Core, repository: Repository) -> None:
    layer = _thin_container(core, repository)
    (layer.diff / ".wh.file").write_text("not a deletion")
    with pytest.raises(CommitError, match=r"layer c was not committed: '\.wh\.file': a layer archive cannot hold"):
        await commits.commit(layer)
    assert await commits.stored() == set()
    assert _spool(core) == []


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda diff: deepen(diff, 300), "is deeper than 256 directories"),
        (lambda diff: deepen(diff, 3_000), "is deeper than 256 directories"),
        (lambda diff: deepen(diff, 20, name="x" * 250), "is longer than 4095 bytes"),
        (lambda diff: (diff / ".WH.file").touch(), "cannot be published: CVMFS takes '.WH.file' for a deletion"),
    ],
)
async def test_a_tree_that_cvmfs_cannot_hold_is_refused_while_the_container_is_there(
    commits: Commits, core: Core, repository: Repository, make: Callable[[Path], None], reason: str
) -> None:
    layer = _thin_container(core, repository)
    with removed_afterwards(layer.diff):
        make(layer.diff)
        with pytest.raises(CommitError, match=f"layer c was not committed: .*{reason}"):
            await commits.commit(layer)
    assert await commits.stored() == set()
    assert _spool(core) == []


@pytest.mark.parametrize(("size", "limit"), [(20 << 20, "ratio"), (1 << 40, "tree_size")])
async def test_what_no_publisher_would_take_is_refused_while_the_container_is_there(
    commits: Commits, core: Core, repository: Repository, size: int, limit: str
) -> None:
    layer = _thin_container(core, repository)
    (layer.diff / "disk.img").touch()
    os.truncate(layer.diff / "disk.img", size)
    with pytest.raises(CommitError, match=rf"layer c was not committed: .*\(limit {limit}\)"):
        await commits.commit(layer)
    assert await commits.stored() == set()
    assert _spool(core) == []


async def test_a_cancelled_commit_leaves_nothing(commits: Commits, core: Core, repository: Repository) -> None:
    layer = _thin_container(core, repository)
    (layer.diff / "new").write_text("content")
    committing = asyncio.create_task(commits.commit(layer, Fault("^PUT ", request=stall(0))))

    async def spooled() -> bool:
        return bool(_spool(core))

    await wait_until(spooled, what="the archive is written")
    committing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await committing
    assert _spool(core) == []
    assert core.copies.all() == []
