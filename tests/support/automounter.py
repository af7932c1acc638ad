"""A small automounter that needs no autofs of the kernel: FUSE, and a process that bind-mounts what is looked up.

Which kernels have autofs is up to whoever builds them. FUSE is asked again about a name that it has given no time to
(`entry_valid` of include/uapi/linux/fuse.h), and what has been mounted on the directory by the time that it answers is
where the look-up goes on. So a look-up mounts, as with autofs: it is held back meanwhile, and nothing is listed before.

Run as a program: `automounter.py ROOT SOURCE DELAY`.
"""

import ctypes
import errno
import os
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["automounted"]

_REQUEST: Final = struct.Struct("=IIQQIIIHH")
"""struct fuse_in_header: length, operation, number, node, user, group, process, extensions."""
_ANSWER: Final = struct.Struct("=IiQ")
"""struct fuse_out_header: length, error, number."""
_LOOKUP, _FORGET, _GETATTR, _STATFS, _INIT, _OPENDIR = 1, 2, 3, 17, 26, 27
_READDIR, _RELEASEDIR, _ACCESS, _INTERRUPT, _DESTROY, _BATCH_FORGET = 28, 29, 34, 36, 38, 42
_UNANSWERED: Final = (_FORGET, _BATCH_FORGET, _INTERRUPT)
_FIXED: Final = {
    # struct fuse_init_out: version 7.31, and requests of at most a page.
    _INIT: struct.pack("=IIIIHHIIHHI28x", 7, 31, 0, 0, 1, 1, 4096, 1, 1, 0, 0),
    _OPENDIR: bytes(16),
    _READDIR: b"",  # nothing is listed
    _RELEASEDIR: b"",
    _ACCESS: b"",
    _STATFS: struct.pack("=5Q4I24x", 0, 0, 0, 0, 0, 4096, 255, 4096, 0),
    _DESTROY: b"",
}
_ROOT_NODE: Final = 1
_BUFFER: Final = 1 << 16
_MS_BIND: Final = 4096

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def automounted(root: Path, source: Path, *, delay: float = 0) -> Iterator[None]:
    """Mount the directories below `source` on demand below `root`, each look-up taking `delay` seconds.

    Parameters
    ----------
    root
        An empty directory.
    source
        Its directories are those of now.
    delay
        What the first look-up of each takes.
    """
    program = [sys.executable, __file__, str(root), str(source), str(delay)]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"ready\n"
        try:
            yield
        finally:
            daemon.kill()
            subprocess.run(["umount", "--lazy", str(root)], check=True)  # and what is mounted below


class _Automounter:
    """Answers the kernel, request by request.

    Parameters
    ----------
    root
        Where the file system is mounted.
    source
        The directories that are mounted on those of the same name.
    delay
        Seconds before one is.
    """

    def __init__(self, root: Path, source: Path, delay: float) -> None:
        self._source = source
        self._delay = delay
        self._names = sorted(entry.name for entry in source.iterdir() if entry.is_dir())
        self._places: dict[str, int] = {}
        """Descriptors of the directories to mount on, by which they are reached without a look-up."""
        self._mounted: set[str] = set()
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0,allow_other"
        _mount("stand-in", str(root), "fuse", 0, options)
        answering = threading.Thread(target=self._answer_all)
        answering.start()
        places = {name: os.open(root / name, os.O_PATH | os.O_DIRECTORY) for name in self._names}
        # From now on a look-up mounts.
        self._places = places
        os.write(1, b"ready\n")
        answering.join()

    def _answer_all(self) -> None:
        while request := os.read(self._device, _BUFFER):
            _, operation, number, node, *_ = _REQUEST.unpack_from(request)
            if operation in _UNANSWERED:
                continue
            try:
                answer = self._answer(operation, node, request[_REQUEST.size :])
            except OSError as error:
                os.write(self._device, _ANSWER.pack(_ANSWER.size, -(error.errno or errno.EIO), number))
            else:
                os.write(self._device, _ANSWER.pack(_ANSWER.size + len(answer), 0, number) + answer)

    def _answer(self, operation: int, node: int, content: bytes) -> bytes:
        if operation in _FIXED:
            return _FIXED[operation]
        if operation == _GETATTR:
            return struct.pack("=QII", 0, 0, 0) + _directory(node)  # struct fuse_attr_out
        if operation != _LOOKUP:
            raise OSError(errno.ENOSYS, "not needed")
        name = os.fsdecode(content.rstrip(b"\0"))
        if node != _ROOT_NODE or name not in self._names:
            raise OSError(errno.ENOENT, "no such directory")
        if name in self._places and name not in self._mounted:
            time.sleep(self._delay)
            _mount(str(self._source / name), f"/proc/self/fd/{self._places[name]}", None, _MS_BIND, None)
            self._mounted.add(name)
        found = _ROOT_NODE + 1 + self._names.index(name)
        return struct.pack("=QQQQII", found, 0, 0, 0, 0, 0) + _directory(found)  # struct fuse_entry_out


def _directory(node: int) -> bytes:
    """Return a directory's struct fuse_attr."""
    return struct.pack("=6Q10I", node, 0, 0, 0, 0, 0, 0, 0, 0, stat.S_IFDIR | 0o755, 2, 0, 0, 0, 4096, 0)


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None) -> None:
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    if _libc.mount(*encoded[:3], flags, encoded[3]) != 0:
        raise OSError(ctypes.get_errno(), f"cannot mount {source} on {target}")


if __name__ == "__main__":
    _Automounter(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
