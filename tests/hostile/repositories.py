"""Repositories that lie: signed all the same, or nearly, and made to lead their readers astray."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from services.repository.native.errors import BrokenRepositoryError, ObjectMissingError
from services.repository.native.reader.errors import UntrustedError
from tests.hostile.databases import HOSTILE, Hostile
from tests.support.forgery import ROOT_CATALOG, Forgery, md5path

__all__ = ["LIES", "Lie"]


@dataclass(frozen=True)
class Lie:
    """A repository, and what whoever reads all of it is told."""

    name: str
    tell: Callable[[Forgery], object]
    """Makes a copy of the golden repository lie, and signs it."""
    error: type[Exception]
    says: str
    """Part of the error's text."""


def _edited(name: str, says: str, catalog: str, *statements: str) -> Lie:
    def tell(forgery: Forgery) -> None:
        forgery.edit(catalog, *statements)
        forgery.seal()

    return Lie(name, tell, BrokenRepositoryError, says)


def _manifest(name: str, error: type[Exception], says: str, **fields: str | None) -> Lie:
    def tell(forgery: Forgery) -> None:
        forgery.fields |= {letter: value for letter, value in fields.items() if value is not None}
        for letter in [letter for letter, value in fields.items() if value is None]:
            del forgery.fields[letter]
        forgery.seal()

    return Lie(name, tell, error, says)


def _afterwards(name: str, error: type[Exception], says: str, path: str, change: Callable[[bytes], bytes]) -> Lie:
    """Change a file behind the signature."""

    def tell(forgery: Forgery) -> None:
        forgery.seal()
        file = forgery.root / path
        file.write_bytes(change(file.read_bytes()))

    return Lie(name, tell, error, says)


def _sealed(name: str, error: type[Exception], says: str, before: Callable[[Forgery], object]) -> Lie:
    def tell(forgery: Forgery) -> None:
        before(forgery)
        forgery.seal()

    return Lie(name, tell, error, says)


def _as_catalog(hostile: Hostile) -> Lie:
    return _sealed(
        f"catalog: {hostile.name}", BrokenRepositoryError, "",
        lambda forgery: forgery.rewrite("/nested1", lambda _: hostile.build()),
    )  # fmt: skip


def _as_history(hostile: Hostile) -> Lie:
    def before(forgery: Forgery) -> None:
        forgery.fields["H"] = forgery.store(hostile.build(), "H")

    return _sealed(f"tags: {hostile.name}", BrokenRepositoryError, "", before)


def _named(name: str, entry: str) -> Lie:
    """Give a file another name, and the row the hash of what that makes its path."""
    first, second = md5path(f"/files/{entry}")
    return _edited(
        name, "an entry has the name", "",
        f"UPDATE catalog SET name = CAST(x'{entry.encode().hex()}' AS TEXT), md5path_1 = {first}, md5path_2 = {second}"  # noqa: S608 - a table's
        " WHERE md5path_1 = first('/files/small.txt') AND md5path_2 = second('/files/small.txt')",
    )  # fmt: skip


def _set(path: str, what: str) -> str:
    return f"UPDATE catalog SET {what} WHERE md5path_1 = first('{path}') AND md5path_2 = second('{path}')"  # noqa: S608


def _another_key(forgery: Forgery) -> None:
    forgery.fingerprints = [hashlib.sha1(b"x", usedforsecurity=False).digest().hex(":").upper()]


def _expired(forgery: Forgery) -> None:
    forgery.expires = datetime.now(UTC) - timedelta(days=1)


def _other_name(forgery: Forgery) -> None:
    forgery.name = "other.example.org"


def _certificate(content: bytes) -> Callable[[Forgery], None]:
    def before(forgery: Forgery) -> None:
        forgery.fields["X"] = forgery.store(content, "X")

    return before


def _bomb(forgery: Forgery) -> None:
    forgery.fields["C"] = forgery.store(bytes(64 << 20), "C")
    forgery.fields["B"] = "4096"


def _not_compressed(forgery: Forgery) -> None:
    content = b"not a zlib stream"
    name = hashlib.sha1(content, usedforsecurity=False).hexdigest()
    forgery.object(name, "C").parent.mkdir(exist_ok=True)
    forgery.object(name, "C").write_bytes(content)
    forgery.fields["C"] = name


def _changed_root(forgery: Forgery) -> None:
    forgery.edit("", "UPDATE properties SET value = '8' WHERE key = 'revision'")
    file = forgery.object(forgery.fields["C"], "C")
    file.write_bytes(file.read_bytes()[:-1])


_TAGS: Final = ("rows-without-end", "computed-value-of-a-gigabyte", "empty")
"""Of the databases, those that are tried as the list of tags, too."""
_FILE: Final = "/files/small.txt"

LIES: Final = [
    _manifest("manifest-of-another-repository", UntrustedError, "is of the repository evil.org", N="evil.org"),
    _manifest("manifest-without-revision", BrokenRepositoryError, "field S is missing", S=None),
    _manifest("revision-negative", BrokenRepositoryError, "field S is no number", S="-1"),
    _manifest("revision-absurd", BrokenRepositoryError, "field S is no number", S="9" * 5000),
    _manifest("root-that-is-no-hash", BrokenRepositoryError, "field C is no hash", C="../../etc/passwd"),
    _manifest("root-that-is-missing", ObjectMissingError, "does not exist", C="0" * 40),
    _manifest("root-of-another-directory", BrokenRepositoryError, "is the catalog of /nested1 by its root_prefix",
              C="46230d5f539dca0da1c4c8e4008357a941d93d29"),
    _manifest("root-smaller-than-told", BrokenRepositoryError, "holds more than 100 bytes", B="100"),
    _manifest("history-that-is-no-hash", BrokenRepositoryError, "field H is no hash", H="x"),
    _manifest("history-that-is-a-catalog", ObjectMissingError, "does not exist", H=ROOT_CATALOG),
    _manifest("certificate-missing", ObjectMissingError, "does not exist", X="1" * 40),
    _manifest("root-path", BrokenRepositoryError, "field R is", R="0" * 32),
    _manifest("field-twice", BrokenRepositoryError, "field S is there twice", D="900\nS1"),
    _sealed("certificate-not-listed", UntrustedError, "does not list the certificate", _another_key),
    _sealed("whitelist-expired", UntrustedError, "has expired", _expired),
    _sealed("whitelist-of-another-repository", UntrustedError, "is for the repository other.example.org", _other_name),
    _sealed("certificate-empty", BrokenRepositoryError, "is no PEM certificate", _certificate(b"")),
    _sealed("certificate-of-rubbish", BrokenRepositoryError, "is no PEM certificate",
            _certificate(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")),
    _sealed("certificate-bomb", BrokenRepositoryError, "holds more than 1048576 bytes", _certificate(bytes(8 << 20))),
    _sealed("catalog-bomb", BrokenRepositoryError, "holds more than 4096 bytes", _bomb),
    _sealed("catalog-that-is-not-compressed", BrokenRepositoryError, "is no zlib stream", _not_compressed),
    _afterwards("manifest-changed", BrokenRepositoryError, "has been changed", ".cvmfspublished",
                lambda content: content.replace(b"\nS7\n", b"\nS8\n")),
    _afterwards("manifest-signature-of-nobody", UntrustedError, "is not signed by the certificate", ".cvmfspublished",
                lambda content: content[:-1] + bytes([content[-1] ^ 1])),
    _afterwards("manifest-signature-of-one-byte", UntrustedError, "is not signed by", ".cvmfspublished",
                lambda content: content.partition(b"--\n")[0] + b"--\n" + content.partition(b"--\n")[2][:41] + b"x"),
    _afterwards("manifest-signature-of-a-megabyte", BrokenRepositoryError, "is larger than", ".cvmfspublished",
                lambda content: content + bytes(1 << 20)),
    _afterwards("manifest-empty", BrokenRepositoryError, "has no line --", ".cvmfspublished", lambda _: b""),
    _afterwards("manifest-cut", BrokenRepositoryError, "", ".cvmfspublished", lambda content: content[:60]),
    _afterwards("whitelist-signature-of-nobody", UntrustedError, "is signed by none of the given", ".cvmfswhitelist",
                lambda content: content[:-1] + bytes([content[-1] ^ 1])),
    _afterwards("whitelist-changed", BrokenRepositoryError, "has been changed", ".cvmfswhitelist",
                lambda content: content.replace(b"\nE2", b"\nE3")),
    _sealed("root-changed", BrokenRepositoryError, "has been changed", _changed_root),
    _edited("nested-catalog-of-its-parent", "is the catalog of / by its root_prefix", "",
            f"UPDATE nested_catalogs SET sha1 = '{ROOT_CATALOG}', size = NULL WHERE path = '/nested1'"),  # noqa: S608
    _edited("nested-catalog-of-another", "is the catalog of", "",
            "UPDATE nested_catalogs SET sha1 = (SELECT sha1 FROM nested_catalogs WHERE path = '/ingested')"
            " WHERE path = '/nested1'"),
    _edited("nested-catalog-smaller-than-told", "holds more than 5 bytes", "", "UPDATE nested_catalogs SET size = 5"),
    _edited("nested-catalog-of-a-size-below-zero", "holds more than -5 bytes", "",
            "UPDATE nested_catalogs SET size = -5"),
    _edited("nested-catalog-with-a-path-for-a-hash", "the hash of its nested catalog is", "",
            "UPDATE nested_catalogs SET sha1 = '../../../../etc/passwd'"),
    _edited("nested-catalog-with-a-number-for-a-hash", "the hash of its nested catalog is", "",
            "UPDATE nested_catalogs SET sha1 = 5"),
    _edited("no-table-of-entries", "no such table", "", "DROP TABLE catalog"),
    _edited("no-table-of-nested-catalogs", "no such table", "/nested1", "DROP TABLE nested_catalogs"),
    _edited("entries-that-are-a-view", "computes 'catalog'", "/nested1", "ALTER TABLE catalog RENAME TO other",
            "CREATE VIEW catalog AS SELECT o.rowid AS rowid, o.* FROM other o, other, other"),
    _edited("schema-of-tomorrow", "has the schema 9.9", "/nested1",
            "UPDATE properties SET value = '9.9' WHERE key = 'schema'"),
    _edited("schema-revision-that-is-no-number", "which is no number", "/nested1",
            "UPDATE properties SET value = 'x' WHERE key = 'schema_revision'"),
    _named("name-with-a-slash", "a/b"),
    _named("name-that-climbs", "../../etc/passwd"),
    _named("name-of-the-parent", ".."),
    _named("name-of-the-directory", "."),
    _named("no-name", ""),
    _named("name-with-nul", "a\0b"),
    _edited("name-that-is-a-number", "an entry has the name 5", "", "DROP INDEX idx_catalog_parent",
            "CREATE TABLE copy AS SELECT * FROM catalog", "DROP TABLE catalog", "ALTER TABLE copy RENAME TO catalog",
            "ALTER TABLE catalog DROP COLUMN name", "ALTER TABLE catalog ADD COLUMN name",
            "UPDATE catalog SET name = 5"),
    _edited("size-below-zero", "its column size holds -1", "", _set(_FILE, "size = -1")),
    _edited("size-larger-than-the-content", "bytes instead of", "", _set(_FILE, "size = size + 1")),
    _edited("size-smaller-than-the-content", "holds more than", "", _set(_FILE, "size = 1")),
    _edited("size-that-is-text", "its column size holds", "", _set(_FILE, "size = 'x'")),
    _edited("mode-of-nothing", "its column mode holds", "", _set(_FILE, "mode = 1 << 40")),
    _edited("owner-below-zero", "its column uid holds -1", "", _set(_FILE, "uid = -1")),
    _edited("hash-that-is-missing", "names no object", "", _set(_FILE, "hash = NULL")),
    _edited("hash-of-another-length", "its hash has 5 bytes", "", _set(_FILE, "hash = zeroblob(5)")),
    _edited("hash-of-a-megabyte", "its hash has 1048576 bytes", "", _set(_FILE, "hash = zeroblob(1 << 20)")),
    _edited("target-that-is-a-number", "its column symlink holds", "", _set("/links/rel", "symlink = NULL")),
    _edited("attributes-of-40-megabytes", "too big", "/nested1", "UPDATE catalog SET xattr = zeroblob(40 << 20)"),
    _edited("attributes-cut", "do not end within their column", "", _set(_FILE, "xattr = x'010105'")),
    _edited("flags-of-nobody", "name no known hash algorithm", "", _set(_FILE, "flags = flags | (7 << 8)")),
    _edited("chunks-with-a-gap", "its next chunk begins at", "",
            "UPDATE chunks SET offset = offset + 1 WHERE offset > 0"),
    _edited("chunks-without-a-hash", "has the wrong form", "", "UPDATE chunks SET hash = 'x'"),
    *map(_as_catalog, HOSTILE),
    *[_as_history(hostile) for hostile in HOSTILE if hostile.name in _TAGS],
]  # fmt: skip
"""Lies of every kind, each with what its reader is told."""
