"""Objects that are read and written whole: catalogs, tag databases, certificates, meta information."""

from services.repository.native.errors import BrokenRepositoryError
from services.repository.native.records import ContentHash, ObjectKind
from services.repository.native.replication import COMPRESSED_ANEW, compressed_anew
from services.repository.native.storage.interface import NewObject, Storage
from services.repository.native.writer.compressor import Compressor

__all__ = ["SmallObjects"]


class SmallObjects:
    """Makes and reads such objects of one repository (blocking).

    Parameters
    ----------
    storage
        Where the repository is.
    compressor
        The repository's.
    """

    def __init__(self, storage: Storage, compressor: Compressor) -> None:
        self._storage = storage
        self._compressor = compressor

    def name(self, content: bytes, kind: ObjectKind) -> ContentHash:
        """Return the name that an object of a kind with some content has.

        Raises
        ------
        UnlikeZlibError
            This Python cannot make it.
        """
        return self._compressor.name(self._stored(content, kind))

    def put(self, content: bytes, kind: ObjectKind) -> ContentHash:
        """Store an object and return its name.

        Raises
        ------
        StorageError
            It cannot be stored.
        UnlikeZlibError
            This Python cannot make it.
        """
        stored = self._stored(content, kind)
        name = self._compressor.name(stored)
        self._storage.put([NewObject(name.path(kind), stored)])
        return name

    def get(self, name: ContentHash, kind: ObjectKind) -> bytes:
        """Read an object, however it has been compressed.

        Raises
        ------
        ObjectMissingError
            It is not there.
        StorageError
            The storage failed.
        BrokenRepositoryError
            Its bytes are not those of its name, or no zlib stream.
        """
        path = name.path(kind)
        stored = self._storage.read(path)
        if ContentHash.of(stored, name.algorithm) != name:
            raise BrokenRepositoryError(f"{self._storage}: {path} has been changed")
        return self._compressor.expand(stored)

    def _stored(self, content: bytes, kind: ObjectKind) -> bytes:
        return compressed_anew(content) if kind in COMPRESSED_ANEW else self._compressor.compress(content)
