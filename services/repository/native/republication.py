"""Layers that are published once more although they are there, since something of them is damaged or lost.

Which ones is said by a file of the repository's root, so that every publisher takes them for missing until one has
published them anew. Then each of their objects is written again, whatever an index says: objects of the same content
in other layers become whole by that as well.
"""

import json
from collections.abc import Collection, Sequence
from contextlib import closing
from typing import Final

from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.layout import LayerLayout
from services.repository.native.access import RepositoryAccess
from services.repository.native.errors import BrokenRepositoryError, NativeError, ObjectMissingError
from services.repository.native.records import REPUBLISHED
from services.repository.native.storage.interface import Storage
from services.repository.native.writer.tree import RepositoryTree, TreeUpdate

__all__ = ["Republication", "republish_layers"]

_LAYERS: Final = "layers"


class Republication:
    """The file of one repository (blocking).

    Parameters
    ----------
    storage
        Where the repository is.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def layers(self) -> Collection[Digest]:
        """Return the layers that are to be published anew.

        Raises
        ------
        BrokenRepositoryError
            The file is damaged.
        StorageError
            The storage failed.
        """
        try:
            content = self._storage.read(REPUBLISHED)
        except ObjectMissingError:
            return frozenset()
        try:
            return frozenset(map(Digest, json.loads(content)[_LAYERS]))
        except (ValueError, LookupError, TypeError, InvalidValueError) as error:
            raise BrokenRepositoryError(
                f"{self._storage}: {REPUBLISHED} is damaged: remove it, and name the layers again that are to be "
                "published anew (thin-repository republish)"
            ) from error

    def ask(self, digests: Collection[Digest]) -> None:
        """Have layers published anew; the caller holds the write lock. Errors as `layers`."""
        self._write({*self.layers(), *digests})

    def done(self, digests: Collection[Digest]) -> None:
        """Note that layers have been published anew; the caller holds the write lock. Errors as `layers`."""
        if digests:
            self._write({*self.layers()}.difference(digests))

    def _write(self, digests: Collection[Digest]) -> None:
        if digests:
            self._storage.replace(REPUBLISHED, json.dumps({_LAYERS: sorted(digests)}).encode())
        else:
            self._storage.delete([REPUBLISHED])


def republish_layers(access: RepositoryAccess, digests: Sequence[Digest]) -> None:
    """Have layers published anew that are in the repository (blocking).

    Raises
    ------
    NativeError
        One of them is not there, in which case nothing changes, or the repository cannot be changed.
    """
    # The layout says where links are put, and none is.
    tree = RepositoryTree(storage=access.storage, compressor=access.compressor, layout=LayerLayout.DUCC)
    with closing(tree), access.changing() as manifest:
        with TreeUpdate(tree, manifest.root) as update:
            missing = [digest for digest in digests if not update.holds(digest)]
        if missing:
            raise NativeError(f"{access.storage} does not hold {', '.join(missing)}: nothing has been changed")
        Republication(access.storage).ask(digests)
