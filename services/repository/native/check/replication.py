"""Checks whether replicas can be mounted, and tells a replica from a repository that is published to."""

import zlib
from collections.abc import Iterator
from typing import Final

from services.repository.native.check.problem import RESTORE, Problem
from services.repository.native.errors import BrokenRepositoryError, ObjectMissingError
from services.repository.native.format import FORMAT_FILE
from services.repository.native.reader.letters import Manifest
from services.repository.native.reader.objects import read_small_object
from services.repository.native.reader.source import Source, read_file
from services.repository.native.records import MANIFEST, SNAPSHOT_MARK, ContentHash, ObjectKind
from services.repository.native.replication import UnlikeZlibError, compressed_anew, is_copied_right

__all__ = ["check_copies", "describe_loss", "is_replica"]

_MEND: Final = "start the publisher, publish, or sign the whitelist again (thin-repository resign): each mends it"
_MEND_FIRST: Final = f"at the stratum 0, {_MEND}; then replicate again"
_LIMIT: Final = 16 << 20
"""Largest certificate or meta information that is read, in bytes."""
_WHAT: Final = {ObjectKind.CERTIFICATE: "certificate", ObjectKind.META: "meta information"}


def is_replica(source: Source) -> bool:
    """Tell whether a repository is a stratum 1's copy; one that this suite publishes to never is.

    Raises
    ------
    StorageError
        The storage failed.
    """
    return source.size(SNAPSHOT_MARK) is not None and source.size(FORMAT_FILE) is None


def check_copies(source: Source, manifest: Manifest, *, replica: bool) -> Iterator[Problem]:
    """Check whether replication copies certificate and meta information right; what cannot be read is passed over.

    Parameters
    ----------
    source
        Where the repository is.
    manifest
        Of its head.
    replica
        Whether it is a copy itself.

    Raises
    ------
    StorageError
        The storage failed.
    """
    for name, kind in ((manifest.certificate, ObjectKind.CERTIFICATE), (manifest.meta, ObjectKind.META)):
        if name is None:
            continue
        try:
            right = is_copied_right(name, read_small_object(source, name, kind, limit=_LIMIT))
        except (ObjectMissingError, BrokenRepositoryError):
            continue  # `describe_loss` tells
        except UnlikeZlibError as error:
            yield Problem(MANIFEST, f"whether replicas can be mounted is not known: {error}", "check it elsewhere")
            return
        if not right:
            what = f"its {_WHAT[kind]} {name.path(kind)} is not compressed as replication does it: no replica is usable"
            yield Problem(MANIFEST, what, _MEND_FIRST if replica else _MEND)


def describe_loss(
    source: Source, name: ContentHash, kind: ObjectKind, error: ObjectMissingError | BrokenRepositoryError
) -> Problem:
    """Describe a certificate or meta information that cannot be read.

    Parameters
    ----------
    source
        Where the repository is.
    name, kind
        Which object.
    error
        What reading it has met.

    Raises
    ------
    StorageError
        The storage failed.
    """
    path, what = name.path(kind), _WHAT[kind]
    if isinstance(error, ObjectMissingError):
        return Problem(MANIFEST, f"its {what} {path} is missing", RESTORE)
    if is_replica(source) and _was_compressed_anew(source, path):
        return Problem(MANIFEST, f"its {what} {error}; replication has compressed it anew", _MEND_FIRST)
    return Problem(MANIFEST, f"its {what} {error}", RESTORE)


def _was_compressed_anew(source: Source, path: str) -> bool:
    stream = zlib.decompressobj()
    try:
        stored = read_file(source, path, limit=_LIMIT)
        content = stream.decompress(stored, _LIMIT)
        return stream.eof and compressed_anew(content) == stored
    except (ObjectMissingError, BrokenRepositoryError, UnlikeZlibError, zlib.error):
        return False
