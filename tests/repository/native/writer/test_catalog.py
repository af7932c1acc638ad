"""Catalogs above the layers, as the writer changes them."""

import sqlite3
from contextlib import closing

import pytest

from services.common.digest import Digest
from services.common.layout import layer_home
from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.records import ContentHash, EntryFlag
from services.repository.native.writer.catalog import Catalog, NestedCatalog
from services.repository.native.writer.rows import DirectoryRow

DIGEST = Digest("ab" * 32)
HOME = b"/" + layer_home(DIGEST).encode()
SHELF = HOME.rpartition(b"/")[0]
ROW = DirectoryRow(mode=0o40755, uid=0, gid=0, mtime=0, mtimens=0, links=2)


def older(revision: int) -> bytes:
    """Return a catalog as servers older than 2.12 have made it."""
    with closing(Catalog.create(SHELF, ROW, where="test")) as catalog, closing(sqlite3.connect(":memory:")) as old:
        catalog.set_properties({"schema_revision": str(revision)})
        old.deserialize(catalog.content())
        old.execute("ALTER TABLE catalog DROP COLUMN mtimens")
        old.commit()
        return bytes(old.serialize())


def test_a_directory_with_attributes_comes_and_goes() -> None:
    """As in an imported repository whose server kept what a machine's policy gives every file."""
    nested = NestedCatalog(path=HOME, name=ContentHash.of(b"catalog"), size=1, root=ROW._replace(xattr=b"\1\1\1\1ab"))
    with closing(Catalog.create(SHELF, ROW, where="test")) as shelf:
        before = shelf.counters()
        shelf.insert(nested.root.row(HOME, EntryFlag.DIRECTORY | EntryFlag.NESTED_MOUNTPOINT), "self_dir")
        shelf.attach(nested, before=None)
        assert shelf.counters() == before | {"dir": 2, "nested": 1, "xattr": 1}
        shelf.detach(HOME, nested.counters)
        assert shelf.counters() == before


@pytest.mark.parametrize("revision", [5, 6])
def test_an_older_catalog_is_brought_to_the_schema(revision: int) -> None:
    with closing(Catalog(older(revision), where="test")) as catalog:
        assert catalog.directory(SHELF) == ROW._replace(mtimens=None)
        catalog.insert(ROW.row(HOME, EntryFlag.DIRECTORY), "self_dir")
        content = catalog.content()
    with closing(sqlite3.connect(":memory:")) as made:
        made.deserialize(content)
        assert made.execute("SELECT value FROM properties WHERE key = 'schema_revision'").fetchall() == [("7",)]
        assert made.execute("SELECT mtimens FROM catalog ORDER BY rowid").fetchall() == [(None,), (0,)]


def test_a_catalog_that_is_older_still_is_refused() -> None:
    with pytest.raises(BrokenRepositoryError, match="schema revision 4"):
        Catalog(older(4), where="test")


def test_a_catalog_without_a_number_as_its_revision_is_refused() -> None:
    with closing(Catalog.create(SHELF, ROW, where="test")) as catalog:
        catalog.set_properties({"revision": "many"})
        content = catalog.content()
    with pytest.raises(BrokenRepositoryError, match="test is no catalog: invalid literal"):
        Catalog(content, where="test")
