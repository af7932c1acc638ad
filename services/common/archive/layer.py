"""What the entries of a layer do to a tree, whatever kind of tree it is.

Later entries replace earlier ones, as in every container engine. Whiteouts and opaque markers speak of the layers below
only, wherever they stand in the archive: they are collected and resolved against the finished tree.

- The whiteout of a name that the layer itself has as a directory makes that directory opaque.
- The whiteout of a name that the layer itself has as anything else says nothing more.
- Files of the layer survive its own opaque markers.
- Whiteouts inside an opaque directory say nothing more either, and are left out: overlayfs would list their names.
"""

from typing import Protocol

from services.common.archive.entry import Entry, Kind
from services.common.archive.errors import UnsafeArchiveError
from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import LayerContent
from services.common.archive.notes import Notes, show
from services.common.archive.paths import (
    OPAQUE_MARKER,
    WHITEOUT_PREFIX,
    whiteout_target,
)
from services.common.archive.policy import ArchivePolicy, PublishedPolicy
from services.common.archive.reader import TarReader
from services.common.archive.stream import Source, TarStream
from services.common.archive.witness import NOBODY, StreamWitness
from services.common.archive.xattrs import LOCAL_XATTRS, xattr_fits

__all__ = ["LayerTree", "read_by_policy", "read_layer"]


class LayerTree(Protocol):
    """Where the entries of a layer go. Paths are normal and not the root's; parents that are missing are made."""

    @property
    def size(self) -> int:
        """Sum of the sizes of files and symbolic links, hard links counted once, in bytes; as Docker counts."""

    def directory(self, path: bytes, entry: Entry) -> None:
        """Make a directory, or give one that exists new attributes."""

    def file(self, path: bytes, entry: Entry, data: TarReader) -> None:
        """Make a file in place of what is there, from the data of the reader's current entry."""

    def symlink(self, path: bytes, entry: Entry) -> None:
        """Make a symbolic link in place of what is there."""

    def node(self, path: bytes, entry: Entry) -> None:
        """Make a device or fifo in place of what is there."""

    def link(self, path: bytes, target: bytes) -> bool:
        """Make a hard link in place of what is there; return False, and change nothing, where the target is absent."""

    def vacate(self, path: bytes) -> None:
        """Remove what is there, if anything, but make its parents."""

    def imply(self, path: bytes) -> bytes:
        """Make a directory, which may be the root, unless it exists; return its path without links."""

    def is_directory(self, path: bytes) -> bool | None:
        """Tell whether a path without links is a directory, as the root is; None where nothing is there."""

    def delete(self, path: bytes) -> None:
        """Record that the layers below lose a path that does not exist here and whose parent is a directory."""

    def make_opaque(self, path: bytes) -> None:
        """Record that a directory, which may be the root, hides what the layers below hold there."""

    def finish(self) -> None:
        """Complete what can be completed only when nothing changes any more."""


def read_layer(
    source: Source, tree: LayerTree, *, limits: ArchiveLimits, notes: Notes, witness: StreamWitness = NOBODY
) -> LayerContent:
    """Read the whole stream of a layer that is published into an empty tree, by the strict rules.

    Parameters
    ----------
    witness
        Told how the stream is made up; an archive of which the tree does not have all content in the end is lost to it.

    Raises
    ------
    ArchiveError
        As the archive deserves; the tree is left as it was at that point.
    """
    return read_by_policy(source, tree, policy=PublishedPolicy(limits), notes=notes, witness=witness)


def read_by_policy(
    source: Source,
    tree: LayerTree,
    *,
    policy: ArchivePolicy,
    notes: Notes,
    witness: StreamWitness = NOBODY,
) -> LayerContent:
    """Read a layer's whole stream into an empty tree.

    Raises
    ------
    ArchiveError
        As the archive deserves; the tree is left as it was at that point.
    """
    return _LayerReader(TarStream(source, policy.limits), tree, policy, notes, witness).read()


class _LayerReader:
    """One reading of a layer."""

    def __init__(
        self,
        stream: TarStream,
        tree: LayerTree,
        policy: ArchivePolicy,
        notes: Notes,
        witness: StreamWitness,
    ) -> None:
        self._stream = stream
        self._tree = tree
        self._policy = policy
        self._limits = policy.limits
        self._notes = notes
        self._witness = witness
        self._entries = TarReader(stream, policy, witness)
        self._whiteouts: set[bytes] = set()
        self._opaque: set[bytes] = set()
        self._waiting: dict[bytes, bytes] = {}
        """Hard links whose target has not come yet, by path."""

    def read(self) -> LayerContent:
        names_size = 0
        while (entry := self._entries.next()) is not None:
            names_size += len(entry.name) + len(entry.link)
            self._limits.check_names_size(names_size)
            path = self._policy.path(entry.name)
            if b".wh." in path and self._take_deletion(path):
                continue
            self._place_last(path, entry)
        self._link_waiting()
        whiteouts, opaque = self._resolve_deletions()
        self._tree.finish()
        return LayerContent(
            entries=self._entries.entries,
            tree_size=self._tree.size,
            stream_size=self._stream.position,
            whiteouts=whiteouts,
            opaque=opaque,
            notes=self._notes.collected(),
        )

    def _place(self, path: bytes, entry: Entry) -> None:
        kind = entry.kind
        if entry.xattrs:
            entry.xattrs = self._kept_xattrs(path, entry)
        if not path:
            # A layer's root is the engine's own; like Docker, no attribute of it is taken from an archive.
            if kind is not Kind.DIRECTORY:
                self._policy.object_to(
                    UnsafeArchiveError(f"{show(entry.name)} is the layer's root and cannot be a {kind.value}")
                )
        elif kind is Kind.FILE:
            self._limits.check_tree_size(self._tree.size + entry.size, path)
            self._tree.file(path, entry, self._entries)
        elif kind is Kind.DIRECTORY:
            self._tree.directory(path, entry)
        elif kind is Kind.SYMLINK:
            self._tree.symlink(path, entry)
        elif kind is Kind.LINK:
            self._link(path, entry)
        elif kind is Kind.CHARACTER and entry.major == entry.minor == 0:
            # What overlayfs takes for a whiteout must not come in as a device that happens to be one.
            self._notes.add(f"{show(path)}: the device 0:0 is a deletion")
            self._tree.vacate(path)
            self._whiteouts.add(self._without_links(path))
        else:
            self._tree.node(path, entry)

    def _place_last(self, path: bytes, entry: Entry) -> None:
        """Place an entry; where an earlier one loses its content by that, the archive is lost to the witness."""
        grown = self._tree.size
        self._place(path, entry)
        if entry.kind is Kind.FILE:
            grown += entry.size
        elif entry.kind is Kind.SYMLINK:
            grown += len(entry.link)
        if self._tree.size != grown:
            self._witness.lose("two entries of the same name")

    def _kept_xattrs(self, path: bytes, entry: Entry) -> dict[bytes, bytes]:
        kept = {}
        for name, value in entry.xattrs.items():
            if entry.kind is Kind.LINK:
                pass  # they are those of the target's own entry
            elif not self._policy.keeps_xattr(name):
                if name not in LOCAL_XATTRS:
                    self._notes.add(
                        f"{show(path)}: the attribute {show(name)} is not one that a layer carries, skipped"
                    )
            elif not xattr_fits(name, entry.kind):
                self._notes.add(f"{show(path)}: a {entry.kind.value} cannot have the attribute {show(name)}, skipped")
            else:
                kept[name] = value
        return kept

    def _take_deletion(self, path: bytes) -> bool:
        """Keep a whiteout or opaque marker in mind; return whether the entry is dealt with."""
        if (reason := self._policy.passes_over(path)) is not None:
            self._notes.add(reason)
            return True
        parent, _, name = path.rpartition(b"/")
        if name == OPAQUE_MARKER:
            self._opaque.add(self._tree.imply(parent))
        elif name.startswith(WHITEOUT_PREFIX):
            self._whiteouts.add(self._without_links(whiteout_target(path)))
        else:
            return False
        return True

    def _without_links(self, path: bytes) -> bytes:
        """Return a path whose parents are no links, and are made if they are missing."""
        parent, _, name = path.rpartition(b"/")
        real = self._tree.imply(parent)
        return real + (b"/" if real else b"") + name

    def _link(self, path: bytes, entry: Entry) -> None:
        target = self._policy.path(entry.link)
        if not target:
            raise UnsafeArchiveError(f"{show(path)} is a hard link to the root of the layer")
        if target == path or target.startswith(path + b"/"):
            raise UnsafeArchiveError(f"{show(path)} is a hard link to itself or into itself")
        self._waiting.pop(path, None)
        if not self._tree.link(path, target):
            self._tree.vacate(path)
            self._waiting[self._without_links(path)] = target

    def _link_waiting(self) -> None:
        """Make the hard links to what came after them, each chain from its end."""
        waiting = {path: target for path, target in self._waiting.items() if self._tree.is_directory(path) is None}
        while waiting:
            self._stream.check_time()
            path, target = waiting.popitem()
            chain = {path: target}
            while target in waiting:
                path, target = target, waiting.pop(target)
                chain[path] = target
            for link in reversed(chain):
                if not self._tree.link(link, chain[link]):
                    raise UnsafeArchiveError(
                        f"{show(link)} is a hard link to {show(chain[link])}, which this layer does not hold"
                    )

    def _resolve_deletions(self) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        opaque = {path for path in self._opaque if self._tree.is_directory(path)}
        absent = []
        for path in sorted(self._whiteouts):
            self._stream.check_time()
            present = self._tree.is_directory(path)
            if present:
                opaque.add(path)
            # Where a later entry has replaced the parent, everything below it is gone already.
            elif present is None and self._tree.is_directory(path.rpartition(b"/")[0]):
                absent.append(path)
        # The root is not looked at: overlayfs merges the roots of all layers, opaque or not.
        hiding = opaque - {b""}
        whiteouts = tuple(path for path in absent if not _lies_in_one(path, hiding))
        for path in whiteouts:
            self._tree.delete(path)
        for path in sorted(opaque):
            self._tree.make_opaque(path)
        return whiteouts, tuple(sorted(opaque))


def _lies_in_one(path: bytes, directories: set[bytes]) -> bool:
    """Tell whether a path lies below one of the directories."""
    if not directories:
        return False
    while path:
        path = path.rpartition(b"/")[0]
        if path in directories:
            return True
    return False
