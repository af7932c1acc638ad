"""Checks one catalog: its tables, its rows, and the paths that they are."""

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from services.common.errors import InvalidValueError
from services.repository.native.check.counters import count
from services.repository.native.check.objects import WantedObject
from services.repository.native.check.problem import PUBLISH_AGAIN, Problem, at_most_few
from services.repository.native.check.rules import ROW_RULES, TYPE_RULES, Rule
from services.repository.native.check.tables import check_tables
from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.reader.catalog import Catalog, CatalogReference
from services.repository.native.reader.entries import (
    Row,
    compression_of,
    decode_xattrs,
    hash_algorithm_of,
    show_path,
)
from services.repository.native.records import (
    COUNTERS,
    DIGEST_SIZE,
    ContentHash,
    EntryFlag,
    ObjectKind,
    path_hash,
)

__all__ = ["CatalogFacts", "check_catalog"]

_MARKER: Final = b".cvmfscatalog"
# Of every row a few bits are looked at, and plain numbers are ten times as quick as flags.
_DIRECTORY: Final = int(EntryFlag.DIRECTORY)
_MOUNTPOINTS: Final = int(EntryFlag.NESTED_MOUNTPOINT | EntryFlag.BIND_MOUNTPOINT)
_EXTERNAL: Final = int(EntryFlag.EXTERNAL)
_CHUNKED: Final = int(EntryFlag.CHUNKED)
_UNKNOWN_DEPTH: Final = 4096
_MOST: Final = 1000
"""Defects of one catalog that are told one by one; nobody reads more, and a hostile catalog might have millions."""


@dataclass(slots=True)
class CatalogFacts:
    """What is known of a catalog after it has been checked."""

    reference: CatalogReference
    problems: list[Problem] = field(default_factory=list)
    readable: bool = False
    """Whether the rest is filled in."""
    size: int = 0
    """Of the uncompressed catalog, in bytes."""
    revision: int = 0
    previous: ContentHash | None = None
    """The catalog that it came from, where it tells."""
    entries: int = 0
    root: Row | None = None
    """Row of its root."""
    stated: dict[str, int] = field(default_factory=dict)
    """Its counters as they stand there."""
    counted: dict[str, int] = field(default_factory=dict)
    """What `self_` counters must be, by their names without the prefix."""
    nested: list[tuple[CatalogReference, Row]] = field(default_factory=list)
    """Catalogs directly below, with the rows of their mountpoints."""


def check_catalog(catalog: Catalog, facts: CatalogFacts, found: Callable[[WantedObject], None]) -> None:
    """Check an open catalog (blocking).

    Parameters
    ----------
    catalog
        The catalog.
    facts
        Gets what is found out.
    found
        Told of every object that the catalog's files consist of.

    Raises
    ------
    BrokenRepositoryError
        The catalog cannot be read to its end.
    """
    _Check(catalog, facts, found).run()


class _Check:
    def __init__(self, catalog: Catalog, facts: CatalogFacts, found: Callable[[WantedObject], None]) -> None:
        self._catalog = catalog
        self._database = catalog.database
        self._facts = facts
        self._found = found
        self._place = show_path(catalog.path)
        self._is_top = not catalog.path
        self._more = 0

    def _add(self, what: str, remedy: str = PUBLISH_AGAIN, *, place: str | None = None) -> None:
        if len(self._facts.problems) < _MOST:
            self._facts.problems.append(Problem(place or self._place, what, remedy))
        else:
            self._more += 1

    def run(self) -> None:
        what, sound = check_tables(self._catalog)
        for each in what:
            self._add(each)
        if not sound:
            return
        self._properties()
        if sum(map(self._apply, TYPE_RULES)):
            return
        hides = [rule.hides for rule in ROW_RULES if self._apply(rule)]
        self._facts.root = self._catalog.row(self._catalog.path)
        self._root()
        self._paths(told=any(hides))
        self._mountpoints()
        self._counters()
        self._facts.readable = True
        if self._more:
            self._facts.problems.append(Problem(self._place, f"{self._more} more defects are here", PUBLISH_AGAIN))

    def _properties(self) -> None:
        properties = self._catalog.properties
        self._facts.revision = self._catalog.revision
        for key in ("last_modified", "previous_revision") if self._is_top else ():
            if key not in properties:
                self._add(
                    f"its catalog has no property {key}, which garbage collection and replication need",
                    "publish another revision with a program that writes it",
                )
        if "schema_revision" not in properties:
            self._add("its catalog has no property schema_revision, by which clients know its columns")
        previous = properties.get("previous_revision")
        if previous is not None:
            try:
                self._facts.previous = ContentHash.parse(previous)
            except InvalidValueError:
                what = f"the property previous_revision of its catalog is {previous[:80]!r}, which is no hash"
                self._add(f"{what}: replicas and collections fail")
        for key in ("TTL", "last_modified"):
            if not properties.get(key, "0").isdecimal():
                self._add(f"the property {key} of its catalog is {properties[key]!r}, which is no number")

    def _apply(self, rule: Rule) -> bool:
        """Report the rows that break a rule; tell whether there are any."""
        root_1, root_2 = path_hash(self._catalog.path)
        rows = self._catalog.judge(rule.query, {"root_1": root_1, "root_2": root_2})
        problems = at_most_few(
            (Problem(self._where(row[0], row[1]), rule.text.format(*map(_show, row[2:])), rule.remedy) for row in rows),
            place=self._place,
        )
        self._facts.problems.extend(problems)
        return bool(problems)

    def _where(self, md5path_1: Any, md5path_2: Any) -> str:  # noqa: ANN401 - whatever the column holds
        """Find the path of a row by its parents' names."""
        names: list[bytes] = []
        key = (md5path_1, md5path_2)
        root = path_hash(self._catalog.path)
        while key != root:
            row = self._database.first(
                "SELECT parent_1, parent_2, CAST(name AS BLOB) FROM catalog WHERE md5path_1 = ? AND md5path_2 = ?", key
            )
            if row is None or len(names) > _UNKNOWN_DEPTH:
                return self._unplaced(names, key)
            names.append(row[2] or b"")
            key = row[:2]
        return show_path(b"/".join((self._catalog.path, *reversed(names))))

    def _unplaced(self, names: list[bytes], key: tuple[Any, Any]) -> str:
        if not names:
            return f"{self._place} (path hash {key[0]}, {key[1]})"
        return f"{self._place} (entry {show_path(b'/'.join(reversed(names)))} of no known directory)"

    def _root(self) -> None:
        root = self._facts.root
        if root is None:
            self._add("its catalog has no entry for it")
            return
        if self._is_top:
            if root.rowid != 1:
                (name,) = self._database.first("SELECT name FROM catalog WHERE rowid = 1") or (b"",)
                self._add(
                    f"its row is number {root.rowid}, and clients give the root's inode to number 1, {_show(name)}",
                    "publish again with a program that writes the root's row first",
                )
            if (root.parent_1, root.parent_2) != (0, 0):
                self._add("it has a parent, so that clients list it in itself")
        elif (root.parent_1, root.parent_2) != path_hash(self._catalog.path.rpartition(b"/")[0]):
            self._add("the parent of its row in its own catalog is another directory")
        elif root.name != self._catalog.path.rpartition(b"/")[2]:
            self._add(f"its row in its own catalog has the name {_show(root.name)}")
        if bool(root.flags & EntryFlag.NESTED_ROOT) == self._is_top:
            what = "is marked as" if self._is_top else "is not marked as"
            self._add(f"it {what} the root of a nested catalog")

    def _paths(self, *, told: bool) -> None:
        """Follow directories down from the root: what is not met, or has another path's hash, cannot be found.

        Parameters
        ----------
        told
            Whether there are entries that are not met for a reason that has been told.
        """
        facts = self._facts
        (total,) = self._database.row("SELECT count(*) FROM catalog")
        facts.entries = total
        if facts.root is None:
            return
        met = 1
        wrong: list[Problem] = []
        directories = [self._catalog.path]
        while directories:
            directory = directories.pop()
            for row in self._children(directory):
                path = directory + b"/" + bytes(row.name)
                met += 1
                if path_hash(path) != (row.md5path_1, row.md5path_2):
                    what = "its row has the path hash of another path, so that clients do not find it"
                    wrong.append(Problem(show_path(path), what, PUBLISH_AGAIN))
                elif row.flags & _DIRECTORY and not row.flags & _MOUNTPOINTS:
                    directories.append(path)
                self._entry(row, path)
        facts.problems.extend(at_most_few(wrong, place=self._place))
        if met < total and not told and not wrong:
            self._add(f"{total - met} entries of its catalog hold one another and cannot be reached")
        if not self._is_top:
            marker = self._catalog.row(self._catalog.path + b"/" + _MARKER)
            if marker is None:
                self._add(
                    "it is the root of a nested catalog and holds no .cvmfscatalog, which the stock checker wants"
                )
            elif not stat.S_ISREG(marker.mode):
                self._add("its .cvmfscatalog is no regular file, which the stock checker wants")

    def _children(self, directory: bytes) -> Iterator[Row]:
        first, second = path_hash(directory)
        for row in self._catalog.rows(f"parent_1 = {first} AND parent_2 = {second}"):
            if (row.md5path_1, row.md5path_2) != (first, second):  # a root that names itself as its parent is told
                yield row

    def _entry(self, row: Row, path: bytes) -> None:
        if row.name == _MARKER and path not in (b"/" + _MARKER, self._catalog.path + b"/" + _MARKER):
            what = "it holds a .cvmfscatalog and is no nested catalog, which the stock checker refuses"
            self._add(what, place=show_path(path.rpartition(b"/")[0]))
        if row.xattr is not None:
            self._attributes(row.xattr, path)
        if stat.S_ISREG(row.mode) and not row.flags & _EXTERNAL:
            self._content(row, path)

    def _attributes(self, blob: bytes, path: bytes) -> None:
        place = show_path(path)
        try:
            attributes = decode_xattrs(blob)
        except BrokenRepositoryError as error:
            self._add(str(error), "publish it again: clients show none of its attributes", place=place)
            return
        if not attributes:
            self._add("its attributes are none and not NULL, so that they are counted", place=place)
        if blob[0] != 1:
            self._add(
                "its attributes have the form of version 2, and clients before 2.14 show none of them",
                "publish it again with no attribute of more than 255 bytes",
                place=place,
            )

    def _content(self, row: Row, path: bytes) -> None:
        algorithm, compression = hash_algorithm_of(row.flags), compression_of(row.flags)
        if algorithm is None or compression is None:
            return  # a rule has told it
        place = show_path(path)
        if row.flags & _CHUNKED:
            for size, digest in self._database.rows(
                "SELECT size, hash FROM chunks WHERE md5path_1 = ? AND md5path_2 = ? AND typeof(size) = 'integer'"
                " AND typeof(hash) = 'blob' AND length(hash) = 20",
                (row.md5path_1, row.md5path_2),
            ):
                self._found(WantedObject(ContentHash(digest, algorithm), ObjectKind.CHUNK, size, compression, place))
        if row.hash is not None and len(row.hash) == DIGEST_SIZE:
            self._found(WantedObject(ContentHash(row.hash, algorithm), ObjectKind.FILE, row.size, compression, place))

    def _mountpoints(self) -> None:
        keys = set()
        for (path,) in self._database.rows(
            "SELECT path FROM nested_catalogs WHERE typeof(path) != 'text' OR typeof(sha1) != 'text'"
        ):
            what = "path and hash of its nested catalog are no texts, so that the stock checker does not find them"
            self._add(what, place=_show(path))
        for reference in self._catalog.all_nested():
            if not reference.path.startswith(self._catalog.path + b"/"):
                self._add(f"its catalog names a nested catalog for {show_path(reference.path)}, which is not below it")
                continue
            keys.add(path_hash(reference.path))
            row = self._catalog.row(reference.path)
            if row is None:
                self._add(
                    "its parent catalog names a nested catalog for it, and has no such directory",
                    place=show_path(reference.path),
                )
                continue
            if not row.flags & EntryFlag.NESTED_MOUNTPOINT:
                self._add("it has a nested catalog and is not marked so", place=show_path(reference.path))
            self._facts.nested.append((reference, row))
        bound = {path_hash(reference.path) for reference in self._catalog.all_bind_mountpoints()}
        for flag, known, what in (
            (EntryFlag.NESTED_MOUNTPOINT, keys, "a nested catalog"),
            (EntryFlag.BIND_MOUNTPOINT, bound, "another revision"),
        ):
            for row in self._catalog.rows(f"flags & {int(flag)}"):
                if (row.md5path_1, row.md5path_2) not in known:
                    self._add(
                        f"it is marked as the mountpoint of {what}, and its catalog does not name one",
                        place=self._where(row.md5path_1, row.md5path_2),
                    )

    def _counters(self) -> None:
        stated = self._catalog.counters()
        counted = count(self._catalog)
        for name in COUNTERS:
            if name not in stated:
                self._add(f"its catalog has no counter {name}, so that clients refuse to mount it")
        for name, value in counted.items():
            found = stated.get(f"self_{name}", value)
            if found != value:
                self._add(f"the counter self_{name} of its catalog is {found} instead of {value}")
        for name in stated.keys() - set(COUNTERS):
            self._add(f"its catalog has the counter {name}, which nobody knows")
        self._facts.stated, self._facts.counted = stated, counted


def _show(value: object) -> str:
    return show_path(value) if isinstance(value, bytes) else str(value)
