"""A small automounter: the kernel's autofs, and a process that bind-mounts a directory for each name looked up.

Run as a program: `autofs.py ROOT SOURCE DELAY`. It is in a process group of its own, whose look-ups the kernel does not
hold back (kernel documentation, autofs.rst).
"""

import ctypes
import fcntl
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["automounted"]

_MISSING: Final = 3
"""autofs_ptype_missing_indirect: somebody looks up a name that is not there."""
_READY, _FAIL = 0x9360, 0x9361
"""AUTOFS_IOC_READY and AUTOFS_IOC_FAIL."""
_PACKET: Final = struct.Struct("=iiIIQIIIII256s4x")
"""struct autofs_v5_packet of linux/auto_fs.h, on machines of 64 bits."""


@contextmanager
def automounted(root: Path, source: Path, *, delay: float = 0) -> Iterator[None]:
    """Mount the directories below `source` on demand below `root`, each look-up taking `delay` seconds."""
    program = [sys.executable, __file__, str(root), str(source), str(delay)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, start_new_session=True) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"ready\n"
        try:
            yield
        finally:
            daemon.kill()
            subprocess.run(["umount", "--lazy", "--recursive", str(root)], check=True)


def _serve(root: Path, source: Path, delay: float) -> None:
    reader, writer = os.pipe()
    options = f"fd={writer},pgrp={os.getpgrp()},minproto=5,maxproto=5,indirect"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"stand-in", os.fsencode(root), b"autofs", 0, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), f"cannot mount autofs on {root}")
    os.close(writer)
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    os.write(1, b"ready\n")
    while packet := os.read(reader, _PACKET.size):
        _, kind, token, *_, length, name = _PACKET.unpack(packet)
        if kind != _MISSING:
            continue
        wanted = os.fsdecode(name[:length])
        time.sleep(delay)
        if not (source / wanted).is_dir():
            fcntl.ioctl(directory, _FAIL, token)
            continue
        (root / wanted).mkdir()
        subprocess.run(["mount", "--bind", source / wanted, root / wanted], check=True)
        fcntl.ioctl(directory, _READY, token)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
