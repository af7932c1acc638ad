"""A repository that has just been created, looked at byte by byte."""

import json
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from services.repository.native.create import create_repository
from services.repository.native.errors import RepositoryExistsError, StorageError
from services.repository.native.format import RepositoryFormat
from services.repository.native.records import COUNTERS, ContentHash, ObjectKind
from services.repository.native.storage.directory import DirectoryStorage
from services.repository.native.trust.errors import KeyUnusableError, WhitelistError
from services.repository.native.trust.keyring import KeyFiles
from services.repository.native.trust.whitelist import Whitelist
from services.repository.native.writer.manifest import Manifest
from tests.repository.native.conftest import NAME

NOW = 1795505437


def create(
    root: Path, keys: KeyFiles, *, chosen: RepositoryFormat | None = None, whitelist: bytes | None = None
) -> Manifest:
    return create_repository(
        name=NAME,
        storage=DirectoryStorage(root),
        keys=keys,
        chosen=chosen or RepositoryFormat(),
        meta={"description": "a test"},
        clock=lambda: NOW + 0.9,
        whitelist=whitelist,
    )


def stored(root: Path, name: ContentHash | None, kind: ObjectKind) -> bytes:
    assert name is not None
    content = (root / name.path(kind)).read_bytes()
    assert name.algorithm.digest(content) == name.digest
    return zlib.decompress(content)


def rows(content: bytes, query: str) -> list[Any]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(content)
        return connection.execute(query).fetchall()


@pytest.mark.parametrize("chosen", [RepositoryFormat(compressor="zlib"), RepositoryFormat(hash="shake128")])
def test_the_files_and_their_bytes(tmp_path: Path, keys: KeyFiles, chosen: RepositoryFormat) -> None:
    root = tmp_path / "repository"
    manifest = create(root, keys, chosen=chosen)
    assert sorted(path.name for path in root.iterdir()) == [
        ".cvmfs_master_replica",
        ".cvmfs_thin_format.json",
        ".cvmfspublished",
        ".cvmfsreflog",
        ".cvmfswhitelist",
        "data",
    ]
    assert sorted(path.name for path in (root / "data").iterdir()) == [*(f"{n:02x}" for n in range(256)), "txn"]
    body, _, rest = (root / ".cvmfspublished").read_bytes().partition(b"--\n")
    hash_line, _, signature = rest.partition(b"\n")
    lines = body.decode().splitlines()
    assert [line[0] for line in lines] == list("CBRDSGANXHTMY")
    assert lines[2:8] == [
        "Rd41d8cd98f00b204e9800998ecf8427e",
        "D240",
        "S1",
        "Gyes",
        "Ano",
        f"N{NAME}",
    ]
    assert lines[10] == f"T{NOW}"
    assert hash_line.decode() == str(ContentHash.of(body, chosen.algorithm))
    assert len(signature) == 256
    keyring = keys.load()
    keyring.certificate.verify(hash_line, signature)
    assert stored(root, manifest.certificate, ObjectKind.CERTIFICATE) == keys.certificate.read_bytes()
    assert json.loads(stored(root, manifest.meta, ObjectKind.META)) == {"description": "a test"}
    assert manifest.reflog == ContentHash.of((root / ".cvmfsreflog").read_bytes(), chosen.algorithm)
    whitelist = Whitelist.verify((root / ".cvmfswhitelist").read_bytes(), keyring.public)
    assert whitelist.allows(keyring.certificate)
    assert whitelist.repository == NAME


def test_the_first_catalog_is_empty_and_whole(tmp_path: Path, keys: KeyFiles) -> None:
    root = tmp_path / "repository"
    manifest = create(root, keys)
    catalog = stored(root, manifest.root, ObjectKind.CATALOG)
    assert len(catalog) == manifest.root_size
    assert catalog[16:20] == b"\x04\x00\x01\x01"  # pages of 1024 bytes, no WAL
    assert rows(catalog, "SELECT rowid, * FROM catalog") == [
        (1, 338333539836370388, 9098107892288553193, 0, 0, 2, None, 4096, 0o40755, NOW, 0, 1, "", "", 0, 0, None)
    ]
    assert dict(rows(catalog, "SELECT * FROM statistics")) == dict.fromkeys(COUNTERS, 0) | {"self_dir": 1}
    assert dict(rows(catalog, "SELECT * FROM properties")) == {
        "schema": "2.5",
        "schema_revision": "7",
        "revision": "1",
        "last_modified": str(NOW),
        "previous_revision": "0" * 40,
        "TTL": "240",
    }


def test_the_reference_log_names_all_there_is(tmp_path: Path, keys: KeyFiles) -> None:
    root = tmp_path / "repository"
    manifest = create(root, keys)
    assert sorted(rows((root / ".cvmfsreflog").read_bytes(), "SELECT type, hash, timestamp FROM refs")) == [
        (kind, str(name), NOW)
        for kind, name in enumerate((manifest.root, manifest.certificate, manifest.history, manifest.meta))
    ]
    on_disk = {str(path.relative_to(root)) for path in (root / "data").rglob("*") if path.is_file()}
    kinds = (ObjectKind.CATALOG, ObjectKind.CERTIFICATE, ObjectKind.HISTORY, ObjectKind.META)
    names = (manifest.root, manifest.certificate, manifest.history, manifest.meta)
    objects = {name.path(kind) for name, kind in zip(names, kinds, strict=True) if name is not None}
    assert on_disk - {"data/txn/.writer-lock"} == objects


def test_a_repository_that_is_there_is_left_alone(tmp_path: Path, keys: KeyFiles) -> None:
    root = tmp_path / "repository"
    create(root, keys)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with pytest.raises(RepositoryExistsError):
        create(root, keys)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_without_the_master_key_a_whitelist_must_be_given(tmp_path: Path, keys: KeyFiles) -> None:
    create(tmp_path / "elsewhere", keys)
    signed = (tmp_path / "elsewhere/.cvmfswhitelist").read_bytes()
    keys.master.unlink()
    root = tmp_path / "repository"
    with pytest.raises(KeyUnusableError, match=r"the master key of native\.example\.org is not here"):
        create(root, keys)
    assert not (root / ".cvmfspublished").exists()
    with pytest.raises(WhitelistError):
        create_repository(
            name=NAME,
            storage=DirectoryStorage(root),
            keys=keys,
            chosen=RepositoryFormat(),
            meta={},
            whitelist=signed,
            clock=lambda: NOW + 31 * 86400,
        )
    create(root, keys, whitelist=signed)
    assert (root / ".cvmfswhitelist").read_bytes() == signed


def test_a_storage_that_cannot_be_written_is_an_error(tmp_path: Path, keys: KeyFiles) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="no repository can be made"):
        create(tmp_path / "file", keys)
