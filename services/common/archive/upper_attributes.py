"""The extended attributes in an overlay upper directory: those of the files, and overlayfs's own notes in others."""

import errno
import os
from collections.abc import Mapping
from typing import Final, NamedTuple

from services.common.archive.entry import Kind
from services.common.archive.errors import UnsupportedTreeError
from services.common.archive.notes import Notes, show
from services.common.archive.ondisk import OPAQUE_VALUE, OPAQUE_XATTR
from services.common.archive.xattrs import LOCAL_XATTRS, OVERLAY_PREFIX, is_layer_xattr, xattr_fits

__all__ = ["UpperAttributes", "UpperAttributesReader"]

_OPAQUE: Final = os.fsencode(OPAQUE_XATTR)

_ELSEWHERE: Final = tuple(OVERLAY_PREFIX + name for name in (b"redirect", b"metacopy", b"whiteout"))
"""overlayfs's attributes of what is whole only together with the layers below."""

_MACHINES: Final = (b"system.posix_acl_", b"trusted.")
"""Prefixes of attributes that a layer keeps as long as it stays on its machine: ACLs, and what is root's own."""


class UpperAttributes(NamedTuple):
    """What the attributes of one file say."""

    kept: Mapping[bytes, bytes] | None
    """Those that are part of the layer; None where there are none at all."""
    opaque: bool
    """Whether it is a directory that hides what lower layers hold there."""


_NONE: Final = UpperAttributes(None, opaque=False)


class UpperAttributesReader:
    """Reads attributes.

    Parameters
    ----------
    notes
        Gets what is left out.
    leaves
        Whether the layer is going to leave this machine.
    """

    def __init__(self, notes: Notes, *, leaves: bool) -> None:
        self._notes = notes
        self._leaves = leaves

    def read(self, target: int | bytes, path: bytes, kind: Kind) -> UpperAttributes:
        """Read the attributes of a file.

        Parameters
        ----------
        target
            Its descriptor, or a path by which it is held.
        path
            Its path in the layer.
        kind
            Its kind.

        Raises
        ------
        UnsupportedTreeError
            overlayfs keeps a part of the file elsewhere.
        OSError
            The file system failed.
        """
        try:
            names = os.listxattr(target)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                return _NONE
            raise
        if not names:
            return _NONE
        kept: dict[bytes, bytes] = {}
        opaque = False
        for text in names:
            name = os.fsencode(text)
            if name.startswith(OVERLAY_PREFIX):
                opaque |= self._says_opaque(target, name, path, kind)
            elif b"=" in name:
                self._notes.add(f"{show(path)}: no archive can hold an attribute of the name {show(name)}, skipped")
            elif self._belongs(name, kind):
                kept[name] = os.getxattr(target, text)
            elif name not in LOCAL_XATTRS:
                self._notes.add(f"{show(path)}: the attribute {show(name)} is not one that a layer carries, skipped")
        return UpperAttributes(kept, opaque=opaque)

    def _belongs(self, name: bytes, kind: Kind) -> bool:
        if not self._leaves and name.startswith(_MACHINES):
            return True
        return is_layer_xattr(name) and xattr_fits(name, kind)

    def _says_opaque(self, target: int | bytes, name: bytes, path: bytes, kind: Kind) -> bool:
        if name in _ELSEWHERE:
            raise UnsupportedTreeError(
                f"{show(path)} has the attribute {show(name)}: overlayfs keeps a part of it elsewhere; "
                "mount without redirect_dir and metacopy"
            )
        return name == _OPAQUE and kind is Kind.DIRECTORY and os.getxattr(target, name) == OPAQUE_VALUE
