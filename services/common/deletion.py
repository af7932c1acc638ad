"""Deletion of directories with everything in them, however deep, large or unwilling a container made them."""

import errno
import os
from collections.abc import Callable
from typing import Final

from services.common.descent import Descent
from services.common.errors import SuiteError

__all__ = ["TreeDeletionError", "delete_tree"]

_VISITS: Final = 10
"""How often a directory, or a whole tree, is begun with anew where somebody goes on working in it."""
_SHOWN: Final = 300
"""Length of a path in a message; of a longer one the end is shown."""
_AT_WORK: Final = "somebody works in it"
_ADVICE: Final = {
    errno.EPERM: "it, or its directory, may be immutable or append-only (lsattr): chattr -i -a, then delete the rest",
    errno.EBUSY: "something is mounted on it: unmount that, then delete the rest",
}


class TreeDeletionError(SuiteError, OSError):
    """A directory could not be deleted as a whole; what nothing stood in the way of is gone."""


def delete_tree(path: str | bytes | os.PathLike[str], *, dir_fd: int | None = None) -> None:
    """Delete a directory and everything in it; nothing happens if there is nothing of this name. Blocks.

    No link is followed, and nothing that is mounted in it is entered. What the kernel refuses to delete is left alone,
    and the rest goes all the same.

    Parameters
    ----------
    path
        The directory.
    dir_fd
        Descriptor of the directory that a relative path starts in.

    Raises
    ------
    TreeDeletionError
        Something is still there; the text names the first such thing, and the reason.
    NotADirectoryError
        The path is that of something else.
    """
    root = os.fsencode(path)
    failures = _Failures(root)
    for _ in range(_VISITS):
        # What is empty, or a mount point, is known without a look inside.
        if _remove_directory(root, dir_fd, lambda error: failures.add(b"", error)):
            break
        try:
            with Descent.into(root, dir_fd=dir_fd) as descent:
                _Deletion(descent, failures).run()
        except FileNotFoundError:
            break
        except NotADirectoryError:
            if _is_there(root, dir_fd):
                raise
            break
        except OSError as error:
            if error.errno != errno.ESTALE:
                failures.add(b"", error)
        if failures.count:
            break
    else:
        failures.add(b"", OSError(errno.ENOTEMPTY, _AT_WORK))
    failures.check()


def _is_there(path: bytes, dir_fd: int | None) -> bool:
    try:
        os.lstat(path, dir_fd=dir_fd)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _remove_directory(name: bytes, parent: int | None, fail: Callable[[OSError], None]) -> bool:
    """Remove a directory; return False if it has to be emptied first, or is none."""
    try:
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.ENOTDIR):
            return False
        fail(error)
    return True


class _Failures:
    """What could not be deleted: the first of it, and how much."""

    def __init__(self, root: bytes) -> None:
        self._root = root
        self._first: tuple[bytes, OSError] | None = None
        self.count = 0

    def add(self, path: bytes, error: OSError) -> None:
        self.count += 1
        if self._first is None:
            self._first = path, error

    def check(self) -> None:
        if self._first is None:
            return
        path, error = self._first
        shown = os.fsdecode(os.path.join(self._root, path) if path else self._root)
        if len(shown) > _SHOWN:
            shown = f"...{shown[-_SHOWN:]}"
        more = f" (nor can {self.count - 1} more)" if self.count > 1 else ""
        advice = f": {_ADVICE[error.errno]}" if error.errno in _ADVICE else ""
        raise TreeDeletionError(f"{shown!r} cannot be deleted{more}: {error.strerror}{advice}") from error


class _Level:
    """A directory that is being emptied."""

    __slots__ = ("failed", "names", "visits")

    def __init__(self, names: list[bytes], *, failed: int) -> None:
        self.names = names
        """Directories in it that are not empty and have not been entered yet."""
        self.failed = failed
        """How much could not be deleted before it was entered."""
        self.visits: dict[bytes, int] = {}
        """How often a directory in it was entered that was not empty afterwards, though nothing in it failed."""


class _Deletion:
    """One walk through a tree, which leaves its root empty."""

    def __init__(self, descent: Descent, failures: _Failures) -> None:
        self._descent = descent
        self._failures = failures
        self._device = descent.device
        self._levels: list[_Level] = []

    def run(self) -> None:
        self._push()
        while True:
            if self._levels[-1].names:
                self._enter(self._levels[-1].names.pop())
            elif self._descent.depth:
                self._leave()
            else:
                return

    def _push(self) -> None:
        """Remove everything from the present directory but the directories that are not empty."""
        level = _Level([], failed=self._failures.count)
        self._levels.append(level)
        descriptor = self._descent.descriptor
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    name = os.fsencode(entry.name)
                    if not entry.is_dir(follow_symlinks=False):
                        self._unlink(name, descriptor)
                    elif not self._remove(name):
                        level.names.append(name)
        except OSError as error:
            self._failures.add(self._descent.path(), error)

    def _unlink(self, name: bytes, parent: int) -> None:
        try:
            os.unlink(name, dir_fd=parent)
        except (FileNotFoundError, IsADirectoryError):
            # Somebody works in it; if it is a directory by now, that is found when this one cannot be removed.
            return
        except OSError as error:
            self._failures.add(self._descent.path(name), error)

    def _remove(self, name: bytes) -> bool:
        return _remove_directory(
            name, self._descent.descriptor, lambda error: self._failures.add(self._descent.path(name), error)
        )

    def _enter(self, name: bytes) -> None:
        try:
            self._descent.enter(name)
        except FileNotFoundError:
            return
        except NotADirectoryError:
            self._unlink(name, self._descent.descriptor)
            return
        except OSError as error:
            self._failures.add(self._descent.path(name), error)
            return
        if self._descent.device != self._device:
            # Mounted since it was found not to be empty.
            self._failures.add(self._descent.path(), OSError(errno.EBUSY, os.strerror(errno.EBUSY)))
            self._descent.leave()
            return
        self._push()

    def _leave(self) -> None:
        left = self._levels.pop()
        name = self._descent.leave()
        if self._remove(name) or self._failures.count > left.failed:
            return
        level = self._levels[-1]
        visits = level.visits[name] = level.visits.get(name, 0) + 1
        if visits < _VISITS:
            # A file system may leave names out of its list while others are removed; or somebody works in it.
            level.names.append(name)
        else:
            self._failures.add(self._descent.path(name), OSError(errno.ENOTEMPTY, _AT_WORK))
