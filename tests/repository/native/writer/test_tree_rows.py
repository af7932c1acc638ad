"""Generated trees in a native repository: what is put is what readers see, and all that catalogs count is right."""

import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.reader.entries import Entry
from services.repository.native.writer.tree_rows import TreeRows
from tests.support.native import NativeSite


@contextmanager
def _changing(site: NativeSite) -> Iterator[TreeRows]:
    with site.changing() as catalogs:
        yield TreeRows(catalogs)


def test_what_is_put_is_what_readers_see(site: NativeSite) -> None:
    with _changing(site) as rows:
        rows.put_directory(b"/a/b", mode=0o1750, uid=1, gid=2, mtime=3)
        rows.put_file(b"/a/b/file", b"content", mode=0o600, uid=4, gid=5, mtime=6)
        rows.put_symlink(b"/a/link", b"b/file", uid=7, gid=8, mtime=9)
        rows.make_catalog(b"/a/b/catalog")
        rows.put_directory(b"/a/b/catalog", mode=0o700, mtime=10)
        rows.put_file(b"/a/b/catalog/inner", b"")
    with site.newest() as revision:
        found = {path: revision.stat(path) for path in (b"/a/b", b"/a/b/file", b"/a/link", b"/a/b/catalog", b"/a")}
        assert {
            path: (entry.mode, entry.uid, entry.gid, entry.mtime) for path, entry in found.items() if entry is not None
        } == {
            b"/a": (stat.S_IFDIR | 0o755, 0, 0, 0),
            b"/a/b": (stat.S_IFDIR | 0o1750, 1, 2, 3),
            b"/a/b/file": (stat.S_IFREG | 0o600, 4, 5, 6),
            b"/a/link": (stat.S_IFLNK | 0o777, 7, 8, 9),
            b"/a/b/catalog": (stat.S_IFDIR | 0o700, 0, 0, 10),
        }
        file, link = found[b"/a/b/file"], found[b"/a/link"]
        assert file is not None
        assert b"".join(revision.content(file)) == b"content"
        assert link is not None
        assert link.target == b"b/file"
        assert revision.catalog_of(b"/a/b/catalog").path == b"/a/b/catalog"
    assert site.problems() == []


def test_what_is_there_as_it_is_to_be_is_not_written_anew(site: NativeSite) -> None:
    def put(rows: TreeRows) -> None:
        rows.make_catalog(b"/c")
        rows.put_directory(b"/c", mode=0o711, mtime=1)
        rows.put_file(b"/c/file", b"content", mtime=2)
        rows.put_symlink(b"/c/link", b"file")

    catalogs = []
    for _ in range(2):
        with _changing(site) as rows:
            put(rows)
        with site.newest() as revision:
            catalogs.append(revision.catalog_of(b"/c").hash)
    assert catalogs[0] == catalogs[1]


def test_a_directory_with_entries_becomes_a_catalog_of_its_own(site: NativeSite) -> None:
    with _changing(site) as rows:
        rows.put_file(b"/d/e/file", b"1")
    with _changing(site) as rows:
        rows.make_catalog(b"/d")
        rows.make_catalog(b"/d/e")
    with site.newest() as revision:
        assert revision.catalog_of(b"/d/e").path == b"/d/e"
        assert [entry.name for entry in revision.list(b"/d/e")] == [b"file"]
    assert site.problems() == []


def test_a_catalog_that_others_have_below_stays_where_it_is(site: NativeSite) -> None:
    with _changing(site) as rows:
        rows.make_catalog(b"/d/e")
    with _changing(site) as rows:
        rows.make_catalog(b"/d")
    with site.newest() as revision:
        assert revision.catalog_of(b"/d").path == b""
    assert site.problems() == []


def test_a_tree_goes_with_the_catalogs_in_it_published_or_not(site: NativeSite) -> None:
    with _changing(site) as rows:
        rows.put_file(b"/t/plain/file", b"1")
        rows.make_catalog(b"/t/plain/old")
        rows.put_file(b"/t/plain/old/file", b"2")
        rows.put_file(b"/stays", b"3")
    with _changing(site) as rows:
        rows.make_catalog(b"/t/plain/old/deeper")
        rows.put_file(b"/t/plain/old/deeper/file", b"4")
        rows.make_catalog(b"/t/new")
        assert rows.remove(b"/t")
        assert not rows.remove(b"/t")
        assert rows.mode(b"/t") is None
        rows.make_catalog(b"/t/plain/old")
    with site.newest() as revision:
        assert {entry.name for entry in revision.list(b"")} >= {b"stays", b"t"}
        assert list(revision.list(b"/t/plain/old")) == []
    assert site.problems() == []


def test_empty_directories_go_up_to_one_that_is_not(site: NativeSite) -> None:
    with _changing(site) as rows:
        rows.put_symlink(b"/p/q/r/link", b"x")
        rows.make_catalog(b"/p/q")
        rows.put_symlink(b"/p/other", b"x")
    with _changing(site) as rows:
        rows.remove(b"/p/q/r/link")
        rows.prune(b"/p/q/r")
    with site.newest() as revision:
        assert [entry.name for entry in revision.list(b"/p")] == [b"other"]
    assert site.problems() == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda rows: rows.put_file(b"/dir", b""), "/dir is a directory"),
        (lambda rows: rows.put_symlink(b"/dir", b"x"), "/dir is a directory"),
        (lambda rows: rows.put_file(b"/file/below", b""), "/file is no directory"),
        (lambda rows: rows.put_directory(b"/link/below"), "/link is no directory"),
        (lambda rows: rows.make_catalog(b"/link"), "/link is no directory"),
        (lambda rows: rows.make_directory(b"/file"), "/file is no directory"),
    ],
)
def test_what_is_of_another_kind_is_not_replaced(
    site: NativeSite, change: Callable[[TreeRows], None], says: str
) -> None:
    with _changing(site) as rows:
        rows.put_directory(b"/dir")
        rows.put_file(b"/file", b"1")
        rows.put_symlink(b"/link", b"dir")
        with pytest.raises(BrokenRepositoryError, match=says):
            change(rows)
    assert site.problems() == []


_PATHS = st.sampled_from([b"/t/a", b"/t/b", b"/t/a/a", b"/t/a/b", b"/t/b/a", b"/t/a/a/a", b"/t/a/b/c"])
_STEPS = st.lists(st.tuples(st.sampled_from(["directory", "catalog", "file", "link", "remove"]), _PATHS), max_size=25)


def _apply(model: dict[bytes, str], kind: str, path: bytes) -> bool:
    """Do what a step does in a model of paths and kinds; return whether it can be done."""
    above = [b"/".join(path.split(b"/")[:depth]) for depth in range(2, path.count(b"/") + 1)]
    if kind == "remove":
        for place in [place for place in model if place == path or place.startswith(path + b"/")]:
            del model[place]
        return True
    wanted = "directory" if kind == "catalog" else kind
    if any(model.get(place, "directory") != "directory" for place in above):
        return False
    if (model.get(path, wanted) == "directory") != (wanted == "directory"):
        return False
    model |= dict.fromkeys(above, "directory") | {path: wanted}
    return True


def _kind(entry: Entry) -> str:
    return "directory" if entry.is_directory else "link" if entry.is_symlink else "file"


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(transactions=st.lists(_STEPS, min_size=2, max_size=2))
def test_any_changes_leave_a_repository_that_is_right(
    site: NativeSite, transactions: list[list[tuple[str, bytes]]]
) -> None:
    with _changing(site) as rows:
        rows.remove(b"/t")
        rows.make_directory(b"/t")
    model = {b"/t": "directory"}
    for steps in transactions:
        with _changing(site) as rows:
            for kind, path in steps:
                if not _apply(model, kind, path):
                    continue
                if kind == "remove":
                    rows.remove(path)
                elif kind == "catalog":
                    rows.make_catalog(path)
                elif kind == "directory":
                    rows.put_directory(path, mode=0o700)
                elif kind == "file":
                    rows.put_file(path, path)
                else:
                    rows.put_symlink(path, b"x")
        with site.newest() as revision:
            assert {entry.path: _kind(entry) for entry in revision.walk(b"/t")} == model
    assert site.problems() == []
