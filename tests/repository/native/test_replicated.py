"""What a stratum 1 copies: it can be read as its source can, whatever compresses the objects, and goes on for ever."""

import dataclasses
import time
import zlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.repository.native.access import RepositoryAccess
from services.repository.native.check.checker import Checker
from services.repository.native.collection.collector import Collector
from services.repository.native.collection.retention import Retention
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.records import MANIFEST, REFLOG, ContentHash, ObjectKind, RefKind
from services.repository.native.replication import UnlikeZlibError, compressed_anew, is_copied_right, is_zlib
from services.repository.native.rotation import drop_other_certificates, install_whitelist, renew_whitelist
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.storage.interface import NewObject
from services.repository.native.tags import Tags
from services.repository.native.trust.errors import TrustError
from services.repository.native.writer.history import TagName
from services.repository.native.writer.manifest import Manifest
from services.repository.native.writer.reflog import ReferenceLog
from tests.support.golden import GOLDEN
from tests.support.native import NATIVE_NAME, NativeSite, layers_of_one_shelf, publish, tar_archive
from tests.support.stratum1 import Replica
from tests.support.tars import archive, member

_NO_REPLICA = "is not compressed as replication does it: no replica is usable"


def opened(site: NativeSite) -> RepositoryAccess:
    return RepositoryAccess.open(name=NATIVE_NAME, storage=site.storage, keys=site.keys)


def replicated(site: NativeSite, directory: Path) -> Replica:
    replica = Replica(site.root, directory / "replica")
    replica.snapshot()
    return replica


def problems(site: NativeSite, root: Path) -> list[str]:
    checker = Checker(DirectoryStorage(root), name=NATIVE_NAME, master_keys=[site.keys.public.read_bytes()])
    return list(map(str, checker.run().problems))


def make_as_before(site: NativeSite, *letters: str) -> None:
    """Have the head name a certificate, or meta information, that the repository's own compressor has made."""
    access = opened(site)
    manifest = access.head.read()
    named = {"X": ("certificate", manifest.certificate), "M": ("meta", manifest.meta)}
    changed: dict[str, ContentHash] = {}
    for letter in letters:
        field, name = named[letter]
        assert name is not None
        stored = access.compressor.compress(access.get(name, ObjectKind(letter)))
        changed[field] = access.compressor.name(stored)
        site.storage.put([NewObject(changed[field].path(ObjectKind(letter)), stored)])
    manifest = dataclasses.replace(manifest, **changed)  # type: ignore[arg-type]  # the fields of these names
    reflog = ReferenceLog().add(
        site.storage.read(REFLOG), manifest.references, name=NATIVE_NAME, timestamp=manifest.published
    )
    manifest = dataclasses.replace(manifest, reflog=ContentHash.of(reflog, manifest.root.algorithm))
    site.storage.replace(REFLOG, reflog)
    site.storage.replace(MANIFEST, manifest.encode(site.keys.load().signer))


@pytest.mark.parametrize("letter", ["X", "M"])
def test_the_real_servers_objects_are_made_byte_by_byte(letter: str) -> None:
    found = [path for path in (GOLDEN / "data").rglob(f"*{letter}") if path.is_file()]
    assert found
    for path in found:
        stored = path.read_bytes()
        assert compressed_anew(zlib.decompress(stored)) == stored
        assert is_copied_right(ContentHash.parse(path.parent.name + path.name[:-1]), zlib.decompress(stored))


def test_it_does_not_matter_that_the_stock_tools_compress_in_pieces() -> None:
    content = b"".join(b"%d: %x\n" % (number, number**5) for number in range(10_000))
    stream = zlib.compressobj()
    pieces = [stream.compress(content[start : start + 16384]) for start in range(0, len(content), 16384)]
    assert compressed_anew(content) == b"".join(pieces) + stream.flush()


def test_another_zlib_is_refused_and_not_taken_for_it(
    site: NativeSite, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    is_zlib.cache_clear()
    request.addfinalizer(is_zlib.cache_clear)
    real = zlib.compress
    monkeypatch.setattr(zlib, "compress", lambda content, _level: real(content, 7))
    with pytest.raises(UnlikeZlibError, match="use a Python that is linked to zlib"):
        Tags(opened(site)).add(TagName("x"), description="", revision=None)
    (problem,) = problems(site, site.root)
    assert "whether replicas can be mounted is not known" in problem


@pytest.mark.parametrize("compressor", ["igzip", "zlib"])
@pytest.mark.parametrize("hash_", ["sha1", "shake128"])
def test_certificate_and_meta_information_are_what_replication_makes_of_them(
    site: NativeSite, tmp_path: Path, compressor: str, hash_: str
) -> None:
    site = dataclasses.replace(site, root=tmp_path / "other")
    site.create(compressor=compressor, hash=hash_)
    manifest = Manifest.parse(site.storage.read(MANIFEST))
    for name, kind in ((manifest.certificate, ObjectKind.CERTIFICATE), (manifest.meta, ObjectKind.META)):
        assert name is not None
        stored = site.storage.read(name.path(kind))
        assert stored == zlib.compress(zlib.decompress(stored), 6)


async def test_a_replica_is_read_as_its_source_is(site: NativeSite, tmp_path: Path) -> None:
    layer = tar_archive(tmp_path, archive(member(b"file", b"content")))
    async with site.opened() as repository:
        await publish(repository, layer)
    replica = replicated(site, tmp_path)
    with RepositoryReader(
        DirectoryStorage(replica.root), name=NATIVE_NAME, master_keys=[site.keys.public.read_bytes()]
    ) as reader:
        head = reader.head()
        assert head.manifest.revision == 2
        assert reader.meta(head) == b"{}\n"
        assert reader.newest(head).stat(b"/" + layer.digest.encode()) is not None
    assert problems(site, replica.root) == []


async def by_publishing(site: NativeSite, directory: Path) -> None:
    async with site.opened() as repository:
        await publish(repository, tar_archive(directory, archive(member(b"file", b"content"))))


async def by_starting(site: NativeSite, _directory: Path) -> None:
    async with site.opened():
        pass


async def by_tagging(site: NativeSite, _directory: Path) -> None:
    Tags(opened(site)).add(TagName("x"), description="", revision=None)


async def by_signing(site: NativeSite, _directory: Path) -> None:
    renew_whitelist(opened(site))


async def by_installing(site: NativeSite, _directory: Path) -> None:
    access = opened(site)
    access.whitelist.renew()
    install_whitelist(access, site.storage.read(".cvmfswhitelist"))


async def by_dropping(site: NativeSite, _directory: Path) -> None:
    drop_other_certificates(opened(site))


async def by_changing_the_key(site: NativeSite, _directory: Path) -> None:
    site.keys.key.unlink()
    site.keys.certificate.unlink()
    site.keys.complete(now=datetime.now(UTC))
    drop_other_certificates(opened(site))


@pytest.mark.parametrize("letters", ["X", "M", "XM"])
@pytest.mark.parametrize(
    "mend", [by_publishing, by_starting, by_tagging, by_signing, by_installing, by_dropping, by_changing_the_key]
)
async def test_what_an_earlier_version_made_is_mended(
    site: NativeSite, tmp_path: Path, letters: str, mend: Callable[[NativeSite, Path], Awaitable[None]]
) -> None:
    make_as_before(site, *letters)
    before = Manifest.parse(site.storage.read(MANIFEST))
    found = problems(site, site.root)
    assert len(found) == len(letters)
    assert all(_NO_REPLICA in problem and "start the publisher, publish, or sign" in problem for problem in found)

    await mend(site, tmp_path)
    assert site.problems() == []
    manifest = Manifest.parse(site.storage.read(MANIFEST))
    assert manifest.revision == before.revision + (mend is by_publishing)
    log = {(entry.name, entry.kind) for entry in ReferenceLog().read(site.storage.read(REFLOG), name=NATIVE_NAME)}
    assert {*manifest.references, (before.certificate, RefKind.CERTIFICATE)} <= log
    replica = replicated(site, tmp_path)
    assert problems(site, replica.root) == []


async def test_a_replica_that_was_made_before_is_told_and_mended_at_its_source(
    site: NativeSite, tmp_path: Path
) -> None:
    make_as_before(site, "X", "M")
    replica = replicated(site, tmp_path)
    found = problems(site, replica.root)
    assert len(found) == 2
    for problem in found:
        assert "has been changed" in problem
        assert "replication has compressed it anew: at the stratum 0, start the publisher" in problem

    await by_starting(site, tmp_path)
    replica.snapshot()
    assert problems(site, replica.root) == []


def test_what_is_right_is_left_alone(site: NativeSite) -> None:
    before = site.storage.read(MANIFEST)
    renew_whitelist(opened(site))
    opened(site).mend()
    assert site.storage.read(MANIFEST) == before


def test_a_certificate_that_has_been_changed_is_not_made_anew(site: NativeSite) -> None:
    make_as_before(site, "X")
    path = site.root / opened(site).head.read().certificate.path(ObjectKind.CERTIFICATE)
    path.write_bytes(zlib.compress(zlib.decompress(path.read_bytes()), 9))
    with pytest.raises(TrustError, match="has been changed"):
        Tags(opened(site)).add(TagName("x"), description="", revision=None)


def test_meta_information_that_is_lost_keeps_nobody_from_publishing(site: NativeSite) -> None:
    meta = opened(site).head.read().meta
    assert meta is not None
    (site.root / meta.path(ObjectKind.META)).unlink()
    Tags(opened(site)).add(TagName("x"), description="", revision=None)
    assert opened(site).head.read().meta == meta
    assert [problem for problem in site.problems() if "meta information" in problem] != []


async def test_a_replica_goes_on_after_a_collection(site: NativeSite, tmp_path: Path) -> None:
    replica = Replica(site.root, tmp_path / "replica")
    first, *missed, last = (tar_archive(tmp_path, layer) for layer in layers_of_one_shelf(5))
    async with site.opened() as repository:
        await publish(repository, first)
        replica.snapshot()
        for layer in missed:
            await publish(repository, layer)
        collected = Collector(
            access=opened(site),
            retention=Retention(revisions=1, days=0),
            forget=lambda _digests: None,
            patience=10,
            clock=lambda: time.time() + 365 * 86400,
        ).collect()
        assert collected.kept == (5,)
        replica.snapshot()
        await publish(repository, last)
        replica.snapshot()
    with site.reader() as reader:
        assert replica.holds_object(str(reader.head().manifest.root), "C")
