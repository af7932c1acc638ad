"""A reference log for a repository that has none, of what can be found, as the stock tools make it."""

from collections.abc import Callable, Iterator

from services.publisher.repository.native.errors import ObjectMissingError
from services.publisher.repository.native.records import ContentHash, ObjectKind, RefKind
from services.publisher.repository.native.revisions import revisions
from services.publisher.repository.native.storage.interface import Storage
from services.publisher.repository.native.writer.history import History
from services.publisher.repository.native.writer.manifest import Manifest
from services.publisher.repository.native.writer.reflog import ReferenceLog

__all__ = ["reconstruct_reflog"]

_Get = Callable[[ContentHash, ObjectKind], bytes]


def reconstruct_reflog(storage: Storage, manifest: Manifest, get: _Get) -> bytes:
    """Make a reference log of the revisions and tag databases that can be followed back from the head, and of the tags.

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
    NativeError
        Something that is there cannot be read.
    """
    reflog, name, published = ReferenceLog(), manifest.name, manifest.published
    log = reflog.add(None, [(manifest.certificate, RefKind.CERTIFICATE)], name=name, timestamp=published)
    if manifest.meta is not None:
        log = reflog.add(log, [(manifest.meta, RefKind.META)], name=name, timestamp=published)
    if manifest.history is not None:
        for tag in History().read(get(manifest.history, ObjectKind.HISTORY), name=name):
            log = reflog.add(log, [(tag.root, RefKind.CATALOG)], name=name, timestamp=tag.timestamp)
    for record in revisions(storage, manifest):
        log = reflog.add(log, [(record.root, RefKind.CATALOG)], name=name, timestamp=record.published)
    histories = [(history, RefKind.HISTORY) for history in _histories(manifest, get)]
    return reflog.add(log, histories, name=name, timestamp=published)


def _histories(manifest: Manifest, get: _Get) -> Iterator[ContentHash]:
    current = manifest.history
    while current is not None and not current.is_null:
        try:
            database = get(current, ObjectKind.HISTORY)
        except ObjectMissingError:
            return
        yield current
        current = History().previous(database, name=manifest.name)
