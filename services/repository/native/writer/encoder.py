"""From content to an object: known content is found, other content is compressed, named and written."""

from typing import Final, NamedTuple

from services.repository.native.records import ObjectKind, object_path
from services.repository.native.storage.interface import Buffer
from services.repository.native.storage.object_files import ObjectFiles
from services.repository.native.writer.compressor import Compressor
from services.repository.native.writer.index import ContentIndex, content_key

__all__ = ["Encoded", "Encoder"]

_RECENT: Final = 4096
"""Objects that are remembered besides the index."""


class Encoded(NamedTuple):
    """An object that holds some content."""

    key: bytes
    """What the content is found by in the index."""
    digest: bytes
    known: bool
    """Whether the index had it."""


class Encoder:
    """Makes objects of content.

    Parameters
    ----------
    files
        Where objects are written.
    check
        Whether the index is to be believed only where `files` holds the object.
    """

    def __init__(self, *, compressor: Compressor, index: ContentIndex, files: ObjectFiles, check: bool) -> None:
        self._compressor = compressor
        self._algorithm = compressor.algorithm
        self._index = index
        self._files = files
        self._check = check
        self._recent: dict[tuple[bytes, ObjectKind], bytes] = {}

    def encode(self, content: Buffer, kind: ObjectKind) -> Encoded:
        """Make sure that there is an object that holds some content.

        Raises
        ------
        OSError
            It could not be written.
        """
        key = content_key(content)
        # First in the index: what has got there meanwhile need not be written to it with every layer that has it again.
        found = self._index.find(key, kind)
        digest = found or self._recent.get((key, kind))
        if digest is not None and self._is_there(digest, kind):
            return Encoded(key, digest, known=found is not None)
        stored = self._compressor.compress(content)
        digest = self._algorithm.digest(stored)
        self._files.write(object_path(digest, kind, self._algorithm), stored)
        self._remember(key, kind, digest)
        return Encoded(key, digest, known=False)

    def _is_there(self, digest: bytes, kind: ObjectKind) -> bool:
        """Tell whether an object has not been collected since it got to be known."""
        return not self._check or self._files.holds(object_path(digest, kind, self._algorithm))

    def _remember(self, key: bytes, kind: ObjectKind, digest: bytes) -> None:
        """Keep what the index gets to know only with the next revision; the same layer may have it again."""
        if not self._check:
            return  # it could not be seen here that it has been collected meanwhile
        if len(self._recent) == _RECENT:
            self._recent.clear()
        self._recent[key, kind] = digest
