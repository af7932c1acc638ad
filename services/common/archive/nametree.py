"""The names of a layer's tree, in memory: what is a directory, and which names are links to one another."""

from array import array
from collections.abc import Callable
from typing import Any

from services.common.archive.errors import UnsafeArchiveError
from services.common.archive.notes import show

__all__ = ["Directory", "NameTree", "Node"]


class Directory(dict[bytes, "int | Directory"]):
    """A directory: what it holds, by name."""

    __slots__ = ("attributes",)

    def __init__(self) -> None:
        super().__init__()
        self.attributes: Any = None
        """Whatever the tree's owner keeps of it; None where the archive does not mention the directory."""


Node = int | Directory
"""A name stands for a directory, or for the number of something else."""


def _ignore(_number: int) -> None:
    pass


class NameTree:
    """A tree of names, some 150 bytes for each.

    Whatever is no directory has a number: 0, 1, 2 and so on, in the order in which it came. Hard links share it.

    Parameters
    ----------
    forget
        Told the number of whatever loses its last name.
    """

    def __init__(self, forget: Callable[[int], None] = _ignore) -> None:
        self.root = Directory()
        self.size = 0
        """Sum of the sizes of everything that has a name, in bytes."""
        self.links: dict[int, int] = {}
        """Numbers that have, or had, more than one name, and how many there are."""
        self._sizes = array("q")
        self._forget = forget

    def size_of(self, number: int) -> int:
        """Return the size of what has a number, in bytes."""
        return self._sizes[number]

    def add(self, path: bytes, size: int) -> int:
        """Give a path to something new that is no directory, in place of what is there; return its number."""
        parent, name = self.enter(path)
        if name in parent:
            self._drop(parent[name])
        number = parent[name] = self.number(size)
        self.size += size
        return number

    def number(self, size: int) -> int:
        """Return a new number for something that has no name."""
        self._sizes.append(size)
        return len(self._sizes) - 1

    def directory(self, path: bytes) -> Directory:
        """Return a directory, which may be the root, made in place of what is there unless that is one."""
        if not path:
            return self.root
        parent, name = self.enter(path)
        node = parent.get(name)
        if isinstance(node, Directory):
            return node
        if node is not None:
            self._drop(node)
        parent[name] = made = Directory()
        return made

    def link(self, path: bytes, target: bytes) -> bool:
        """Give a path to what has another one, in place of what is there; return False where the target is absent.

        Raises
        ------
        UnsafeArchiveError
            The target is a directory, or something on the way to the path is none.
        """
        number = self.look_up(target)
        if number is None:
            return False
        if isinstance(number, Directory):
            raise UnsafeArchiveError(f"{show(path)} is a hard link to the directory {show(target)}")
        parent, name = self.enter(path)
        if parent.get(name) == number:
            return True
        self.links[number] = self.links.get(number, 1) + 1
        if name in parent:
            self._drop(parent[name])
        parent[name] = number
        return True

    def vacate(self, path: bytes) -> None:
        """Remove what is there, if anything, but make its parents."""
        parent, name = self.enter(path)
        if name in parent:
            self._drop(parent.pop(name))

    def imply(self, path: bytes) -> None:
        """Make a directory, which may be the root, unless it exists.

        Raises
        ------
        UnsafeArchiveError
            Something else is there, or on the way.
        """
        self.enter(path + b"/")

    def is_directory(self, path: bytes) -> bool | None:
        """Tell whether a path is a directory; None where nothing is there."""
        node = self.look_up(path)
        return None if node is None else isinstance(node, Directory)

    def enter(self, path: bytes) -> tuple[Directory, bytes]:
        """Return the directory that a path lies in, made if it is missing, and the path's name.

        Raises
        ------
        UnsafeArchiveError
            Something on the way is no directory.
        """
        *parents, name = path.split(b"/")
        directory = self.root
        for depth, part in enumerate(parents):
            if not part:
                continue
            following = directory.get(part)
            if following is None:
                following = directory[part] = Directory()
            elif not isinstance(following, Directory):
                raise UnsafeArchiveError(
                    f"{show(b'/'.join(parents[: depth + 1]))} is no directory, but the archive has something below it"
                )
            directory = following
        return directory, name

    def look_up(self, path: bytes) -> Node | None:
        """Return what a path stands for, if anything."""
        node: Node | None = self.root
        for part in path.split(b"/") if path else ():
            if not isinstance(node, Directory):
                return None
            node = node.get(part)
        return node

    def _drop(self, node: Node) -> None:
        """Take a name from something; what has no name left is gone."""
        if isinstance(node, Directory):
            for inner in node.values():
                self._drop(inner)
            return
        left = self.links.get(node, 1) - 1
        if left:
            self.links[node] = left
            return
        self.links.pop(node, None)
        self.size -= self._sizes[node]
        self._forget(node)
