"""A directory repository shows a batch as a whole or not at all, and keeps what layers are."""

import asyncio
import os
import stat
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.processes import wait_until
from services.common.archive.model import LayerArchive
from services.common.digest import Digest
from services.common.layout import LayerLayout, layer_home, layer_tree, sidecar_path
from services.common.sidecar import LayerSidecar
from services.repository.directory.repository import DirectoryRepository
from services.repository.errors import LayerAdditionError, LayerRefusedError, RepositoryError
from services.repository.interface import ListedLayer, PreparedLayer, Publication
from tests.support.publisher import REPOSITORY, make_layer, verified


@pytest.fixture
async def repository(root: Path, threads: ThreadPoolExecutor) -> AsyncIterator[DirectoryRepository]:
    async with _opened(root, threads) as repository:
        yield repository


@asynccontextmanager
async def _opened(
    root: Path, threads: ThreadPoolExecutor, layout: LayerLayout = LayerLayout.FLAT
) -> AsyncIterator[DirectoryRepository]:
    async with DirectoryRepository(name=REPOSITORY, root=root, layout=layout, threads=threads) as repository:
        await repository.recover(())
        yield repository


async def _publish(repository: DirectoryRepository, *archives: LayerArchive) -> int:
    prepared = [await repository.prepare(verified(archive)) for archive in archives]
    async with repository.transaction("token") as transaction:
        for layer in prepared:
            await transaction.add(layer)
        return await transaction.publish()


def _sidecar(root: Path, digest: Digest) -> LayerSidecar:
    return LayerSidecar.parse((root / sidecar_path(digest)).read_bytes(), where="sidecar")


def _left_over(root: Path) -> list[str]:
    """What no reader should ever meet: unfinished directories, and links that lead nowhere."""
    unfinished = [name for name in os.listdir(root / ".batches") if name.startswith((".staging", ".prepared"))]
    links = [*root.glob("*"), *root.glob(".layers/*/*")]
    return unfinished + [str(link) for link in links if link.is_symlink() and not link.exists()]


async def test_a_batch_becomes_a_revision(repository: DirectoryRepository, root: Path, tmp_path: Path) -> None:
    one, two = make_layer(tmp_path, "one", {"a/b": "content"}), make_layer(tmp_path, "two")
    assert await repository.lookup(one.digest) is None
    assert await _publish(repository, one, two) == 1
    assert (root / one.digest / "a" / "b").read_text() == "content"
    assert (root / layer_tree(two.digest) / "name").read_text() == "two"
    assert _sidecar(root, one.digest).diff_id == one.diff_id
    assert await repository.lookup(one.digest) == await repository.lookup(two.digest) == Publication(revision=1)
    assert await _publish(repository, make_layer(tmp_path, "three")) == 2
    assert _left_over(root) == []


async def test_links_are_relative_so_that_the_tree_can_be_mounted_anywhere(
    repository: DirectoryRepository, root: Path, tmp_path: Path
) -> None:
    archive = make_layer(tmp_path, "one")
    await _publish(repository, archive)
    root.rename(tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / archive.digest / "name").read_text() == "one"
    (tmp_path / "elsewhere").rename(root)


async def test_the_ducc_layout_has_no_links_at_the_root(
    root: Path, threads: ThreadPoolExecutor, tmp_path: Path
) -> None:
    archive = make_layer(tmp_path, "one")
    async with _opened(root, threads, LayerLayout.DUCC) as repository:
        await _publish(repository, archive)
    assert (root / LayerLayout.DUCC.path(archive.digest) / "name").read_text() == "one"
    assert not os.path.lexists(root / archive.digest)


async def test_revisions_rise_across_restarts(root: Path, threads: ThreadPoolExecutor, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        async with _opened(root, threads) as repository:
            assert await _publish(repository, make_layer(tmp_path, str(number))) == number


async def test_a_layer_is_kept_as_it_is_and_its_deletions_are_listed(
    repository: DirectoryRepository, root: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "layer.tree"
    (tree / "replaced").mkdir(parents=True)
    os.setxattr(tree / "replaced", "trusted.overlay.opaque", b"y")
    os.mknod(tree / "deleted %", stat.S_IFCHR, os.makedev(0, 0))
    (tree / "program").write_bytes(b"#!")
    os.chown(tree / "program", 1234, 5678)
    (tree / "program").chmod(0o4755)
    (tree / "link").hardlink_to(tree / "program")
    os.mknod(tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    archive = make_layer(tmp_path, "layer", {})
    await _publish(repository, archive)
    published = root / archive.digest
    assert sorted(os.listdir(published)) == ["link", "null", "program", "replaced"]
    status = (published / "program").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_nlink) == (0o4755, 1234, 5678, 2)
    assert os.listxattr(published / "replaced") == []
    sidecar = _sidecar(root, archive.digest)
    assert (sidecar.whiteouts, sidecar.opaque, sidecar.deletions) == (("deleted %25",), ("replaced",), "listed")
    assert sidecar.needs_mask


@pytest.mark.parametrize(
    ("change", "kind", "reason"),
    [
        ({"diff_id": Digest("0" * 64)}, "diff_id", "the archive has the diff ID [0-9a-f]{64}, announced was 0{64}"),
        ({"uncompressed_size": 1}, "diff_id", "the archive has the uncompressed size [0-9]+, announced was 1$"),
        ({"digest": Digest("0" * 64)}, "digest", "the archive has the digest [0-9a-f]{64}, announced was 0{64}"),
    ],
)
async def test_a_layer_that_is_not_what_it_claims_is_refused(
    repository: DirectoryRepository,
    root: Path,
    tmp_path: Path,
    change: dict[str, Any],
    kind: str,
    reason: str,
) -> None:
    layer = replace(verified(make_layer(tmp_path, "one")), **change)
    with pytest.raises(LayerRefusedError, match=reason) as caught:
        await repository.prepare(layer)
    assert caught.value.kind == kind
    assert _left_over(root) == []


async def test_an_archive_that_breaks_a_rule_is_refused(
    repository: DirectoryRepository, root: Path, tmp_path: Path
) -> None:
    layer = verified(make_layer(tmp_path, "one"))
    layer.path.write_bytes(layer.path.read_bytes()[:-20])
    with pytest.raises(LayerRefusedError, match=r"the archive is refused: .*cut short") as caught:
        await repository.prepare(layer)
    assert caught.value.kind == "archive"
    assert _left_over(root) == []


async def test_what_is_not_published_leaves_nothing(
    repository: DirectoryRepository, root: Path, tmp_path: Path
) -> None:
    prepared = await repository.prepare(verified(make_layer(tmp_path, "one")))
    async with repository.transaction("token") as transaction:
        await transaction.add(prepared)
    assert _left_over(root) == []
    assert await repository.lookup(prepared.layer.digest) is None
    await repository.discard(prepared)
    prepared = await repository.prepare(prepared.layer)
    with pytest.raises(ZeroDivisionError):
        await _fail_in_a_transaction(repository, prepared)
    prepared = await repository.prepare(prepared.layer)
    await repository.discard(prepared)
    assert _left_over(root) == []


async def _fail_in_a_transaction(repository: DirectoryRepository, prepared: PreparedLayer) -> None:
    async with repository.transaction("token") as transaction:
        await transaction.add(prepared)
        raise ZeroDivisionError


async def test_a_layer_whose_place_is_taken_fails_alone(
    repository: DirectoryRepository, root: Path, tmp_path: Path
) -> None:
    one, two = make_layer(tmp_path, "one"), make_layer(tmp_path, "two")
    (root / two.digest).mkdir()
    prepared = [await repository.prepare(verified(archive)) for archive in (one, two)]
    async with repository.transaction("token") as transaction:
        await transaction.add(prepared[0])
        with pytest.raises(LayerAdditionError, match="is there already"):
            await transaction.add(prepared[1])
        await transaction.publish()
    assert await repository.lookup(one.digest) == Publication(revision=1)
    assert await repository.lookup(two.digest) is None


async def test_a_reader_never_sees_a_part_of_a_batch(
    repository: DirectoryRepository, root: Path, tmp_path: Path
) -> None:
    archives = [make_layer(tmp_path, str(number)) for number in range(150)]
    stopped = threading.Event()
    passes: list[list[bool]] = []

    def read() -> None:
        while not stopped.is_set():
            passes.append([(root / archive.digest / "name").exists() for archive in archives])

    reader = threading.Thread(target=read)
    reader.start()
    try:
        await wait_until(lambda: asyncio.sleep(0, bool(passes)), what="the first pass")
        await _publish(repository, *archives)
        seen = len(passes)
        await wait_until(lambda: asyncio.sleep(0, len(passes) > seen + 1), what="two more passes")
    finally:
        stopped.set()
        reader.join()
    assert not any(passes[0])
    assert all(passes[-1])
    # The whole batch becomes visible in one moment: within one pass, what is looked at later is never missing again.
    assert [seen for seen in passes if sorted(seen) != seen] == []


async def test_a_reader_never_reaches_an_unfinished_layer(
    repository: DirectoryRepository, root: Path, tmp_path: Path
) -> None:
    prepared = await repository.prepare(verified(make_layer(tmp_path, "one")))
    (unfinished,) = (root / ".batches").glob(".prepared-*")
    assert stat.S_IMODE(unfinished.stat().st_mode) == 0o700
    async with repository.transaction("token") as transaction:
        await transaction.add(prepared)
        (staged,) = (root / ".batches").glob(".staging-*")
        assert stat.S_IMODE(staged.stat().st_mode) == 0o700
        await transaction.publish()
    assert stat.S_IMODE((root / layer_home(prepared.layer.digest)).stat().st_mode) == 0o755


async def test_recovery_undoes_what_a_kill_left(root: Path, threads: ThreadPoolExecutor, tmp_path: Path) -> None:
    done, staged, unpacked = (make_layer(tmp_path, name) for name in ("done", "staged", "unpacked"))
    async with _opened(root, threads) as repository:
        await _publish(repository, done)
        for archive in (done, staged, unpacked):
            await repository.prepare(verified(archive))
    batch = root / ".batches" / ".staging-killed"
    batch.mkdir()
    for archive in (done, staged):
        (root / ".batches" / f".prepared-{archive.digest}").rename(batch / archive.digest)
    (root / layer_home(staged.digest)).parent.mkdir(exist_ok=True)
    (root / layer_home(staged.digest)).symlink_to(f"../../.batches/2/{staged.digest}")
    (root / staged.digest).symlink_to(layer_tree(staged.digest))
    async with _opened(root, threads) as repository:
        assert _left_over(root) == []
        assert not os.path.lexists(root / staged.digest)
        assert await repository.lookup(done.digest) == Publication(revision=1)
        assert await _publish(repository, staged) == 2
        assert (root / staged.digest / "name").read_text() == "staged"


async def test_a_kill_after_the_renaming_has_published(root: Path, threads: ThreadPoolExecutor, tmp_path: Path) -> None:
    archive = make_layer(tmp_path, "one")
    async with _opened(root, threads) as repository:
        await _publish(repository, archive)
    async with _opened(root, threads) as repository:
        assert await repository.lookup(archive.digest) == Publication(revision=1)


async def test_only_one_publisher_writes(
    repository: DirectoryRepository, root: Path, threads: ThreadPoolExecutor, tmp_path: Path
) -> None:
    repository.take()
    await repository.check()
    said = f"another publisher writes to {root}: stop it first"
    archive = make_layer(tmp_path, "layer")
    async with DirectoryRepository(name=REPOSITORY, root=root, layout=LayerLayout.FLAT, threads=threads) as other:
        await other.check()
        assert await other.list_layers(archive.digest[:2]) == ()
        with pytest.raises(RepositoryError, match=said):
            await other.recover(())
        with pytest.raises(RepositoryError, match=said):
            await other.prepare(verified(archive))
        with pytest.raises(RepositoryError, match=said):
            async with other.transaction("token"):
                pass


async def test_a_cancelled_preparation_leaves_nothing(
    repository: DirectoryRepository, root: Path, tmp_path: Path
) -> None:
    layer = verified(make_layer(tmp_path, "large", {"large": os.urandom(64 << 20)}))
    preparing = asyncio.create_task(repository.prepare(layer))
    unpacked = root / ".batches" / f".prepared-{layer.digest}" / "layerfs" / "large"
    # A process that is busy with it looks as often as it unpacks.
    while not unpacked.exists():  # noqa: ASYNC110 - a thread makes it
        await asyncio.sleep(0)
    preparing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await preparing
    assert _left_over(root) == []


async def test_published_layers_are_listed_shard_by_shard(
    repository: DirectoryRepository, root: Path, tmp_path: Path
) -> None:
    archives = sorted((make_layer(tmp_path, str(number)) for number in range(8)), key=lambda archive: archive.digest)
    assert await repository.list_layers("00") == ()
    await _publish(repository, *archives)
    waiting = await repository.prepare(verified(make_layer(tmp_path, "waiting")))
    (root / ".layers" / archives[0].digest[:2] / "no digest").mkdir()
    (root / sidecar_path(archives[1].digest)).unlink()
    (root / archives[2].digest).unlink()
    async with repository.transaction("open") as transaction:
        await transaction.add(waiting)
        listed = [layer for number in range(256) for layer in await repository.list_layers(f"{number:02x}")]
    assert listed == [
        ListedLayer(digest=archive.digest, whole=archive is not archives[1], linked=archive is not archives[2])
        for archive in archives
    ]
