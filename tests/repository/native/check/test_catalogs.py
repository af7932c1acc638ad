# ruff: noqa: S608 - the statements are these tests' own
"""Every rule about catalogs, broken on purpose: exactly that is reported, at the path that has it."""

from collections.abc import Sequence
from typing import NamedTuple

import pytest

from services.repository.native.records import COUNTER_NAMES
from tests.repository.native.check.conftest import Defects
from tests.support.forgery import Forgery


class Damage(NamedTuple):
    catalog: str
    statements: Sequence[str]
    defects: Sequence[str]


def _at(path: str) -> str:
    return f"md5path_1 = first('{path}') AND md5path_2 = second('{path}')"


def _set(path: str, change: str) -> str:
    return f"UPDATE catalog SET {change} WHERE {_at(path)}"


def _in(path: str, *, table: str = "") -> str:
    return f"{table}parent_1 = first('{path}') AND {table}parent_2 = second('{path}')"


def _named(path: str) -> str:
    return f"md5path_1 = first('{path}'), md5path_2 = second('{path}'), name = '{path.rpartition('/')[2]}'"


SMALL = "/files/small.txt"
CHUNKED = "/chunked/random"
UNPLACED = f"/ (entry {SMALL.rpartition('/')[2]} of no known directory)"

DAMAGES = {
    "NULL symlink": Damage(
        "", [_set(SMALL, "symlink = NULL")], [f"{SMALL}: its symlink column is NULL, which makes clients crash"]
    ),
    "a text for a number": Damage("", [_set(SMALL, "uid = 'root'")], [f"{SMALL}: its uid is of the type text"]),
    "a number for a blob": Damage("", [_set(SMALL, "xattr = 7")], [f"{SMALL}: its xattr is of the type integer"]),
    "negative size": Damage(
        "",
        [_set(SMALL, "size = -21"), "UPDATE statistics SET value = value - 42 WHERE counter = 'self_file_size'"],
        [f"{SMALL}: its size is -21, which is out of range"],
    ),
    "too many nanoseconds": Damage(
        "", [_set(SMALL, "mtimens = 1000000000")], [f"{SMALL}: its mtimens is 1000000000, which is out of range"]
    ),
    "directory flagged as a file": Damage(
        "",
        [_set("/dirs/emptydir", "flags = 4")],
        ["/dirs/emptydir: its mode 40711 and its flags 4 name different types"],
    ),
    "fifo flagged as chunked": Damage(
        "",
        [_set("/special/fifo", "flags = flags | 128")],
        ["/special/fifo: its mode 10640 and its flags 148 name different types"],
    ),
    "name with a slash": Damage(
        "",
        [_set(SMALL, "name = 'a/b', md5path_1 = first('/files/a/b'), md5path_2 = second('/files/a/b')")],
        ["/files/a/b: its name 'a/b' is not one that a file can have"],
    ),
    "no name": Damage(
        "",
        [_set(SMALL, "name = '', md5path_1 = first('/files/'), md5path_2 = second('/files/')")],
        ["/files/: its name '' is not one that a file can have"],
    ),
    "same name twice": Damage(
        "",
        [_set(SMALL, "name = 'owned'")],
        [
            "/files/owned: its directory has another entry of the same name",
            "/files/owned: its row has the path hash of another path, so that clients do not find it",
        ],
    ),
    "path hash of another path": Damage(
        "",
        [_set(SMALL, "md5path_1 = first('/files/other'), md5path_2 = second('/files/other')")],
        [f"{SMALL}: its row has the path hash of another path, so that clients do not find it"],
    ),
    "empty target": Damage(
        "",
        [_set("/links/rel", "symlink = ''")],
        ["/links/rel: it is a symbolic link with a target of 0 bytes; clients show 1 to 4095"],
    ),
    "target of 4096 bytes": Damage(
        "",
        [_set("/links/rel", "symlink = printf('%.4096c', 'x')")],
        ["/links/rel: it is a symbolic link with a target of 4096 bytes; clients show 1 to 4095"],
    ),
    "file with a target": Damage(
        "", [_set(SMALL, "symlink = 'x'")], [f"{SMALL}: it is no symbolic link, and has the target 'x'"]
    ),
    "file without content": Damage(
        "", [_set(SMALL, "hash = NULL")], [f"{SMALL}: it is a regular file that names no content"]
    ),
    "short hash": Damage("", [_set(SMALL, "hash = x'00ff'")], [f"{SMALL}: its hash has 2 bytes instead of 20"]),
    "directory with a hash": Damage(
        "",
        [_set("/dirs/emptydir", "hash = zeroblob(20)")],
        ["/dirs/emptydir: it is no regular file, and has a hash"],
    ),
    "unknown hash algorithm": Damage(
        "",
        [_set(SMALL, "flags = flags | 0x300")],
        [f"{SMALL}: its flags 772 name no known hash algorithm or compression"],
    ),
    "no link": Damage("", [_set(SMALL, "hardlinks = 0")], [f"{SMALL}: its number of links is 0"]),
    "links without a group": Damage(
        "", [_set(SMALL, "hardlinks = 2")], [f"{SMALL}: it has 2 links and is in no group of hard links"]
    ),
    "group in two directories": Damage(
        "",
        [
            _set("/hardlinks/a/cross", "hardlinks = (99 << 32) + 2"),
            _set("/hardlinks/b/cross", "hardlinks = (99 << 32) + 2"),
        ],
        [
            f"/hardlinks/{directory}/cross: its group of hard links is in 2 directories,"
            " which the stock checker refuses"
            for directory in "ab"
        ],
    ),
    "group of the wrong size": Damage(
        "",
        ["UPDATE catalog SET hardlinks = (hardlinks >> 32 << 32) + 4 WHERE name IN ('one', 'two', 'three')"],
        [
            f"/hardlinks/a/{name}: it has 4 links, and its group of hard links 3 members"
            for name in ("one", "three", "two")
        ],
    ),
    "group of different files": Damage(
        "",
        [_set("/hardlinks/a/setuid1", "uid = 7")],
        [
            f"/hardlinks/a/setuid{number}: its uid is not the same as"
            " that of the other members of its group of hard links"
            for number in (1, 2)
        ],
    ),
    "directory's number of links": Damage(
        "",
        [_set("/dirs", "hardlinks = 5")],
        ["/dirs: it has 5 links instead of 7: 2 and one for every directory in it"],
    ),
    "parent that is not there": Damage(
        "",
        [_set(SMALL, "parent_1 = 1, parent_2 = 2")],
        [f"{UNPLACED}: its parent is not in its catalog"],
    ),
    "parent that is a file": Damage(
        "",
        [_set(SMALL, "parent_1 = first('/files/owned'), parent_2 = second('/files/owned')")],
        ["/files/owned/small.txt: what it lies in is no directory of this catalog"],
    ),
    "parent that is another directory": Damage(
        "",
        [_set(SMALL, "parent_1 = first('/dirs'), parent_2 = second('/dirs')")],
        ["/dirs/small.txt: its row has the path hash of another path, so that clients do not find it"],
    ),
    "entry below a mountpoint": Damage(
        "",
        [
            _set(SMALL, f"parent_1 = first('/nested1'), parent_2 = second('/nested1'), {_named('/nested1/x')}"),
        ],
        ["/nested1/x: what it lies in is no directory of this catalog"],
    ),
    "directories in one another": Damage(
        "",
        [
            _set("/dirs/emptydir", "hardlinks = 3, parent_1 = md5path_1, parent_2 = md5path_2"),
            _set("/dirs", "hardlinks = hardlinks - 1"),
        ],
        ["/: 1 entries of its catalog hold one another and cannot be reached"],
    ),
    "directories in one another beside something else": Damage(
        "",
        [
            _set("/dirs/emptydir", "hardlinks = 3, parent_1 = md5path_1, parent_2 = md5path_2"),
            _set("/dirs", "hardlinks = hardlinks - 1"),
            _set(SMALL, "hash = NULL"),
        ],
        [
            "/: 1 entries of its catalog hold one another and cannot be reached",
            f"{SMALL}: it is a regular file that names no content",
        ],
    ),
    "nested root in the middle": Damage(
        "",
        [_set("/dirs/emptydir", "flags = 33")],
        ["/dirs/emptydir: it is marked as the root of a nested catalog and is none"],
    ),
    "chunked file without chunks": Damage(
        "",
        [
            (
                f"UPDATE statistics SET value = value - (SELECT count(*) FROM chunks WHERE {_at(CHUNKED)})"
                " WHERE counter = 'self_chunks'"
            ),
            f"DELETE FROM chunks WHERE {_at(CHUNKED)}",
        ],
        [f"{CHUNKED}: it is a file in chunks and has none"],
    ),
    "chunks of no chunked file": Damage(
        "",
        [
            (
                f"INSERT INTO chunks VALUES (first('{SMALL}'), second('{SMALL}'), 0, 21,"
                f" (SELECT hash FROM chunks WHERE {_at(CHUNKED)} LIMIT 1))"
            ),
            "UPDATE statistics SET value = value + 1 WHERE counter = 'self_chunks'",
        ],
        [f"{SMALL}: it has chunks and is no file in chunks"],
    ),
    "gap between chunks": Damage(
        "",
        [f"UPDATE chunks SET offset = offset + 1 WHERE {_at('/uncompressed/chunked')} AND offset = 59196"],
        [
            "/uncompressed/chunked: after byte 59196 its next chunk begins at 59197",
            "/uncompressed/chunked: after byte 76111 its next chunk begins at 76110",
        ],
    ),
    "wrong size of a file": Damage(
        "",
        [_set(SMALL, "size = 20"), "UPDATE statistics SET value = value - 1 WHERE counter = 'self_file_size'"],
        [f"{SMALL}: its object data/2f/97a78b56180e0e2e91183fca93ae8aa1f41bf1 holds more than 20 bytes"],
    ),
    "malformed attributes": Damage(
        "",
        [_set("/xattrs/user", "xattr = x'01020161'")],
        ["/xattrs/user: its extended attributes do not end within their column of 4 bytes"],
    ),
    "attributes with a rest": Damage(
        "",
        [_set("/xattrs/user", "xattr = CAST(xattr || x'00' AS BLOB)")],
        ["/xattrs/user: its extended attributes are 256 bytes, their column has 257"],
    ),
    "attributes of an unknown version": Damage(
        "",
        [_set("/xattrs/user", "xattr = x'0901'")],
        ["/xattrs/user: its extended attributes are of no known version: they begin with 0901"],
    ),
    "attributes of version 2": Damage(
        "",
        [_set("/xattrs/user", "xattr = x'0201030100612e6231'")],
        ["/xattrs/user: its attributes have the form of version 2, and clients before 2.14 show none of them"],
    ),
    "no attributes that are not NULL": Damage(
        "",
        [_set("/xattrs/user", "xattr = x'0100'")],
        ["/xattrs/user: its attributes are none and not NULL, so that they are counted"],
    ),
    "root's row not the first": Damage(
        "",
        [
            f"UPDATE catalog SET rowid = 900 WHERE {_at('')}",
            f"UPDATE catalog SET rowid = 1 WHERE {_at(SMALL)}",
        ],
        ["/: its row is number 900, and clients give the root's inode to number 1, small.txt"],
    ),
    "root with a parent": Damage(
        "",
        [_set("", "parent_1 = first(''), parent_2 = second('')")],
        ["/: it has a parent, so that clients list it in itself"],
    ),
    "no root": Damage(
        "/dirtab/v1",
        [f"DELETE FROM catalog WHERE {_at('/dirtab/v1')}"],
        [
            "/: the counter subtree_dir of its catalog is 10 instead of 9",
            "/dirtab/v1: its catalog has no entry for it",
            "/dirtab/v1: the counter self_dir of its catalog is 1 instead of 0",
            "/dirtab/v1/.cvmfscatalog: its parent is not in its catalog",
            "/dirtab/v1/f: its parent is not in its catalog",
        ],
    ),
    "nested root with another parent": Damage(
        "/nested1",
        [_set("/nested1", "parent_1 = 1")],
        ["/nested1: the parent of its row in its own catalog is another directory"],
    ),
    "nested root that is not marked": Damage(
        "/nested1",
        [_set("/nested1", "flags = 1")],
        ["/nested1: it is not marked as the root of a nested catalog"],
    ),
    "root marked as nested": Damage("", [_set("", "flags = 33")], ["/: it is marked as the root of a nested catalog"]),
    "nested catalog without marker": Damage(
        "/nested1",
        [_set("/nested1/.cvmfscatalog", _named("/nested1/other"))],
        ["/nested1: it is the root of a nested catalog and holds no .cvmfscatalog, which the stock checker wants"],
    ),
    "marker without nested catalog": Damage(
        "",
        [_set(SMALL, _named("/files/.cvmfscatalog"))],
        ["/files: it holds a .cvmfscatalog and is no nested catalog, which the stock checker refuses"],
    ),
    "mountpoint without catalog": Damage(
        "",
        [
            "DELETE FROM nested_catalogs WHERE path = '/ingested'",
            "UPDATE statistics SET value = value - 1 WHERE counter = 'self_nested'",
            # What is in the catalog that is not named any more.
            *(
                f"UPDATE statistics SET value = value - {value} WHERE counter = 'subtree_{name}'"
                for name, value in {"regular": 5, "symlink": 1, "special": 3, "dir": 2, "file_size": 42}.items()
            ),
        ],
        ["/ingested: it is marked as the mountpoint of a nested catalog, and its catalog does not name one"],
    ),
    "catalog without mountpoint": Damage(
        "",
        [_set("/ingested", "flags = 1")],
        [
            "/ingested: it has 3 links instead of 2: 2 and one for every directory in it",
            "/ingested: it has a nested catalog and is not marked so",
        ],
    ),
    "catalog for no directory": Damage(
        "",
        [
            "INSERT INTO nested_catalogs SELECT '/none', sha1, size FROM nested_catalogs WHERE path = '/ingested'",
            "UPDATE statistics SET value = value + 1 WHERE counter = 'self_nested'",
        ],
        ["/none: its parent catalog names a nested catalog for it, and has no such directory"],
    ),
    "catalog outside of its parent": Damage(
        "/nested1",
        [
            "INSERT INTO nested_catalogs SELECT '/ingested', sha1, size FROM nested_catalogs",
            "UPDATE statistics SET value = value + 1 WHERE counter = 'self_nested'",
        ],
        [
            "/: the counter subtree_nested of its catalog is 1 instead of 2",
            "/nested1: its catalog names a nested catalog for /ingested, which is not below it",
        ],
    ),
    "catalog of another directory": Damage(
        "",
        [
            (
                "UPDATE nested_catalogs SET (sha1, size) ="
                " (SELECT sha1, size FROM nested_catalogs WHERE path = '/ingested') WHERE path = '/nested1'"
            ),
        ],
        [
            (
                "/nested1: its catalog: data/3d/4862063e969f5afb544163c51b50091e0eac9cC"
                " is the catalog of /ingested by its root_prefix, not that of /nested1"
            ),
        ],
    ),
    "catalog that is missing": Damage(
        "",
        ["UPDATE nested_catalogs SET sha1 = printf('%.40c', 'a') WHERE path = '/ingested'"],
        ["/ingested: its catalog data/aa/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaC is missing"],
    ),
    "hash of a catalog that is none": Damage(
        "",
        ["UPDATE nested_catalogs SET sha1 = 'XYZ' WHERE path = '/ingested'"],
        ["/: its catalog: /ingested: the hash of its nested catalog is b'XYZ'"],
    ),
    "path of a nested catalog that is a blob": Damage(
        "",
        ["UPDATE nested_catalogs SET path = CAST(path AS BLOB) WHERE path = '/ingested'"],
        ["/ingested: path and hash of its nested catalog are no texts, so that the stock checker does not find them"],
    ),
    "wrong size of a nested catalog": Damage(
        "",
        ["UPDATE nested_catalogs SET size = size + 1024 WHERE path = '/ingested'"],
        ["/ingested: its catalog has 16384 bytes, and its parent catalog says 17408"],
    ),
    "two rows of a mountpoint": Damage(
        "",
        [_set("/ingested", "mode = mode & ~7, mtime = 5")],
        [
            "/ingested: its mode is 16872 in its parent catalog and 16877 in its own",
            "/ingested: its mtime is 5 in its parent catalog and 1795505427 in its own",
        ],
    ),
    "hidden in one catalog only": Damage(
        "",
        [_set("/ingested", "flags = flags | 0x8000")],
        ["/ingested: its flags are 32771 in its parent catalog and 33 in its own"],
    ),
    "no column for nanoseconds": Damage(
        "",
        ["ALTER TABLE catalog DROP COLUMN mtimens"],
        ["/: its catalog has the schema revision 7 and no column mtimens, which makes clients crash"],
    ),
    "another schema": Damage(
        "/ingested",
        ["UPDATE properties SET value = '2.4' WHERE key = 'schema'"],
        [
            (
                "/ingested: its catalog: data/d6/9c9a45e3d461a6cec56197cacdcc358daac086C"
                " has the schema 2.4: clients read 2.5 only"
            ),
        ],
    ),
    "no table of counters": Damage("", ["DROP TABLE statistics"], ["/: its catalog has no table statistics"]),
    "no index": Damage(
        "",
        ["DROP INDEX idx_catalog_parent"],
        ["/: its catalog has no index idx_catalog_parent, so that clients list its directories slowly"],
    ),
    "table without row numbers": Damage(
        "",
        [
            "DROP TABLE bind_mountpoints",
            "CREATE TABLE other (counter TEXT PRIMARY KEY, value INTEGER) WITHOUT ROWID",
            "INSERT INTO other SELECT * FROM statistics",
            "DROP TABLE statistics",
            "ALTER TABLE other RENAME TO statistics",
            "CREATE TABLE bind_mountpoints (path TEXT, sha1 TEXT, size INTEGER)",
        ],
        ["/: the table statistics of its catalog is WITHOUT ROWID, which makes clients abort"],
    ),
    "another primary key": Damage(
        "",
        [
            "CREATE TABLE other AS SELECT * FROM chunks",
            "DROP TABLE chunks",
            "ALTER TABLE other RENAME TO chunks",
        ],
        ["/: the table chunks of its catalog has the primary key () instead of (md5path_1, md5path_2, offset, size)"],
    ),
    "revision of the root catalog": Damage(
        "",
        ["UPDATE properties SET value = '6' WHERE key = 'revision'"],
        [".cvmfspublished: is of revision 7, and its root catalog of 6"],
    ),
    "no predecessor": Damage(
        "",
        ["DELETE FROM properties WHERE key = 'previous_revision'"],
        ["/: its catalog has no property previous_revision, which garbage collection and replication need"],
    ),
    "predecessor that is no hash": Damage(
        "/nested1",
        ["UPDATE properties SET value = 'before' WHERE key = 'previous_revision'"],
        [
            (
                "/nested1: the property previous_revision of its catalog is 'before', which is no hash: replicas and "
                "collections fail"
            )
        ],
    ),
    "no schema revision": Damage(
        "/nested1/deep/nested2",
        ["DELETE FROM properties WHERE key = 'schema_revision'"],
        ["/nested1/deep/nested2: its catalog has no property schema_revision, by which clients know its columns"],
    ),
    "nested catalog and another revision in one": Damage(
        "",
        [_set("/nested1", "flags = flags | 0x4000")],
        [
            "/nested1: it is marked as the mountpoint of a nested catalog and of another revision, and can only be one",
            "/nested1: it is marked as the mountpoint of another revision, and its catalog does not name one",
            "/nested1: its flags are 16387 in its parent catalog and 33 in its own",
        ],
    ),
    "empty file in chunks": Damage(
        "",
        [
            _set("/files/empty", "flags = 68, hash = NULL"),
            "UPDATE statistics SET value = value + 1 WHERE counter = 'self_chunked'",
        ],
        ["/files/empty: it is a file in chunks and has none"],
    ),
    "fifo with a size": Damage(
        "",
        [_set("/special/fifo", "size = 5")],
        ["/special/fifo: it is a fifo or socket and has the size 5, which the stock checker refuses"],
    ),
    "row with a number below 1": Damage(
        "",
        [_set(SMALL, "rowid = -5")],
        [f"{SMALL}: its row is number -5, and clients number inodes by that, from 1 on without large gaps"],
    ),
    "time to live that is none": Damage(
        "",
        ["UPDATE properties SET value = 'soon' WHERE key = 'TTL'"],
        ["/: the property TTL of its catalog is 'soon', which is no number"],
    ),
    "unknown counter": Damage(
        "",
        ["INSERT INTO statistics VALUES ('self_socks', 2)"],
        ["/: its catalog has the counter self_socks, which nobody knows"],
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_told_exactly(name: str, forgery: Forgery, defects: Defects) -> None:
    damage = DAMAGES[name]
    forgery.edit(damage.catalog, *damage.statements)
    forgery.seal()
    assert defects(forgery) == list(damage.defects)


def test_a_marker_that_is_no_file_is_told(forgery: Forgery, defects: Defects) -> None:
    marker = "/nested1/deep/nested2/.cvmfscatalog"
    forgery.edit("/nested1/deep/nested2", _set(marker, "mode = 4516, flags = 20, hash = NULL"))
    forgery.seal()
    told = "/nested1/deep/nested2: its .cvmfscatalog is no regular file, which the stock checker wants"
    assert told in defects(forgery)


@pytest.mark.parametrize("name", COUNTER_NAMES)
def test_a_wrong_counter_of_a_catalog_itself_is_told(name: str, forgery: Forgery, defects: Defects) -> None:
    forgery.edit("/nested1", f"UPDATE statistics SET value = value + 1 WHERE counter = 'self_{name}'")
    forgery.seal()
    (defect,) = defects(forgery)
    assert defect.startswith(f"/nested1: the counter self_{name} of its catalog is ")


@pytest.mark.parametrize("name", COUNTER_NAMES)
def test_a_wrong_counter_of_what_is_below_is_told(name: str, forgery: Forgery, defects: Defects) -> None:
    forgery.edit("/nested1", f"UPDATE statistics SET value = value + 1 WHERE counter = 'subtree_{name}'")
    forgery.seal()
    (defect,) = defects(forgery)
    assert defect.startswith(f"/nested1: the counter subtree_{name} of its catalog is ")


def test_a_missing_counter_is_told(forgery: Forgery, defects: Defects) -> None:
    forgery.edit("/nested1", "DELETE FROM statistics WHERE counter = 'subtree_external'")
    forgery.seal()
    assert defects(forgery) == [
        "/nested1: its catalog has no counter subtree_external, so that clients refuse to mount it"
    ]
