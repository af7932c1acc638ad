"""Extended attributes as catalogs hold them: version 1, which every client reads."""

import re
from collections.abc import Mapping
from typing import Final

from services.common.archive.notes import Notes, show
from services.repository.native.records import MAX_XATTR_SIZE, MAX_XATTRS

__all__ = ["pack_xattrs", "packed"]

_VERSION: Final = 1

_PAGES: Final = re.compile(rb"[@~]")
"""What a client of version 2.12 takes for the choice of a page of the attribute whose name comes before it."""

_CLIENTS_OWN: Final = frozenset(
    b"user." + name.encode()
    for name in (
        *("authz", "catalog_counters", "chunk_list", "chunks", "compression", "direct_io", "expires", "external_file"),
        *("external_host", "external_timeout", "external_url", "fqrn", "hash", "hitrate", "host", "host_list"),
        *("inode_max", "lhash", "logbuffer", "maxfd", "ncleanup24", "nclg", "ndiropen", "ndownload", "nioerr", "nopen"),
        *("pid", "proxy", "proxy_list", "proxy_list_external", "pubkeys", "rawlink", "repo_counters", "repo_metainfo"),
        *("revision", "root_hash", "rx", "speed", "tag", "timeout", "timeout_direct", "timestamp_last_ioerr", "uptime"),
        *("usedfd", "useddirp", "version"),
    )
)
"""Attributes that clients make up of every file, whatever is stored."""


def pack_xattrs(xattrs: Mapping[bytes, bytes], *, path: bytes, notes: Notes) -> bytes | None:
    """Return the packed attributes, or nothing where there are none.

    Parameters
    ----------
    xattrs
        In the order in which they are to be kept if there are too many.
    path
        Whose attributes they are.
    notes
        Told which cannot be kept: a name or value of more than 255 bytes, the 256th and later ones. And which are kept,
        and not shown by clients as they are.
    """
    kept: list[tuple[bytes, bytes]] = []
    for name, value in xattrs.items():
        if name in _CLIENTS_OWN:
            notes.add(f"{show(path)}: clients of CVMFS show something of their own as the attribute {show(name)}")
        elif _PAGES.search(name):
            notes.add(f"{show(path)}: clients of CVMFS 2.12 list the attribute {show(name)}, and cannot read it")
        if len(name) > MAX_XATTR_SIZE or len(value) > MAX_XATTR_SIZE:
            notes.add(
                f"{show(path)}: the attribute {show(name)} has a value of {len(value)} bytes, CVMFS holds "
                f"{MAX_XATTR_SIZE}; left out"
            )
        elif len(kept) == MAX_XATTRS:
            notes.add(f"{show(path)}: more attributes than the {MAX_XATTRS} that CVMFS holds, {show(name)} left out")
        else:
            kept.append((name, value))
    return packed(dict(kept)) if kept else None


def packed(xattrs: Mapping[bytes, bytes]) -> bytes:
    """Pack attributes, of which there are not too many, and none is too large."""
    parts = (bytes((len(name), len(value))) + name + value for name, value in xattrs.items())
    return bytes((_VERSION, len(xattrs))) + b"".join(sorted(parts))
