"""A reference log for a repository that has none, of what can be found, as the stock tools make it."""

from collections.abc import Callable, Iterator
from contextlib import suppress

from services.repository.native.errors import BrokenRepositoryError, ObjectMissingError
from services.repository.native.records import ContentHash, ObjectKind, RefKind
from services.repository.native.revisions import revisions
from services.repository.native.storage.interface import Storage
from services.repository.native.writer.history import History
from services.repository.native.writer.manifest import Manifest
from services.repository.native.writer.reflog import ReferenceLog

__all__ = ["reconstruct_reflog"]

_Get = Callable[[ContentHash, ObjectKind], bytes]


def reconstruct_reflog(storage: Storage, manifest: Manifest, get: _Get) -> bytes:
    """Make a reference log of the revisions and tag databases that can be followed back from the head, and of the tags.

    What is missing or damaged of the past ends it: collections and publishing need to know the present only.

    Parameters
    ----------
    storage
        Where the repository is.
    manifest
        Of the head.
    get
        Reads small objects.

    Raises
    ------
    BrokenRepositoryError
        The present tag database is damaged.
    StorageError
        The storage failed.
    """
    reflog, name, published = ReferenceLog(), manifest.name, manifest.published
    log = reflog.add(None, manifest.references, name=name, timestamp=published)
    if manifest.history is not None:
        for tag in History().read(get(manifest.history, ObjectKind.HISTORY), name=name):
            log = reflog.add(log, [(tag.root, RefKind.CATALOG)], name=name, timestamp=tag.timestamp)
    with suppress(BrokenRepositoryError):
        for record in revisions(storage, manifest):
            log = reflog.add(log, [(record.root, RefKind.CATALOG)], name=name, timestamp=record.published)
    histories = [(history, RefKind.HISTORY) for history in _histories(manifest, get)]
    return reflog.add(log, histories, name=name, timestamp=published)


def _histories(manifest: Manifest, get: _Get) -> Iterator[ContentHash]:
    current = manifest.history
    while current is not None and not current.is_null:
        try:
            previous = History().previous(get(current, ObjectKind.HISTORY), name=manifest.name)
        except (ObjectMissingError, BrokenRepositoryError):
            return
        yield current
        current = previous
