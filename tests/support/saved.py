"""What tars and saved images hold, in a form that can be compared completely."""

import dataclasses
import hashlib
import json
import tarfile
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Final

from harness.trees import Entry, Tree, differences

__all__ = [
    "Saved",
    "document_differences",
    "read_saved",
    "read_tar",
    "saved_differences",
    "without_keys",
    "without_new_times",
]

_KINDS: Final = {
    tarfile.REGTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hard link",
    tarfile.CHRTYPE: "character device",
    tarfile.BLKTYPE: "block device",
    tarfile.FIFOTYPE: "fifo",
}
_XATTR: Final = "SCHILY.xattr."
_MADE: Final = frozenset({"created", "docker_version", "container", "diff_ids"})
"""Keys of a configuration whose values each image has of its own; those of its layers go by the times in them."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A saved image."""

    config: Any
    """The image's configuration, without what each has of its own."""
    layers: list[Tree]
    """Its layers, base first."""
    sizes: list[int]
    """Theirs as they are stored, in bytes."""


def read_tar(file: IO[bytes]) -> Tree:
    """Describe the entries of a tar, compressed or not, in their order."""
    tree: Tree = {}
    with tarfile.open(fileobj=file) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            seconds = Decimal(member.pax_headers.get("mtime", member.mtime))
            tree[_encode(member.name)] = Entry(
                kind=_KINDS[member.type],
                mode=member.mode,
                uid=member.uid,
                gid=member.gid,
                mtime=int(seconds * 10**9),
                size=member.size,
                rdev=(member.devmajor, member.devminor) if member.ischr() or member.isblk() else None,
                target=_encode(member.linkname) if member.linkname else None,
                sha256=None if content is None else _sha256(content),
                xattrs={
                    key.removeprefix(_XATTR): _encode(value)
                    for key, value in member.pax_headers.items()
                    if key.startswith(_XATTR)
                },
            )
    return tree


def _sha256(content: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := content.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _encode(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def read_saved(archive: Path, *, since: float) -> Saved:
    """Read the archive of one image, as `docker save` writes it, without the times that its layers have only now got.

    Parameters
    ----------
    archive
        The archive.
    since
        When the image was begun, in seconds since the epoch.
    """
    with tarfile.open(archive) as outer:

        def member(name: str) -> IO[bytes]:
            file = outer.extractfile(name)
            assert file is not None
            return file

        (manifest,) = json.load(member("manifest.json"))
        return Saved(
            config=without_keys(json.load(member(manifest["Config"])), _MADE),
            layers=[without_new_times(read_tar(member(layer)), since) for layer in manifest["Layers"]],
            sizes=[outer.getmember(layer).size for layer in manifest["Layers"]],
        )


def without_keys(document: Any, keys: Collection[str]) -> Any:  # noqa: ANN401 - any JSON document
    """Leave keys out of a document, wherever they are in it."""
    if isinstance(document, Mapping):
        return {key: without_keys(value, keys) for key, value in document.items() if key not in keys}
    if isinstance(document, list):
        return [without_keys(value, keys) for value in document]
    return document


def document_differences(ours: Any, theirs: Any, *, names: tuple[str, str], where: str = "") -> list[str]:  # noqa: ANN401
    """Say how two JSON documents differ, one line for each value."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [
            line
            for key in sorted(ours.keys() | theirs.keys())
            for line in document_differences(ours.get(key), theirs.get(key), names=names, where=f"{where}.{key}")
        ]
    if ours == theirs:
        return []
    return [f"{where or 'the document'}: {ours!r} in {names[0]}, {theirs!r} in {names[1]}"]


def without_new_times(tree: Tree, since: float) -> Tree:
    """Leave out the times that something has only now got, as by a build, or for a whiteout by a commit.

    Parameters
    ----------
    since
        When that began, in seconds since the epoch.
    """
    # Clocks of file systems are late by some milliseconds, and tars may have whole seconds.
    first, last = (since - 2) * 10**9, (time.time() + 2) * 10**9
    return {
        path: dataclasses.replace(entry, mtime=None)
        if entry.mtime is not None and first <= entry.mtime <= last
        else entry
        for path, entry in tree.items()
    }


def saved_differences(ours: Saved, theirs: Saved, *, names: tuple[str, str]) -> list[str]:
    """Say how two images differ: in configuration, number of layers, and the entries of each and their order."""
    lines = document_differences(ours.config, theirs.config, names=names)
    if len(ours.layers) != len(theirs.layers):
        return [*lines, f"{len(ours.layers)} and {len(theirs.layers)} layers"]
    for number, (one, other) in enumerate(zip(ours.layers, theirs.layers, strict=True)):
        lines += [f"layer {number}: {line}" for line in differences(one, other, names=names)]
        if not lines and list(one) != list(other):
            lines.append(f"layer {number}: its entries are in another order")
    return lines
