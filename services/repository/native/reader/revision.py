"""One revision of a repository: look-ups, listings, walks, and the content of files.

A look-up opens the catalogs on the way to its path and no others.
"""

from collections.abc import Generator, Iterator, Mapping
from typing import Final

from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.reader.cache import CatalogCache
from services.repository.native.reader.catalog import Catalog, CatalogReference
from services.repository.native.reader.entries import Entry, show_path
from services.repository.native.reader.objects import read_sized_object
from services.repository.native.reader.source import Source
from services.repository.native.records import COUNTER_NAMES, EntryFlag, ObjectKind

__all__ = ["Revision"]

_MAX_DEPTH: Final = 4096
"""Of a path, in components; PATH_MAX allows no more."""


class Revision:
    """A root catalog and everything below it (blocking; threads may share it).

    Parameters
    ----------
    source
        Where the repository is.
    root
        The root catalog.
    catalogs
        Keeps catalogs open.
    """

    def __init__(self, source: Source, root: CatalogReference, *, catalogs: CatalogCache) -> None:
        self._source = source
        self.root = root
        self._catalogs = catalogs

    def stat(self, path: bytes) -> Entry | None:
        """Find what a path names, without following a link; hidden entries are found.

        Parameters
        ----------
        path
            Absolute; the root is empty, and no path ends in a slash.

        Raises
        ------
        ObjectMissingError, StorageError, BrokenRepositoryError
            A catalog on the way cannot be read, or is not what it should be.
        """
        # A directory with a catalog of its own has its row in both; the one above it need not be fetched for that.
        with self._catalogs.open(self._catalog_of(path, depth=path.count(b"/"))) as catalog:
            return catalog.entry(path)

    def catalog_of(self, directory: bytes) -> CatalogReference:
        """Find the catalog that holds what a directory holds."""
        return self._catalog_of(directory, depth=directory.count(b"/") + 1)

    def properties(self, directory: bytes) -> Mapping[str, str]:
        """Return the properties of the catalog that holds what a directory holds.

        Raises
        ------
        ObjectMissingError, StorageError, BrokenRepositoryError
            As `stat`.
        """
        with self._catalogs.open(self.catalog_of(directory)) as catalog:
            return catalog.properties

    def catalogs_below(self, directory: bytes) -> Iterator[Catalog]:
        """Iterate over the catalogs that hold what is below a directory, its own first; each is open until the next.

        Raises
        ------
        ObjectMissingError, StorageError, BrokenRepositoryError
            As `stat`; or one catalog is named twice, of which few could make more than anybody can read.
        """
        waiting = [self.catalog_of(directory)]
        seen: set[bytes] = set()
        while waiting:
            reference = waiting.pop()
            if reference.hash.digest in seen:
                raise BrokenRepositoryError(f"{show_path(reference.path)}: its catalog is named more than once")
            seen.add(reference.hash.digest)
            with self._catalogs.open(reference) as catalog:
                waiting += [nested for nested in catalog.all_nested() if nested.path.startswith(directory + b"/")]
                yield catalog

    def _catalog_of(self, path: bytes, *, depth: int) -> CatalogReference:
        reference = self.root
        names = path.split(b"/")
        if len(names) > _MAX_DEPTH:
            raise BrokenRepositoryError(f"{show_path(path[:200])}... is {len(names)} directories deep")
        for length in range(2, depth + 1):
            prefix = b"/".join(names[:length])
            with self._catalogs.open(reference) as catalog:
                reference = catalog.nested(prefix) or reference
        return reference

    def shown_at(self, path: bytes) -> "Revision | None":
        """Return the revision that a bind mountpoint shows; the paths in it begin at its own root."""
        with self._catalogs.open(self._catalog_of(path, depth=path.count(b"/"))) as catalog:
            reference = catalog.bind_mountpoint(path)
        if reference is None:
            return None
        return Revision(self._source, reference._replace(path=b""), catalogs=self._catalogs)

    def list(self, path: bytes, *, hidden: bool = False) -> Generator[Entry, None, None]:
        """Iterate over the entries of a directory in the order of their names.

        Parameters
        ----------
        path
            The directory.
        hidden
            Whether to include those that clients do not list.

        Raises
        ------
        ObjectMissingError, StorageError, BrokenRepositoryError
            As `stat`.
        """
        with self._catalogs.open(self.catalog_of(path)) as catalog:
            for entry in catalog.children(path):
                if hidden or not entry.is_hidden:
                    yield entry

    def totals(self) -> dict[str, int]:
        """Return what the root catalog says that all catalogs hold, by the counters' names without a prefix.

        Raises
        ------
        ObjectMissingError, StorageError, BrokenRepositoryError
            It cannot be read, or lacks a counter.
        """
        with self._catalogs.open(self.root) as catalog:
            counters = catalog.counters()
        try:
            return {name: counters[f"self_{name}"] + counters[f"subtree_{name}"] for name in COUNTER_NAMES}
        except KeyError as error:
            raise BrokenRepositoryError(f"the root catalog has no counter {error.args[0]}") from None

    def walk(self, path: bytes = b"", *, hidden: bool = False) -> Iterator[Entry]:
        """Iterate over a path and everything below it, each directory before what it holds.

        Bind mountpoints, which show other revisions, are not entered.

        Raises
        ------
        ObjectMissingError, StorageError, BrokenRepositoryError
            As `stat`; or directories hold one another.
        """
        top = self.stat(path)
        if top is None:
            return
        yield top
        stack = [self.list(path, hidden=hidden)] if top.is_directory else []
        try:
            while stack:
                entry = next(stack[-1], None)
                if entry is None:
                    stack.pop()
                    continue
                yield entry
                if entry.is_directory and EntryFlag.BIND_MOUNTPOINT not in entry.flags:
                    if len(stack) >= _MAX_DEPTH:
                        raise BrokenRepositoryError(
                            f"{show_path(entry.path[:200])}... is {len(stack)} directories deep"
                        )
                    stack.append(self.list(entry.path, hidden=hidden))
        finally:
            # Before their catalogs are closed, which they read.
            for level in reversed(stack):
                level.close()

    def content(self, entry: Entry) -> Iterator[bytes]:
        """Read a regular file in pieces; only at the end is it known whether they are its content.

        Raises
        ------
        ObjectMissingError, StorageError
            An object cannot be read.
        BrokenRepositoryError
            An object is not what its name says, the file has another size, or it is no file with content here.
        """
        if not entry.is_file or EntryFlag.EXTERNAL in entry.flags:
            raise BrokenRepositoryError(f"{show_path(entry.path)} is no regular file with content in the repository")
        if EntryFlag.CHUNKED in entry.flags:
            yield from self._chunks(entry)
        elif entry.hash is None:
            raise BrokenRepositoryError(f"{show_path(entry.path)} names no object")
        else:
            yield from read_sized_object(
                self._source, entry.hash, ObjectKind.FILE, size=entry.size, compression=entry.compression
            )

    def _chunks(self, entry: Entry) -> Iterator[bytes]:
        with self._catalogs.open(self._catalog_of(entry.path, depth=entry.path.count(b"/"))) as catalog:
            for chunk in catalog.chunks(entry):
                yield from read_sized_object(
                    self._source, chunk.hash, ObjectKind.CHUNK, size=chunk.size, compression=entry.compression
                )
