# ruff: noqa: S608 - the statements are these tests' own
"""What of the format the golden repository does not have: old schemas, other hashes, bind mountpoints."""

import hashlib
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from services.repository.native.check.checker import Checker
from services.repository.native.errors import BrokenRepositoryError, ObjectMissingError
from services.repository.native.reader.errors import UntrustedError
from services.repository.native.reader.reader import RepositoryReader
from services.repository.native.reader.revision import Revision
from services.repository.native.revisions import read_revision
from services.repository.native.storage.directory import DirectoryStorage
from tests.support.forgery import Forgery, forged_key
from tests.support.golden import GOLDEN, GOLDEN_KEY, GOLDEN_NAME
from tests.support.sqlite_files import open_below

Newest = Callable[[], Revision]

_SMALL = b"/files/small.txt"
_CONTENT = b"x" * 21
_SHAKE = "-shake128"


@pytest.fixture
def forgery(tmp_path: Path) -> Forgery:
    return Forgery(tmp_path / "repository")


@pytest.fixture
def newest(forgery: Forgery) -> Iterator[Newest]:
    """Seal the forgery and open its newest revision."""
    with ExitStack() as stack:

        def open_() -> Revision:
            forgery.seal()
            storage = DirectoryStorage(forgery.root)
            reader = RepositoryReader(storage, name=GOLDEN_NAME, master_keys=[GOLDEN_KEY, forged_key()])
            stack.enter_context(reader)
            return reader.newest(reader.head())

        yield open_


def _problems(forgery: Forgery) -> list[str]:
    checker = Checker(DirectoryStorage(forgery.root), name=GOLDEN_NAME, master_keys=[forged_key()])
    return [str(problem) for problem in checker.run().problems]


@pytest.mark.parametrize(
    ("revision", "statements"),
    [
        (6, ["ALTER TABLE catalog DROP COLUMN mtimens"]),
        (3, ["ALTER TABLE catalog DROP COLUMN mtimens", "DROP TABLE bind_mountpoints"]),
    ],
)
def test_catalogs_of_old_schemas_are_read(
    forgery: Forgery, newest: Newest, revision: int, statements: list[str]
) -> None:
    change = f"UPDATE properties SET value = '{revision}' WHERE key = 'schema_revision'"
    forgery.edit("", change, *statements)
    entry = newest().stat(_SMALL)
    assert entry is not None
    assert (entry.size, entry.mtime_ns) == (21, 0)
    assert newest().shown_at(b"/files") is None
    assert {entry.name for entry in newest().list(b"/xattrs")} >= {b"cap", b"user"}
    assert _problems(forgery) == []


def test_catalogs_without_attributes_and_sizes_are_read(forgery: Forgery, newest: Newest) -> None:
    forgery.edit(
        "",
        "UPDATE properties SET value = '0' WHERE key = 'schema_revision'",
        "ALTER TABLE catalog DROP COLUMN mtimens",
        "ALTER TABLE catalog DROP COLUMN xattr",
        "ALTER TABLE nested_catalogs DROP COLUMN size",
        "UPDATE statistics SET value = 0 WHERE counter = 'self_xattr'",
    )
    revision = newest()
    entry = revision.stat(b"/xattrs/user")
    assert entry is not None
    assert entry.xattrs == {}
    assert revision.stat(b"/nested1/n1.txt") is not None


def test_a_refused_catalog_leaves_no_file_open(forgery: Forgery) -> None:
    forgery.edit("", "UPDATE properties SET value = '3.0' WHERE key = 'schema'")
    forgery.seal()
    storage, temporary = DirectoryStorage(forgery.root), Path(tempfile.gettempdir())
    with RepositoryReader(storage, name=GOLDEN_NAME, master_keys=[GOLDEN_KEY, forged_key()]) as reader:
        root = reader.head().manifest.root
    before = open_below(temporary)
    with pytest.raises(BrokenRepositoryError, match="has the schema"):
        read_revision(storage, root)
    assert open_below(temporary) == before


@pytest.mark.parametrize("schema", ["2.4", "3.0"])
def test_other_schemas_are_refused(forgery: Forgery, newest: Newest, schema: str) -> None:
    forgery.edit("", f"UPDATE properties SET value = '{schema}' WHERE key = 'schema'")
    with pytest.raises(BrokenRepositoryError, match=f"has the schema {schema}: clients read 2.5 only"):
        newest().stat(_SMALL)


@pytest.mark.parametrize(
    ("number", "digest", "suffix"),
    [
        (1, lambda stored: hashlib.new("ripemd160", stored, usedforsecurity=False).digest(), "-rmd160"),
        (2, lambda stored: hashlib.shake_128(stored).digest(20), _SHAKE),
    ],
)
@pytest.mark.parametrize("compression", [0, 1])
def test_objects_of_other_hashes_are_read(
    forgery: Forgery,
    newest: Newest,
    number: int,
    digest: Callable[[bytes], bytes],
    suffix: str,
    compression: int,
) -> None:
    stored = _CONTENT if compression else zlib.compress(_CONTENT)
    name = digest(stored).hex()
    forgery.object(name, suffix).parent.mkdir(exist_ok=True)
    forgery.object(name, suffix).write_bytes(stored)
    flags = 4 | number << 8 | compression << 11
    forgery.edit("", f"UPDATE catalog SET hash = x'{name}', flags = {flags} WHERE name = 'small.txt'")
    revision = newest()
    entry = revision.stat(_SMALL)
    assert entry is not None
    assert str(entry.hash) == name + suffix
    assert b"".join(revision.content(entry)) == _CONTENT
    assert _problems(forgery) == []
    forgery.object(name, suffix).write_bytes(stored + b"?")
    with pytest.raises(BrokenRepositoryError, match="has been changed"):
        list(revision.content(entry))


def test_the_content_of_external_files_is_not_here(forgery: Forgery, newest: Newest) -> None:
    forgery.edit(
        "",
        "UPDATE catalog SET flags = flags | 128 WHERE name = 'small.txt'",
        "UPDATE statistics SET value = value + 1 WHERE counter = 'self_external'",
        "UPDATE statistics SET value = value + 21 WHERE counter = 'self_external_file_size'",
    )
    revision = newest()
    entry = revision.stat(_SMALL)
    assert entry is not None
    forgery.object("2f97a78b56180e0e2e91183fca93ae8aa1f41bf1").unlink()
    with pytest.raises(BrokenRepositoryError, match="no regular file with content in the repository"):
        next(revision.content(entry))
    directory = revision.stat(b"/files")
    assert directory is not None
    with pytest.raises(BrokenRepositoryError, match="/files is no regular file"):
        next(revision.content(directory))


def test_a_bind_mountpoint_shows_another_revision(forgery: Forgery, newest: Newest) -> None:
    root = forgery.fields["C"]
    forgery.edit(
        "",
        "UPDATE catalog SET flags = 0x4001 WHERE name = 'emptydir'",
        f"INSERT INTO bind_mountpoints VALUES ('/dirs/emptydir', '{root}', 41984)",
    )
    revision = newest()
    shown = revision.shown_at(b"/dirs/emptydir")
    assert shown is not None
    assert shown.stat(_SMALL) is not None
    assert revision.shown_at(b"/dirs/private") is None
    assert revision.stat(b"/dirs/emptydir/files") is None
    assert [entry.path for entry in revision.walk(b"/dirs/emptydir")] == [b"/dirs/emptydir"]
    assert _problems(forgery) == []


def test_a_bind_mountpoint_that_shows_nothing_is_told(forgery: Forgery) -> None:
    forgery.edit("", "UPDATE catalog SET flags = 0x4001 WHERE name = 'emptydir'")
    forgery.seal()
    (problem,) = _problems(forgery)
    assert problem.startswith("/dirs/emptydir: it is marked as the mountpoint of another revision, and its catalog")


def test_hidden_entries_are_found_and_not_listed(forgery: Forgery, newest: Newest) -> None:
    forgery.edit("", "UPDATE catalog SET flags = flags | 0x8000 WHERE name = 'small.txt'")
    revision = newest()
    assert revision.stat(_SMALL) is not None
    assert _SMALL not in {entry.path for entry in revision.list(b"/files")}
    assert _SMALL in {entry.path for entry in revision.list(b"/files", hidden=True)}
    assert _SMALL not in {entry.path for entry in revision.walk()}
    assert _SMALL in {entry.path for entry in revision.walk(b"/files", hidden=True)}


def test_chunks_that_do_not_fit_together_are_not_read(forgery: Forgery, newest: Newest) -> None:
    forgery.edit("", "UPDATE chunks SET offset = offset + 1 WHERE offset = 59196")
    revision = newest()
    entry = revision.stat(b"/uncompressed/chunked")
    assert entry is not None
    with pytest.raises(BrokenRepositoryError, match="after byte 59196 its next chunk begins at 59197"):
        list(revision.content(entry))


@pytest.mark.parametrize("path", [b"/none", b"/files/none", b"/files/small.txt/none", b"/ingested/none/none"])
def test_what_is_not_there_is_not_found(newest: Newest, path: bytes) -> None:
    revision = newest()
    assert revision.stat(path) is None
    assert list(revision.walk(path)) == []
    assert list(revision.list(path)) == []


def test_a_path_without_end_is_refused(newest: Newest) -> None:
    with pytest.raises(BrokenRepositoryError, match="directories deep"):
        newest().stat(b"/d" * 5000)


def test_a_whitelist_of_another_certificate_is_no_good(forgery: Forgery) -> None:
    forgery.seal()
    shutil.copy(GOLDEN / ".cvmfswhitelist", forgery.root)
    keys = [forged_key(), GOLDEN_KEY]
    with RepositoryReader(DirectoryStorage(forgery.root), name=GOLDEN_NAME, master_keys=keys) as reader:
        with pytest.raises(UntrustedError, match="does not list the certificate"):
            reader.head()
        # With the manifest that belongs to it, it is, since the key that signed it is one of those given.
        shutil.copy(GOLDEN / ".cvmfspublished", forgery.root)
        assert reader.head().manifest.revision == 7


def test_a_repository_is_not_taken_for_another(forgery: Forgery) -> None:
    forgery.seal()
    with (
        RepositoryReader(
            DirectoryStorage(forgery.root), name="other.example.org", master_keys=[forged_key()]
        ) as reader,
        pytest.raises(UntrustedError, match=r"is of the repository golden\.example\.org, not of other\.example\.org"),
    ):
        reader.head()


def test_without_tags_and_meta_information_there_are_none(forgery: Forgery) -> None:
    del forgery.fields["H"], forgery.fields["M"]
    forgery.seal()
    with RepositoryReader(DirectoryStorage(forgery.root), name=GOLDEN_NAME, master_keys=[forged_key()]) as reader:
        head = reader.head()
        assert (reader.tags(head), reader.meta(head)) == ([], b"")
    assert _problems(forgery) == []


def test_a_place_without_repository_says_so(tmp_path: Path) -> None:
    with (
        RepositoryReader(DirectoryStorage(tmp_path), name=GOLDEN_NAME, master_keys=[GOLDEN_KEY]) as reader,
        pytest.raises(ObjectMissingError, match=r"\.cvmfswhitelist does not exist"),
    ):
        reader.head()
