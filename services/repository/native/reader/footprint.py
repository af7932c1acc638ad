"""What a client transfers of catalogs before it can answer the look-ups that overlayfs makes in a stack of layers.

A container's start looks up a few hundred paths. For each of their components overlayfs asks every layer that has the
directory, whether or not the name is there, and a client has to have the catalog that would hold it: the whole of it.
"""

import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import IO, Final, NamedTuple

from services.repository.native.reader.cache import CatalogCache
from services.repository.native.reader.catalog import CatalogReference
from services.repository.native.reader.entries import Entry
from services.repository.native.reader.revision import Revision
from services.repository.native.reader.source import Source
from services.repository.native.records import ObjectKind

__all__ = ["START", "Footprint", "footprint"]

START: Final = (
    b"/bin/true",
    b"/etc/ld.so.preload",
    b"/etc/ld.so.cache",
    b"/lib64/ld-linux-x86-64.so.2",
    b"/lib/x86_64-linux-gnu/libc.so.6",
    b"/usr/lib/x86_64-linux-gnu/libc.so.6",
    b"/etc/passwd",
    b"/etc/group",
    b"/etc/hosts",
    b"/etc/hostname",
    b"/etc/resolv.conf",
    b"/etc/mtab",
    b"/dev/pts",
    b"/proc",
    b"/sys",
    b"/run/secrets",
)
"""What the start of a container that runs `/bin/true` looks up: its runtime, and the dynamic loader."""

_MOST_LINKS: Final = 40
"""Symbolic links that a look-up follows, as the kernel does."""
_OPAQUE: Final = b"trusted.overlay.opaque"


class Footprint(NamedTuple):
    """Catalogs that are transferred."""

    catalogs: int
    size: int
    """Of all together, compressed, in bytes."""


def footprint(source: Source, root: CatalogReference, layers: Sequence[bytes], paths: Iterable[bytes]) -> Footprint:
    """Count the catalogs that look-ups in a union of layers transfer, the root catalog included.

    Parameters
    ----------
    source
        Where the repository is.
    root
        The root catalog of the revision.
    layers
        Directories of the repository, the topmost layer's first.
    paths
        Absolute paths in the union.

    Raises
    ------
    ObjectMissingError, StorageError, BrokenRepositoryError
        A catalog cannot be read.
    """
    counted = _Counted(source)
    with CatalogCache(counted) as catalogs:
        union = _Union(Revision(counted, root, catalogs=catalogs), layers)
        for path in paths:
            union.look_up(path)
    return Footprint(len(counted.sizes), sum(counted.sizes.values()))


class _Counted:
    """A source that notes the size of every catalog that is opened in it."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.sizes: dict[str, int] = {}

    def __str__(self) -> str:
        return str(self._source)

    def open(self, path: str) -> AbstractContextManager[IO[bytes]]:
        if path.endswith(ObjectKind.CATALOG):
            self.sizes[path] = self._source.size(path) or 0
        return self._source.open(path)

    def size(self, path: str) -> int | None:
        return self._source.size(path)


class _Union:
    """Layers as overlayfs shows them: each directory is that of all layers which have one there."""

    def __init__(self, revision: Revision, layers: Sequence[bytes]) -> None:
        self._revision = revision
        self._layers = tuple(layers)

    def look_up(self, path: bytes) -> None:
        """Look a path up, symbolic links followed, as far as it is there."""
        names = _names(path)
        above: list[Sequence[bytes]] = []
        here: Sequence[bytes] = self._layers
        links = 0
        while names:
            name = names.pop()
            if name == b"..":
                here = above.pop() if above else here
                continue
            found = list(self._found(here, name))
            if not found:
                return
            if found[0].is_symlink:
                links += 1
                if links > _MOST_LINKS:
                    return
                target = found[0].target
                names += _names(target)
                if target.startswith(b"/"):
                    above, here = [], self._layers
                continue
            above.append(here)
            here = [entry.path for entry in found if entry.is_directory]

    def _found(self, directories: Sequence[bytes], name: bytes) -> Iterator[Entry]:
        """Give what layers have of a name, from the top down to what hides the others."""
        for directory in directories:
            entry = self._revision.stat(directory + b"/" + name)
            if entry is None:
                continue
            if stat.S_ISCHR(entry.mode) and entry.size == 0:
                return
            yield entry
            if not entry.is_directory or entry.xattrs.get(_OPAQUE) == b"y":
                return


def _names(path: bytes) -> list[bytes]:
    """Return the components of a path, the first one last."""
    return [name for name in reversed(path.split(b"/")) if name not in (b"", b".")]
