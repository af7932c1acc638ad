"""What is mounted for a snapshot, as containerd's own overlayfs snapshotter says it.

Nothing is mounted here: dockerd, containerd and its shims do it. BuildKit compares paths as strings, so a directory has
one path wherever it is below others; and it takes no options that it does not know.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.snapshotter.store.model import Kind, Snapshot
from services.snapshotter.store.store import SnapshotStore

__all__ = ["Mount", "mount_for", "read_only_paths", "thin_number"]

_OVERLAY_PARAMETERS: Final = Path("/sys/module/overlay/parameters")
_THIN: Final = "thin-"


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount."""

    type: str
    source: str
    options: Sequence[str]


def mount_for(store: SnapshotStore, snapshot: Snapshot, directories: Sequence[Path], *, thin: bool) -> Mount:
    """Return what is mounted for a snapshot; blocks, and is called by the store's thread.

    Parameters
    ----------
    store
        Knows the directories.
    snapshot
        The snapshot, which is not committed.
    directories
        What is below it, top first.
    thin
        Whether some of it is in repositories.
    """
    lowers = [store.lower(directory) for directory in directories]
    view = snapshot.kind is Kind.VIEW
    if not lowers:
        return Mount("bind", str(store.diff(snapshot)), ("ro" if view else "rw", "rbind"))
    if view and not thin and len(lowers) == 1:
        return Mount("bind", lowers[0], ("ro", "rbind"))
    options = [] if view else [f"workdir={store.work(snapshot)}", f"upperdir={store.diff(snapshot)}"]
    if not thin:
        return Mount("overlay", "overlay", (*options, f"lowerdir={':'.join(lowers)}", *_known("index=off")))
    if view:
        # An overlay of CVMFS directories alone fails every look-up with ENAMETOOLONG. The view's own directory is
        # empty, and its path keeps BuildKit from taking one view for another with a directory more: it would make the
        # difference itself, as a regular layer.
        lowers = [*lowers, str(store.diff(snapshot))]
    # No attribute of a layer may lead the kernel to another file than the layer's own.
    options = [*options, f"lowerdir={':'.join(lowers)}", *_known("index=off", "redirect_dir=nofollow")]
    return Mount("overlay", f"{_THIN}{snapshot.number}", options)


def thin_number(mount: Mount) -> int | None:
    """Return the number of the thin snapshot that a mount is for; None if it is for none."""
    number = mount.source.removeprefix(_THIN)
    is_thin = mount.type == "overlay" and number != mount.source and number.isascii() and number.isdigit()
    return int(number) if is_thin else None


def read_only_paths(mount: Mount) -> list[str]:
    """Return what a mount shows, top first, if nothing in it can be written; an empty list otherwise."""
    options = dict(option.partition("=")[::2] for option in mount.options)
    if mount.type == "bind":
        return [mount.source] if "ro" in options else []
    return options.get("lowerdir", "").split(":") if "upperdir" not in options else []


def _known(*options: str) -> list[str]:
    """Return those that the kernel knows."""
    return [option for option in options if _knows(option.partition("=")[0])]


@functools.cache
def _knows(parameter: str) -> bool:
    return (_OVERLAY_PARAMETERS / parameter).exists()
