"""Which extended attributes a layer carries."""

from typing import Final

from services.common.archive.entry import Kind

__all__ = ["CAPABILITY", "LOCAL_XATTRS", "OVERLAY_PREFIX", "is_layer_xattr", "is_local_xattr", "xattr_fits"]

CAPABILITY: Final = b"security.capability"
"""File capabilities; they are part of what a program can do and are never lost silently."""

OVERLAY_PREFIX: Final = b"trusted.overlay."
"""overlayfs's own attributes. In an archive they would make the kernel look for files elsewhere: never honoured."""

LOCAL_XATTRS: Final = frozenset((b"security.selinux", b"security.ima", b"security.evm"))
"""Attributes that a machine gives files by its own policy; they mean nothing on another one."""

_USER: Final = b"user."
_USER_OVERLAY: Final = b"user.overlay."
_TRUSTED: Final = b"trusted."
_ACCESS: Final = b"system.posix_acl_access"
_DEFAULT: Final = b"system.posix_acl_default"


def is_layer_xattr(name: bytes) -> bool:
    """Tell whether an attribute is part of any layer: file capabilities and the users' own."""
    return name == CAPABILITY or (name.startswith(_USER) and not name.startswith(_USER_OVERLAY))


def is_local_xattr(name: bytes) -> bool:
    """Tell whether an attribute is part of a layer that stays on its node: POSIX ACLs and trusted ones as well."""
    return (
        is_layer_xattr(name)
        or (name.startswith(_TRUSTED) and not name.startswith(OVERLAY_PREFIX))
        or name in (_ACCESS, _DEFAULT)
    )


def xattr_fits(name: bytes, kind: Kind) -> bool:
    """Tell whether a file of a type can have a layer's attribute (xattr(7), capabilities(7), acl(5))."""
    if name.startswith(_TRUSTED):
        return True
    if name == _ACCESS:
        return kind is not Kind.SYMLINK
    if name == _DEFAULT:
        return kind is Kind.DIRECTORY
    return kind is Kind.FILE or (kind is Kind.DIRECTORY and name != CAPABILITY)
