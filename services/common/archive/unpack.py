"""Unpack a layer's tar stream into a directory."""

import os
from pathlib import Path
from typing import Final

from services.common.archive.disktree import DiskTree
from services.common.archive.errors import TreeWriteError
from services.common.archive.layer import read_by_policy
from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import LayerContent
from services.common.archive.notes import Notes
from services.common.archive.ondisk import DeletionEncoding
from services.common.archive.policy import ArchivePolicy, PublishedPolicy
from services.common.archive.stream import Source
from services.common.archive.witness import NOBODY, StreamWitness

__all__ = ["unpack", "unpack_by_policy"]

_ROOT: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def unpack(
    source: Source,
    tree: Path,
    *,
    deletions: DeletionEncoding,
    limits: ArchiveLimits,
    witness: StreamWitness = NOBODY,
) -> LayerContent:
    """Unpack a layer that is published, by the strict rules; as `unpack_by_policy`.

    Returns
    -------
    LayerContent
        What the layer holds; the same that `survey` returns, but for notes about the file system.
    """
    return unpack_by_policy(source, tree, deletions=deletions, policy=PublishedPolicy(limits), witness=witness)


def unpack_by_policy(
    source: Source,
    tree: Path,
    *,
    deletions: DeletionEncoding,
    policy: ArchivePolicy,
    witness: StreamWitness = NOBODY,
) -> LayerContent:
    """Unpack a layer; blocking, and needs root's capabilities for owners, devices and attributes.

    Parameters
    ----------
    source
        A blocking reader of the uncompressed stream, with `readinto`; it is read to its end.
    tree
        An existing, empty directory. It must lie where nobody but this program can reach it (a private directory of
        mode 0700): setuid files and devices come into being in it. Its own attributes stay as they are.
    deletions
        How whiteouts and opaque directories are kept in the tree.
    policy
        What is taken; its limits are enforced while the stream is read.
    witness
        As of `read_layer`.

    Returns
    -------
    LayerContent
        What the layer holds.

    Raises
    ------
    ArchiveError
        The archive breaks a rule or a limit, or the file system refused. Nothing outside `tree` has been touched; what
        is in it is unusable and has to be removed.
    """
    notes = Notes()
    try:
        root = os.open(tree, _ROOT)
    except OSError as error:
        raise TreeWriteError(f"a layer cannot be unpacked to {tree}: {error.strerror}") from error
    try:
        if os.listdir(root):
            raise TreeWriteError(f"a layer cannot be unpacked to {tree}: the directory is not empty")
        try:
            with DiskTree(root, deletions=deletions, policy=policy, notes=notes) as disk:
                return read_by_policy(source, disk, policy=policy, notes=notes, witness=witness)
        except TreeWriteError as error:
            raise TreeWriteError(f"in {tree}: {error}") from error.__cause__  # which file system it was
    finally:
        os.close(root)
