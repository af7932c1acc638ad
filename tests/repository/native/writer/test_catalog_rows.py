"""Rows of a catalog on their way to the process that makes it."""

from services.repository.native.records import EntryFlag, HashAlgorithm
from services.repository.native.writer.catalog_rows import CatalogRows, empty_catalog, make_catalog
from services.repository.native.writer.rows import DirectoryRow


def _rows() -> CatalogRows:
    root = DirectoryRow(mode=0o40755, uid=1, gid=2, mtime=-3, mtimens=None, links=2, xattr=b"\0\xff")
    entries = (root.row(path, EntryFlag.DIRECTORY.value) for path in (b"/a", b"/a/\xff"))
    return CatalogRows(b"/a", entries, iter([(1, -2, 3, 4, b"d" * 20)]), iter([(b"/a/b", "name", 5)]), iter([("c", 6)]))


def test_rows_come_whole() -> None:
    path, *tables = CatalogRows.unpack(_rows().pack())
    assert path == b"/a"
    assert tables == [list(table) for table in _rows()[1:]]


def test_a_catalog_is_the_same_from_packed_rows() -> None:
    empty = empty_catalog(HashAlgorithm.SHA1)
    made = make_catalog(empty, _rows())
    assert made == make_catalog(empty, CatalogRows.unpack(_rows().pack()))
    assert made != empty
