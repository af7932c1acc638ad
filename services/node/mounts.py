"""The kernel's mounts: the one module that calls mount(2) and umount2(2) and reads the mount table.

All calls block; callers run them off the event loop.
"""

import ctypes
import errno
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from services.node.errors import MountError

__all__ = [
    "Mount",
    "OverlaySource",
    "has_xino",
    "is_upper_in_use",
    "mount_overlay",
    "mount_table",
    "numbered",
    "remove_mount_point",
    "unmount",
    "unmount_below",
]

_MS_RDONLY: Final = 1
_MNT_DETACH: Final = 2
_UMOUNT_NOFOLLOW: Final = 8
_CLONE_FS: Final = 0x200
_OPTIONS_LIMIT: Final = 4095
"""mount(2) takes one page of options, with its final NUL byte."""
_LOWERS_LIMIT: Final = 500
"""Most lower directories of one overlay (OVL_MAX_STACK)."""
_LANDINGS: Final = 3
"""How often a mount may land at a place that is being removed; more than one is under way nowhere."""
_OVERLAY_PARAMETERS: Final = Path("/sys/module/overlay/parameters")
_ESCAPE = re.compile(rb"\\([0-7]{3})")

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of the mount table."""

    point: str
    """Where it is mounted."""
    kind: str
    """Type of the file system, such as `overlay` or `fuse`."""
    source: str
    """What is mounted."""
    options: str
    """Options of the superblock."""
    receives: bool
    """Whether what is mounted below it by its peers or its master (mount_namespaces(7)) shows here as well."""


@dataclass(frozen=True, slots=True)
class OverlaySource:
    """What an overlay is made of; all paths may be relative to the directory that `mount_overlay` works in."""

    lowers: Sequence[str]
    """Lower directories, top first; at least one."""
    upper: str | None = None
    """Upper directory; without one the union is read-only."""
    work: str | None = None
    """Work directory, on the upper directory's file system."""
    label: str = ""
    """SELinux context of the mount; empty for none."""
    mixed: bool = False
    """Whether its directories may be of several file systems, whose files are to be told apart as those of one."""

    @property
    def fits(self) -> bool:
        """Whether mount(2) takes the options."""
        return len(self.options()) <= _OPTIONS_LIMIT

    def options(self) -> str:
        """Write the option string of mount(2)."""
        # A redirect or metacopy attribute in a layer would make the kernel read another file than the layer's own, and
        # would make the upper directory no faithful diff. Kernels without the parameter know neither the feature nor
        # the option.
        parts = [
            option
            for parameter, option in (
                ("index", "index=off"),
                ("redirect_dir", "redirect_dir=nofollow"),
                ("metacopy", "metacopy=off"),
            )
            if _knows(parameter)
        ]
        if self.mixed and has_xino():
            # Else each file has the device number of its own file system, another one than its directory, and the
            # kernel does not follow a file that has been copied up to where it was: the server of a FUSE file system
            # has no UUID, and only who asks for this vouches for it. The numbers of files take more than 32 bits then.
            parts.append("xino=on")
        parts.append("lowerdir=" + ":".join(self.lowers))
        if self.upper is not None:
            parts.append(f"upperdir={self.upper},workdir={self.work}")
        if self.label:
            parts.append(f'context="{self.label}"')
        return ",".join(parts)


def has_xino() -> bool:
    """Return whether the kernel can number the files of a union over several file systems as one does (Linux 4.17)."""
    return _knows("xino_auto")


def _knows(parameter: str) -> bool:
    return os.path.exists(f"{_OVERLAY_PARAMETERS}/{parameter}")


def mount_overlay(source: OverlaySource, point: str, *, directory: Path) -> None:
    """Mount an overlay, all relative paths seen from `directory`.

    Short relative paths are what lets some three hundred layers fit into the one page of options, and `numbered` makes
    them shorter. The call hangs as long as the file system of a lower directory does.

    Raises
    ------
    MountError
        The options do not fit, or the kernel refuses; the text names the layers.
    """
    options = source.options()
    if len(source.lowers) > _LOWERS_LIMIT:
        raise MountError(
            f"{len(source.lowers)} layers, those that carry deletions included, are more than one overlay mount takes "
            f"(the kernel's limit is {_LOWERS_LIMIT}): flatten the image"
        )
    if len(options) > _OPTIONS_LIMIT:
        raise MountError(
            f"{len(source.lowers)} layers are more than one overlay mount takes "
            f"({len(options)} bytes of options, the kernel's limit is {_OPTIONS_LIMIT}): flatten the image"
        )
    flags = 0 if source.upper is not None else _MS_RDONLY
    with _working_in(directory):
        failed = _libc.mount(b"overlay", os.fsencode(point), b"overlay", flags, options.encode()) != 0
        code = ctypes.get_errno()
    if failed:
        raise MountError(
            f"cannot mount the overlay {point} of {len(source.lowers)} layers: {os.strerror(code)}{_hint(code)} "
            f"(options: {options[:1000]}; the kernel log may say more)"
        )


@contextmanager
def numbered(source: OverlaySource, *, directory: Path, scratch: Path) -> Iterator[tuple[OverlaySource, Path]]:
    """Name the lower directories of an overlay by numbers, for as long as its mount takes.

    Parameters
    ----------
    source
        Its paths may be relative to the directory.
    directory
        Where they start.
    scratch
        Directory for the links.

    Yields
    ------
    tuple of OverlaySource and Path
        The same overlay, and the directory that its paths are relative to.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as place:
        for number, lower in enumerate(source.lowers):
            os.symlink(directory / lower, f"{place}/{number}")
        lowers = [str(number) for number in range(len(source.lowers))]
        upper, work = (str(directory / path) if path is not None else None for path in (source.upper, source.work))
        yield replace(source, lowers=lowers, upper=upper, work=work), Path(place)


def is_upper_in_use(upper: str, point: str, *, directory: Path) -> bool:
    """Return whether an overlay somewhere, be it in another mount namespace, has a directory as its upper one.

    Parameters
    ----------
    upper
        The directory.
    point
        Any other directory; nothing is mounted on it.
    directory
        Where relative paths start.
    """
    # With an index the kernel refuses a second use, first of all; what is asked for here it refuses in the end anyway,
    # since the work directory must not be the upper one.
    options = f"index=on,lowerdir={upper},upperdir={upper},workdir={upper}"
    with _working_in(directory):
        failed = _libc.mount(b"overlay", os.fsencode(point), b"overlay", 0, options.encode()) != 0
        code = ctypes.get_errno()
        if not failed:
            unmount(point)
    return failed and code == errno.EBUSY


@contextmanager
def _working_in(directory: Path) -> Iterator[None]:
    """Let this thread, and no other, work in a directory: one that hangs there leaves the others where they are."""
    # The working directory belongs to the whole process unless a thread gives up sharing it.
    if _libc.unshare(_CLONE_FS) != 0:
        raise MountError(f"cannot give a thread its own working directory: {os.strerror(ctypes.get_errno())}")
    before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(directory)
        yield
    finally:
        os.fchdir(before)
        os.close(before)


def _hint(code: int) -> str:
    match code:
        case errno.EPERM:
            return ": CAP_SYS_ADMIN is needed"
        case errno.ENODEV:
            return ": the kernel has no overlay file system (modprobe overlay)"
        case errno.ENOENT:
            return ": a layer directory is missing"
        case _:
            return ""


def unmount(point: str | Path) -> bool:
    """Detach whatever is mounted at a place, every mount of a stack; return whether anything was.

    Raises
    ------
    MountError
        The kernel refuses.
    """
    found = False
    while _libc.umount2(os.fsencode(point), _MNT_DETACH | _UMOUNT_NOFOLLOW) == 0:
        found = True
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOENT):
        raise MountError(f"cannot unmount {point}: {os.strerror(code)}")
    return found


def unmount_below(directory: str | Path) -> bool:
    """Detach whatever is mounted on a directory or below it; return whether anything was.

    Raises
    ------
    MountError
        The kernel refuses.
    """
    place = os.path.realpath(directory)
    points = [mount.point for mount in mount_table() if mount.point == place or mount.point.startswith(f"{place}/")]
    # The last one first: it may be mounted below another one.
    for point in reversed(points):
        unmount(point)
    return bool(points)


def remove_mount_point(point: Path) -> None:
    """Unmount whatever is mounted at a place and remove the place; a mount that is still under way fails then.

    Removing it also ends the mount in every other mount namespace that a copy of it leaked into.

    Raises
    ------
    MountError
        The kernel refuses.
    """
    try:
        for _ in range(_LANDINGS):
            unmount(point)
            try:
                point.rmdir()
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
            else:
                return
    except FileNotFoundError:
        return
    raise MountError(f"cannot remove the mount point {point}: it is mounted on again and again")


def mount_table() -> Iterator[Mount]:
    """Read this process's mount table (proc(5), mountinfo)."""
    with open("/proc/self/mountinfo", "rb") as table:
        for line in table:
            before, _, after = line.rstrip(b"\n").partition(b" - ")
            kind, source, options = after.split(b" ", 2)
            _, _, _, _, point, _, *propagation = before.split(b" ")
            yield Mount(
                point=_unescape(point),
                kind=kind.decode(),
                source=_unescape(source),
                options=_unescape(options),
                receives=any(field.startswith((b"shared:", b"master:")) for field in propagation),
            )


def _unescape(field: bytes) -> str:
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field))
