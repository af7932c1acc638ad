"""A layer's tree that exists in memory only, by names and sizes."""

from services.common.archive.errors import UnsafeArchiveError
from services.common.archive.notes import show
from services.common.archive.reader import Entry, TarReader

__all__ = ["MemoryTree"]


class _Leaf:
    """Anything but a directory; hard links share it."""

    __slots__ = ("links", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.links = 1


_Directory = dict[bytes, "_Leaf | _Directory"]


class MemoryTree:
    """What `DiskTree` would make, without making it: some 200 bytes per entry."""

    def __init__(self) -> None:
        self._root: _Directory = {}
        self.size = 0

    def directory(self, path: bytes, entry: Entry) -> None:  # noqa: ARG002 - attributes are not kept
        """Make a directory unless it exists."""
        parent, name = self._enter(path)
        if not isinstance(parent.get(name), dict):
            self._put(parent, name, {})

    def file(self, path: bytes, entry: Entry, data: TarReader) -> None:  # noqa: ARG002 - data are passed over
        """Make a file in place of what is there."""
        parent, name = self._enter(path)
        self._put(parent, name, _Leaf(entry.size))
        self.size += entry.size

    def symlink(self, path: bytes, entry: Entry) -> None:
        """Make a leaf in place of what is there."""
        parent, name = self._enter(path)
        self._put(parent, name, _Leaf(len(entry.link)))
        self.size += len(entry.link)

    def node(self, path: bytes, entry: Entry) -> None:  # noqa: ARG002 - attributes are not kept
        """Make a leaf in place of what is there."""
        parent, name = self._enter(path)
        self._put(parent, name, _Leaf(0))

    def link(self, path: bytes, target: bytes) -> bool:
        """Make a hard link in place of what is there; return False where the target is absent."""
        leaf = self._look_up(target)
        if leaf is None:
            return False
        if isinstance(leaf, dict):
            raise UnsafeArchiveError(f"{show(path)} is a hard link to the directory {show(target)}")
        parent, name = self._enter(path)
        if parent.get(name) is not leaf:
            leaf.links += 1
            self._put(parent, name, leaf)
        return True

    def vacate(self, path: bytes) -> None:
        """Remove what is there, if anything, but make its parents."""
        parent, name = self._enter(path)
        if name in parent:
            self._drop(parent.pop(name))

    def imply(self, path: bytes) -> None:
        """Make a directory, which may be the root, unless it exists."""
        self._enter(path + b"/")

    def is_directory(self, path: bytes) -> bool | None:
        """Tell whether a path is a directory; None where nothing is there."""
        node = self._look_up(path)
        return None if node is None else isinstance(node, dict)

    def delete(self, path: bytes) -> None:
        """Leave the tree as it is."""

    def make_opaque(self, path: bytes) -> None:
        """Leave the tree as it is."""

    def finish(self) -> None:
        """Leave the tree as it is."""

    def _enter(self, path: bytes) -> tuple[_Directory, bytes]:
        *parents, name = path.split(b"/")
        directory = self._root
        for depth, part in enumerate(parents):
            if not part:
                continue
            following = directory.setdefault(part, {})
            if not isinstance(following, dict):
                raise UnsafeArchiveError(
                    f"{show(b'/'.join(parents[: depth + 1]))} is no directory, but the archive has something below it"
                )
            directory = following
        return directory, name

    def _look_up(self, path: bytes) -> "_Leaf | _Directory | None":
        node: _Leaf | _Directory | None = self._root
        for part in path.split(b"/") if path else ():
            if not isinstance(node, dict):
                return None
            node = node.get(part)
        return node

    def _put(self, parent: _Directory, name: bytes, node: "_Leaf | _Directory") -> None:
        if name in parent:
            self._drop(parent[name])
        parent[name] = node

    def _drop(self, node: "_Leaf | _Directory") -> None:
        if isinstance(node, dict):
            for inner in node.values():
                self._drop(inner)
            return
        node.links -= 1
        if not node.links:
            self.size -= node.size
