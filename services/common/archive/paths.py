"""Names in a layer archive: normal paths, whiteouts, and what is refused."""

from typing import Final

from services.common.archive.errors import ArchiveLimitError, UnsafeArchiveError
from services.common.archive.limits import ArchiveLimits
from services.common.archive.notes import show

__all__ = [
    "METADATA_PREFIX",
    "OPAQUE_MARKER",
    "WHITEOUT_PREFIX",
    "checked_path",
    "is_mistaken_for_whiteout",
    "mistaken_for_whiteout",
    "normal_path",
    "whiteout_target",
]

WHITEOUT_PREFIX: Final = b".wh."
"""A file of this prefix deletes the name that follows it (OCI image specification, layer.md)."""

METADATA_PREFIX: Final = b".wh..wh."
"""Prefix of AUFS's own files; only the opaque marker among them means something in a layer."""

OPAQUE_MARKER: Final = b".wh..wh..opq"
"""A file of this name makes its directory opaque."""

_NAME_MAX: Final = 255


def normal_path(name: bytes, limits: ArchiveLimits) -> bytes:
    """Return a name from an archive as a path relative to the layer's root, without `.` and empty components.

    A leading slash is dropped, as every container engine does. The root itself is the empty path.

    Raises
    ------
    UnsafeArchiveError
        The name has a `..` component or a NUL byte, is empty, or has a component that CVMFS takes for a whiteout.
    ArchiveLimitError
        The path, or one of its components, is too long, or it is too deep.
    """
    path = name
    if b"/." in name or b"//" in name or name[:1] in (b"/", b".") or name[-1:] == b"/":
        parts = [part for part in name.split(b"/") if part not in (b"", b".")]
        if b".." in parts:
            raise UnsafeArchiveError(f"{show(name)} leaves the layer by a .. component")
        path = b"/".join(parts)
    elif not name:
        raise UnsafeArchiveError("an entry without a name")
    if b".wh." in path.lower():
        _refuse_mistaken(path)
    return checked_path(path, limits)


def checked_path(path: bytes, limits: ArchiveLimits) -> bytes:
    """Return a path in its normal form, within the limits.

    Raises
    ------
    UnsafeArchiveError
        It has a NUL byte.
    ArchiveLimitError
        It, or one of its components, is too long, or it is too deep.
    """
    if b"\0" in path:
        raise UnsafeArchiveError(f"{show(path)} has a NUL byte in it")
    if len(path) > _NAME_MAX:
        _check_length(path, limits)
    if path.count(b"/") >= limits.path_depth:
        raise ArchiveLimitError(f"{show(path)} is deeper than {limits.path_depth} directories (limit path_depth)")
    return path


def is_mistaken_for_whiteout(name: bytes) -> bool:
    """Tell whether CVMFS takes a file for a whiteout that is none: it compares the prefix without case."""
    return name[: len(WHITEOUT_PREFIX)].lower() == WHITEOUT_PREFIX and not name.startswith(WHITEOUT_PREFIX)


def mistaken_for_whiteout(name: bytes) -> str:
    """Tell why such a file cannot be published."""
    return f"CVMFS takes {show(name)} for a deletion, since it does not look at the case of .wh."


def _refuse_mistaken(path: bytes) -> None:
    for name in path.split(b"/"):
        if is_mistaken_for_whiteout(name):
            raise UnsafeArchiveError(f"{show(path)} cannot be published: {mistaken_for_whiteout(name)}")


def _check_length(path: bytes, limits: ArchiveLimits) -> None:
    if len(path) > limits.path_length:
        raise ArchiveLimitError(f"{show(path)} is longer than {limits.path_length} bytes (limit path_length)")
    if max(map(len, path.split(b"/"))) > _NAME_MAX:
        raise ArchiveLimitError(
            f"{show(path)} has a component of more than {_NAME_MAX} bytes, which no file name can be"
        )


def whiteout_target(path: bytes) -> bytes:
    """Return the path that a whiteout's path deletes.

    Raises
    ------
    UnsafeArchiveError
        Nothing, `.` or `..` would be deleted.
    """
    parent, slash, name = path.rpartition(b"/")
    target = name[len(WHITEOUT_PREFIX) :]
    if target in (b"", b".", b".."):
        raise UnsafeArchiveError(f"{show(path)} is a whiteout that names nothing")
    return parent + slash + target
