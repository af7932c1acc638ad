"""Taking over a repository that another tool has made, to publish into it from then on.

Its keys, its catalogs with all they hold, its tags and its reference log stay as they are. What is added is the file
that says how objects are made: with zlib as the stock tools do. A reference log that is missing is made again from the
revisions and tag databases that can be followed back; a manifest that does not know it, as the stock garbage collector
leaves it, is signed anew.
"""

import time
from collections.abc import Callable
from contextlib import closing

from services.common.errors import InvalidValueError
from services.common.repository_name import RepositoryName
from services.repository.native.access import RepositoryAccess
from services.repository.native.errors import (
    BrokenRepositoryError,
    RepositoryExistsError,
)
from services.repository.native.format import FORMAT_FILE, RepositoryFormat
from services.repository.native.records import (
    REFLOG,
    HashAlgorithm,
    ObjectKind,
)
from services.repository.native.storage.interface import Storage
from services.repository.native.trust.chain import verify_head
from services.repository.native.trust.keyring import KeyFiles
from services.repository.native.writer.catalog import Catalog
from services.repository.native.writer.compressor import Compressor
from services.repository.native.writer.history import History
from services.repository.native.writer.manifest import Manifest
from services.repository.native.writer.reflog import ReferenceLog
from services.repository.native.writer.small_objects import SmallObjects

__all__ = ["adopt_repository"]


def adopt_repository(
    *,
    name: RepositoryName,
    storage: Storage,
    keys: KeyFiles,
    clock: Callable[[], float] = time.time,
) -> Manifest:
    """Take over a repository (blocking); it can be killed and repeated.

    Parameters
    ----------
    name
        Its name.
    storage
        Where it is.
    keys
        Its keys; the master key may be elsewhere.
    clock
        Seconds since the epoch.

    Raises
    ------
    RepositoryExistsError
        This suite looks after it already.
    TrustError
        A key cannot be used, or a signature of the repository does not hold.
    BrokenRepositoryError
        It is damaged, or of a form that cannot be continued.
    NativeError
        The storage failed.
    """
    storage.prepare()
    with storage.exclusive():
        if storage.size(FORMAT_FILE) is not None:
            raise RepositoryExistsError(f"{storage} is looked after by this suite already")
        # How objects are compressed does not matter for reading any.
        objects = SmallObjects(storage, Compressor(RepositoryFormat()))
        manifest = verify_head(storage, name, keys.load_public(), objects)
        chosen = _format_of(manifest.root.algorithm)
        access = RepositoryAccess.assume(name=name, storage=storage, keys=keys, chosen=chosen, clock=clock)
        access.whitelist.state()  # whether clients will believe what the present key signs
        _check_root(access, manifest)
        if manifest.history is not None:
            database = access.get(manifest.history, ObjectKind.HISTORY)
            History().read(database, name=name)  # an error, where it is not one that can be continued
        if storage.size(REFLOG) is not None:
            ReferenceLog().read(storage.read(REFLOG), name=name)  # an error, where it is not one that can be continued
        manifest = access.repair()
        storage.replace(FORMAT_FILE, chosen.encode())
        return manifest


def _format_of(algorithm: HashAlgorithm) -> RepositoryFormat:
    try:
        return RepositoryFormat.of({"compressor": "zlib", "hash": algorithm.label})
    except InvalidValueError:
        raise BrokenRepositoryError(f"objects named by {algorithm.label} cannot be continued") from None


def _check_root(access: RepositoryAccess, manifest: Manifest) -> None:
    """Make sure that the root catalog is whole, and of a form that can be continued."""
    content = access.get(manifest.root, ObjectKind.CATALOG)
    with closing(Catalog(content, where=f"the root catalog of {access.storage}")) as root:
        if root.revision != manifest.revision:
            raise BrokenRepositoryError(
                f"the root catalog is revision {root.revision}, the manifest {manifest.revision}: it is damaged"
            )
