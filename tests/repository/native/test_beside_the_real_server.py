# ruff: noqa: S608 - the statements are these tests' own
"""What this suite writes beside what `cvmfs_server` wrote: every database, row, signature and field.

Nothing of the suite's reader or writer is used for looking: SQLite, zlib and openssl are, as the description of the
format tells it. The golden repository is the measure.
"""

import hashlib
import re
import sqlite3
import stat
import struct
import subprocess
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from services.repository.native.trust.keyring import KeyFiles
from tests.support.golden import GOLDEN
from tests.support.layers import CAPABILITY
from tests.support.native import NATIVE_NAME, NativeSite, publish, tar_archive
from tests.support.tars import archive, member, pax

_PRAGMAS: Final = ("page_size", "encoding", "auto_vacuum", "user_version", "application_id")
_FIELDS: Final = "CBRDSGANXHTMY"
"""In the order in which the server writes them."""


class Stored:
    """A repository in a directory, looked at by nothing but this."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.root = root
        self._stack = stack
        body, _, rest = (root / ".cvmfspublished").read_bytes().partition(b"--\n")
        self.body = body
        self.hash_line, _, self.signature = rest.partition(b"\n")
        self.fields = {line[:1]: line[1:] for line in body.decode().splitlines()}

    def object(self, name: str, kind: str = "") -> bytes:
        stored = (self.root / "data" / name[:2] / (name[2:] + kind)).read_bytes()
        assert hashlib.sha1(stored, usedforsecurity=False).hexdigest() == name
        return zlib.decompress(stored)

    def catalogs(self) -> list[sqlite3.Connection]:
        """Open the root catalog, and after it every one below it."""
        names, opened = [self.fields["C"]], []
        while names:
            opened.append(self.database(self.object(names.pop(), "C")))
            names += [name for (name,) in opened[-1].execute("SELECT sha1 FROM nested_catalogs")]
        return opened

    def database(self, content: bytes) -> sqlite3.Connection:
        """Open a database for the time of the test."""
        connection = self._stack.enter_context(closing(sqlite3.connect(":memory:")))
        connection.deserialize(content)
        connection.text_factory = lambda text: text.decode(errors="surrogateescape")
        return connection


def schema(connection: sqlite3.Connection) -> dict[str, str]:
    """Return the statements that made tables and indices, however they are spaced."""
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {name: re.sub(r"\s*([(),])\s*", r"\1", re.sub(r"\s+", " ", sql)) for name, sql in rows}


def pragmas(connection: sqlite3.Connection) -> dict[str, Any]:
    return {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in _PRAGMAS}


def kind_of(mode: int, flags: int) -> tuple[str, int]:
    """Return the kind of an entry: its type, and which of the flags that matter for a row's columns it has."""
    return stat.filemode(mode)[0], flags & (2 | 32 | 64)


def column_types(catalogs: Iterable[sqlite3.Connection]) -> dict[tuple[str, int], dict[str, set[str]]]:
    """Return the types of all columns, by the kind of entry."""
    found: dict[tuple[str, int], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for catalog in catalogs:
        names = [row[1] for row in catalog.execute("PRAGMA table_info(catalog)")]
        columns = ", ".join(f"typeof({name})" for name in names)
        for mode, flags, *types in catalog.execute(f"SELECT mode, flags, {columns} FROM catalog"):
            for name, type_ in zip(names, types, strict=True):
                found[kind_of(mode, flags)][name].add(type_)
    return found


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def golden(stack: ExitStack) -> Stored:
    """The repository that the real server wrote."""
    return Stored(GOLDEN, stack)


@pytest.fixture
def stored(published: NativeSite, stack: ExitStack) -> Stored:
    """The repository that the suite wrote."""
    return Stored(published.root, stack)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def published(made_keys: Path, tmp_path_factory: pytest.TempPathFactory) -> NativeSite:
    """A repository of three layers in two revisions, which hold every kind of entry."""
    tmp_path = tmp_path_factory.mktemp("published")
    site = NativeSite(root=tmp_path / "repository", state=tmp_path / "state", keys=KeyFiles(made_keys, NATIVE_NAME))
    site.create()
    time: dict[str, Any] = {"mtime": 1_700_000_000}
    first = archive(
        member(b"d/", b"", b"5", mode=0o2755, uid=5, gid=6, **time),
        member(b"d/file", b"content", mode=0o4755, **time),
        member(b"d/same", b"", b"1", link=b"d/file", **time),
        member(b"empty", b"", **time),
        member(b"large", b"l" * (25 << 20), **time),
        member(b"link", b"", b"2", link=b"d/file", **time),
        member(b"fifo", b"", b"6", **time),
        member(b"device", b"", b"3", major=300, minor=70000, **time),
        pax({b"SCHILY.xattr.security.capability": CAPABILITY}) + member(b"cap", b"x", **time),
        pax({b"path": b"\xff\xfe"}) + member(b"x", b"y", **time),
    )
    second = archive(member(b"d/", b"", b"5", **time), member(b".wh.gone", b""), member(b"d/.wh..wh..opq", b""))
    third = archive(member(b"other", b"content", **time))
    async with site.opened() as repository:
        await publish(repository, tar_archive(tmp_path, first), tar_archive(tmp_path, second))
        await publish(repository, tar_archive(tmp_path, third))
    return site


def test_catalogs_are_made_as_the_servers_are(stored: Stored, golden: Stored) -> None:
    theirs = golden.catalogs()[0]
    wanted = (schema(theirs), pragmas(theirs))
    catalogs = stored.catalogs()
    assert len(catalogs) >= 1 + 1 + 3  # of the root, of a shard, of each layer
    for catalog in catalogs:
        assert (schema(catalog), pragmas(catalog)) == wanted
        assert bytes(catalog.serialize())[18:20] == b"\1\1"
        assert catalog.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_columns_have_the_types_of_the_servers(stored: Stored, golden: Stored) -> None:
    theirs = column_types(golden.catalogs())
    found = column_types(stored.catalogs())
    assert set(found) >= {("d", 0), ("d", 2), ("d", 32), ("-", 0), ("-", 64), ("l", 0), ("p", 0), ("c", 0)}
    # The server leaves out attributes, and nanoseconds, where there are none.
    also = {"xattr": {"blob"}, "mtimens": {"integer"}}
    strange = [
        (kind, column, types)
        for kind, columns in found.items()
        for column, types in columns.items()
        if types - theirs[kind][column] - also.get(column, set())
    ]
    assert strange == []


def test_flags_are_those_of_the_description(stored: Stored) -> None:
    flags = defaultdict(set)
    for catalog in stored.catalogs():
        for mode, value in catalog.execute("SELECT mode, flags FROM catalog"):
            flags[stat.filemode(mode)[0]].add(value)
    assert flags == {
        "d": {1, 3, 33},
        "-": {4, 68, 4 | 0x8000},  # the last is the hidden marker of a nested catalog
        "l": {12},
        "p": {20},
        "c": {20},
    }


def test_properties_and_counters_are_all_there(stored: Stored, golden: Stored) -> None:
    theirs = [dict(catalog.execute("SELECT key, value FROM properties")) for catalog in golden.catalogs()]
    counters = golden.catalogs()[0].execute("SELECT counter FROM statistics ORDER BY 1").fetchall()
    for number, catalog in enumerate(stored.catalogs()):
        properties = dict(catalog.execute("SELECT key, value FROM properties"))
        assert properties.keys() == theirs[min(number, 1)].keys()
        assert (properties["schema"], properties["schema_revision"]) == ("2.5", "7")
        assert re.fullmatch("[0-9a-f]{40}", properties["previous_revision"])
        assert catalog.execute("SELECT counter FROM statistics ORDER BY 1").fetchall() == counters
        assert all(type(value) is int for (value,) in catalog.execute("SELECT value FROM statistics"))


def test_row_1_is_the_root_and_rows_are_dense(stored: Stored) -> None:
    for number, catalog in enumerate(stored.catalogs()):
        name, flags, parent_1, parent_2 = catalog.execute(
            "SELECT name, flags, parent_1, parent_2 FROM catalog WHERE rowid = 1"
        ).fetchone()
        assert flags == (1 if number == 0 else 33)
        if number == 0:
            assert (name, parent_1, parent_2) == ("", 0, 0)
        rows, last = catalog.execute("SELECT count(*), max(rowid) FROM catalog").fetchone()
        assert rows == last


def test_paths_are_hashed_as_the_server_hashes_them(stored: Stored) -> None:
    for catalog in stored.catalogs():
        prefix = dict(catalog.execute("SELECT key, value FROM properties")).get("root_prefix", "")
        paths = {_md5(prefix.encode()): prefix.encode()}
        rows = catalog.execute("SELECT md5path_1, md5path_2, parent_1, parent_2, CAST(name AS BLOB) FROM catalog")
        for first, second, parent_1, parent_2, name in rows.fetchall():
            if (first, second) not in paths:
                path = paths[parent_1, parent_2] + b"/" + name
                assert (first, second) == _md5(path)
                paths[first, second] = path


def _md5(path: bytes) -> tuple[int, int]:
    first, second = struct.unpack("<qq", hashlib.md5(path, usedforsecurity=False).digest())
    return first, second


def test_links_of_directories_are_counted_as_the_server_counts_them(stored: Stored, golden: Stored) -> None:
    for catalog in (*golden.catalogs(), *stored.catalogs()):
        wrong = catalog.execute(
            "SELECT name FROM catalog AS d WHERE flags & 3 = 1 AND hardlinks != 2 + (SELECT count(*) FROM catalog AS c"
            " WHERE c.flags & 1 AND c.parent_1 = d.md5path_1 AND c.parent_2 = d.md5path_2)"
        )
        assert wrong.fetchall() == []


def test_the_manifest_has_the_servers_fields_in_its_order(stored: Stored, golden: Stored) -> None:
    assert "".join(golden.fields) == _FIELDS
    assert "".join(stored.fields) == _FIELDS
    for field in _FIELDS:
        assert len(stored.fields[field]) == len(golden.fields[field]) or field in "BN"
    assert (stored.root / ".cvmfspublished").stat().st_size < 4096
    assert stored.hash_line.decode() == hashlib.sha1(stored.body, usedforsecurity=False).hexdigest()
    assert len(stored.object(stored.fields["C"], "C")) == int(stored.fields["B"])
    reflog = (stored.root / ".cvmfsreflog").read_bytes()
    assert stored.fields["Y"] == hashlib.sha1(reflog, usedforsecurity=False).hexdigest()


def _openssl(*arguments: str | Path, given: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *arguments], input=given, capture_output=True, check=True, timeout=300).stdout


@pytest.mark.parametrize("whose", ["ours", "the server's"])
def test_openssl_verifies_the_chain_of_trust(
    stored: Stored, golden: Stored, published: NativeSite, tmp_path: Path, whose: str
) -> None:
    repository = stored if whose == "ours" else golden
    master = published.keys.public if whose == "ours" else GOLDEN / "golden.example.org.pub"
    certificate = repository.object(repository.fields["X"], "X")
    (tmp_path / "key.pem").write_bytes(_openssl("x509", "-pubkey", "-noout", given=certificate))
    (tmp_path / "signature").write_bytes(repository.signature)
    signed = ("-sha1", "-verify", tmp_path / "key.pem", "-signature", tmp_path / "signature")
    assert _openssl("dgst", *signed, given=repository.hash_line) == b"Verified OK\n"
    whitelist, _, rest = (repository.root / ".cvmfswhitelist").read_bytes().partition(b"--\n")
    line, _, signature = rest.partition(b"\n")
    assert line.decode() == hashlib.sha1(whitelist, usedforsecurity=False).hexdigest()
    # The payload is the hash line itself, without the name of an algorithm.
    recover = ("pkeyutl", "-verifyrecover", "-pubin", "-inkey", str(master), "-pkeyopt", "rsa_padding_mode:pkcs1")
    assert _openssl(*recover, given=signature) == line
    shown = _openssl("x509", "-noout", "-fingerprint", "-sha1", given=certificate).decode().strip().partition("=")[2]
    issued, expires, name, *fingerprints = whitelist.decode().splitlines()
    assert re.fullmatch("[0-9]{14}", issued)
    assert re.fullmatch("E[0-9]{14}", expires)
    assert name == f"N{repository.fields['N']}"
    assert fingerprints == [shown]


@pytest.mark.parametrize("database", ["history", "reflog"])
def test_tags_and_references_are_kept_as_the_server_keeps_them(stored: Stored, golden: Stored, database: str) -> None:
    theirs, ours = (
        repository.database(
            repository.object(repository.fields["H"], "H")
            if database == "history"
            else (repository.root / ".cvmfsreflog").read_bytes()
        )
        for repository in (golden, stored)
    )
    assert schema(ours) == schema(theirs)
    assert pragmas(ours) == pragmas(theirs)
    wanted, found = (dict(each.execute("SELECT key, value FROM properties")) for each in (theirs, ours))
    assert found.keys() == wanted.keys()
    for key in wanted.keys() - {"fqrn", "previous_revision"}:
        assert found[key] == wanted[key]


def test_the_head_has_the_servers_tags(stored: Stored) -> None:
    history = stored.database(stored.object(stored.fields["H"], "H"))
    rows = history.execute("SELECT name, hash, revision, channel, description, branch FROM tags ORDER BY revision DESC")
    trunk, previous = rows.fetchall()
    assert trunk == ("trunk", stored.fields["C"], int(stored.fields["S"]), 0, "current HEAD", "")
    assert previous[0::2] == ("trunk-previous", int(stored.fields["S"]) - 1, "default undo target")
    root = stored.catalogs()[0]
    properties = dict(root.execute("SELECT key, value FROM properties"))
    assert properties["previous_revision"] == previous[1]
    assert properties["revision"] == stored.fields["S"]
    assert properties["last_modified"] == stored.fields["T"]
    assert properties["TTL"] == stored.fields["D"]


def test_all_directories_and_the_mark_for_replicas_are_there(stored: Stored) -> None:
    assert {path.name for path in (stored.root / "data").iterdir()} == {f"{n:02x}" for n in range(256)} | {"txn"}
    assert (stored.root / ".cvmfs_master_replica").exists()
    names = re.compile(r"[0-9a-f]{38}[CHXMP]?")
    files = list((stored.root / "data").glob("[0-9a-f][0-9a-f]/*"))
    assert all(names.fullmatch(path.name) for path in files)
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o644}
