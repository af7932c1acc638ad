"""Stacks of layers for property tests, and what they show when they are put together: by the kernel, and by umoci.

The kernel's overlay of the same layers is what a flat image must show. umoci makes one tree of all layers without it,
and comes to the same where every archive has an entry for each of its directories (`missing_parents=False`).
"""

import dataclasses
import errno
import io
import os
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

from hypothesis import strategies as st

from harness.trees import Exclusions, Tree, read_directory
from services.common.archive.limits import ArchiveLimits
from services.common.archive.ondisk import OverlayDeletions, is_opaque
from services.common.archive.unpack import unpack
from tests.support.layers import NAMES, Directory, archive_of, layers
from tests.support.oci import write_image

__all__ = ["by_overlay", "by_umoci", "overlay_of", "stacks", "unpack_layers"]

_ROOT_TIME = frozenset({b"."})
"""No layer says when the root was changed."""


def stacks(*, missing_parents: bool = True) -> st.SearchStrategy[list[bytes]]:
    """Generate the archives of the layers of an image, base first.

    They share a few names, so that layers delete, replace and hide what others hold.

    Parameters
    ----------
    missing_parents
        Whether archives may leave out the entries of directories that have something in them.
    """

    def of(names: Sequence[bytes]) -> st.SearchStrategy[list[bytes]]:
        root = layers(deletions=True, missing_parents=missing_parents, names=names)
        hiding = st.sampled_from([False, False, False, True])
        return st.lists(st.builds(_archive, root, hiding), min_size=1, max_size=4)

    return st.lists(st.sampled_from(NAMES), min_size=2, max_size=4, unique=True).flatmap(of)


def _archive(root: Directory, hiding: bool) -> bytes:  # noqa: FBT001 - Hypothesis hands it over
    return archive_of(dataclasses.replace(root, opaque=hiding))


def unpack_layers(archives: Sequence[bytes], directory: Path) -> list[Path]:
    """Unpack layers, each into a directory of its own, as overlayfs stacks them; return these, base first."""
    trees = []
    for number, archive in enumerate(archives):
        tree = directory / f"layer-{number}"
        tree.mkdir()
        unpack(io.BytesIO(archive), tree, deletions=OverlayDeletions(), limits=ArchiveLimits())
        trees.append(tree)
    return trees


def by_overlay(archives: Sequence[bytes], directory: Path) -> Tree:
    """Unpack layers into a directory and read what the kernel shows of them; the root's time is not read."""
    return overlay_of(unpack_layers(archives, directory), directory)


def overlay_of(trees: Sequence[Path], directory: Path) -> Tree:
    """Read what the kernel shows of layers that are unpacked, base first.

    The kernel merges roots even where a layer says that its root hides those below it. The image specification and
    umoci have it hide them, and so must a flat image: what is below such a layer is not stacked at all.
    """
    shown = list(trees)
    while opaque := [number for number, tree in enumerate(shown) if number and is_opaque(os.fsencode(tree))]:
        shown = shown[opaque[-1] :]
    nothing, merged = directory / "nothing", directory / "merged"
    for made in (nothing, merged):
        made.mkdir()
    # By short names, since mount(8) hands the kernel 255 bytes of an option at most.
    stack = ":".join(os.path.relpath(tree, directory) for tree in [*reversed(shown), nothing])
    command = ["mount", "-t", "overlay", "-o", f"lowerdir={stack}", "overlay", "merged"]
    subprocess.run(command, check=True, cwd=directory)
    try:
        idle = _listed_deletions(merged)
        return read_directory(merged, exclusions=Exclusions(times=_ROOT_TIME, paths=idle))
    finally:
        subprocess.run(["umount", merged], check=True)


def _listed_deletions(tree: Path) -> frozenset[bytes]:
    """Find the names that overlayfs lists and does not have: whiteouts in directories that one layer only has."""
    found, directories = set(), [b""]
    root = os.fsencode(tree)
    while directories:
        parent = directories.pop()
        for name in os.listdir(os.path.join(root, parent)):
            path = os.path.join(parent, name)
            try:
                status = os.lstat(os.path.join(root, path))
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
                found.add(path)
            else:
                if stat.S_ISDIR(status.st_mode):
                    directories.append(path)
    return frozenset(found)


def by_umoci(archives: Sequence[bytes], directory: Path) -> Tree:
    """Read what umoci makes of layers, base first; the root's time is not read."""
    write_image(directory / "image", archives)
    command = ["umoci", "raw", "unpack", "--image", f"{directory}/image", f"{directory}/umoci"]
    subprocess.run(command, check=True, capture_output=True)
    return read_directory(directory / "umoci", exclusions=Exclusions(times=_ROOT_TIME))
