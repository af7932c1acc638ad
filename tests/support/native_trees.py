"""Trees of native repositories as clients show them, to be compared with those of directories (`harness/trees`)."""

import dataclasses
import hashlib
import os
import stat

from harness.trees import Entry, Tree
from services.repository.flat.configuration import read_configuration
from services.repository.flat.singularity import generated_entries
from services.repository.image_platforms import PlatformImage
from services.repository.native.flat.places import flat_path
from services.repository.native.reader.entries import Entry as StoredEntry
from services.repository.native.reader.revision import Revision

__all__ = ["read_flat", "read_native"]

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


def read_native(revision: Revision, top: bytes) -> Tree:
    """Read everything below a directory; the root's time is left out, since no directory has it from a layer."""
    tree: Tree = {}
    groups: dict[tuple[bytes, int], list[bytes]] = {}
    for entry in revision.walk(top):
        path = entry.path[len(top) + 1 :] or b"."
        tree[path] = _entry(revision, entry, timed=path != b".")
        if entry.group:
            catalog = revision.catalog_of(entry.path.rpartition(b"/")[0]).path
            groups.setdefault((catalog, entry.group), []).append(path)
            assert entry.links > 1
        elif not entry.is_directory:
            assert entry.links == 1
    for paths in groups.values():
        for path in paths:
            tree[path] = dataclasses.replace(tree[path], links=tuple(sorted(paths)))
    return tree


def read_flat(revision: Revision, image: PlatformImage) -> Tree:
    """Read a flat image without the entries that have been generated for it."""
    tree = read_native(revision, flat_path(image.config_digest))
    for entry in generated_entries(read_configuration(image.config)):
        if entry.path in tree and tree[entry.path].mtime == entry.mtime * 10**9:
            del tree[entry.path]
    return tree


def _entry(revision: Revision, entry: StoredEntry, *, timed: bool) -> Entry:
    return Entry(
        kind=_KINDS[stat.S_IFMT(entry.mode)],
        mode=stat.S_IMODE(entry.mode),
        uid=entry.uid,
        gid=entry.gid,
        mtime=entry.mtime * 10**9 + entry.mtime_ns if timed else None,
        size=entry.size if entry.is_file else None,
        rdev=(os.major(entry.size), os.minor(entry.size)) if entry.is_device else None,
        target=entry.target if entry.is_symlink else None,
        sha256=hashlib.sha256(b"".join(revision.content(entry))).hexdigest() if entry.is_file else None,
        xattrs={os.fsdecode(name): value for name, value in entry.xattrs.items()},
    )
