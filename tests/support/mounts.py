"""What is mounted where, read independently of the code under test."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["SmallDisk", "disk", "ext4", "full_disk", "mount", "mounts_below", "small_disk", "unmount_all_below"]

_BLOCK: Final = 4096


def mounts_below(directory: Path) -> list[str]:
    """Return the mount points below a directory, in the order in which they were mounted."""
    prefix = f"{directory.resolve()}/"
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point.startswith(prefix)]


def unmount_all_below(directory: Path) -> None:
    """Detach everything that is mounted below a directory, the last mount first."""
    for point in reversed(mounts_below(directory)):
        subprocess.run(["umount", "--lazy", point], check=True)


def mount(*arguments: str | Path) -> None:
    """Run mount(8)."""
    subprocess.run(["mount", *map(str, arguments)], check=True)


def ext4(directory: Path, *, uuid: bool) -> None:
    """Mount a new ext4 at a place that is made, with a UUID, which it has unless somebody takes it away, or not."""
    directory.mkdir()
    file = directory.with_name(f"{directory.name}.ext4")
    with file.open("wb") as handle:
        handle.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-U", "random" if uuid else "clear", str(file)], check=True)
    mount("-o", "loop", file, directory)


@contextmanager
def full_disk(directory: Path) -> Iterator[Callable[[int], None]]:
    """Mount a small file system, and hand out what fills it, but for a number of files that can still be made."""
    directory.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m,nr_inodes=60", "tmpfs", directory)

    def fill(left: int) -> None:
        free = os.statvfs(directory).f_ffree
        for number in range(free - left):
            (directory / f"filler-{free}-{number}").touch()

    try:
        yield fill
    finally:
        unmount_all_below(directory.parent)


@dataclass(frozen=True, kw_only=True)
class SmallDisk:
    """A file system that can be filled and freed."""

    filler: Path
    """The file that fills it."""

    def fill(self) -> None:
        """Leave no byte free (blocking)."""
        with self.filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(_BLOCK)):
                pass

    def free(self) -> None:
        """Take away what fills it."""
        self.filler.unlink()


@contextmanager
def small_disk(directory: Path, *, megabytes: int) -> Iterator[SmallDisk]:
    """Mount a small file system in a directory, which is made if it is not there."""
    directory.mkdir(parents=True, exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", directory)
    try:
        yield SmallDisk(filler=directory / ".filler")
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


@contextmanager
def disk(directory: Path) -> Iterator[Callable[[Path], None]]:
    """Mount an ext4 on a loop device, and hand out what copies the disk at one moment and mounts the copy.

    That is what a machine finds whose power failed at this moment: what was on the disk, with a journal to be replayed.
    """
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:

        def attach(image: Path, point: Path) -> None:
            point.mkdir()
            mount("-o", "loop", image, point)
            stack.callback(unmount_all_below, point.parent)

        def cut_power(point: Path) -> None:
            copy = Path(place) / "copy"
            shutil.copyfile(image, copy)
            attach(copy, point)

        image = Path(place) / "image"
        subprocess.run(["truncate", "--size=64M", image], check=True)
        subprocess.run(["mkfs.ext4", "-q", image], check=True)
        attach(image, directory)
        yield cut_power
