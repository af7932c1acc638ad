"""From content to an object: known content is found, other content is compressed, named and written."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from services.repository.native.records import ObjectKind, object_path
from services.repository.native.storage.interface import Buffer
from services.repository.native.storage.object_files import ObjectFiles
from services.repository.native.writer.compressor import Compressor
from services.repository.native.writer.index import ContentIndex
from services.repository.native.writer.new_rows import content_key

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

    def encode(self, pieces: Sequence[tuple[Buffer, ObjectKind]]) -> Sequence[Encoded]:
        """Make sure that there are objects that hold some contents.

        They are hashed, looked for, compressed and written by the step and not by the piece: most are small, and going
        from one library to the next costs more than many of them do.

        Raises
        ------
        OSError
            One could not be written.
        StorageError
            The index is damaged, and cannot be started anew.
        """
        keys = [content_key(content) for content, _ in pieces]
        # First in the index: what has got there meanwhile need not be written to it with every layer that has it again.
        found = self._index.find(keys)
        objects: dict[tuple[bytes, ObjectKind], Encoded] = {}
        new: dict[tuple[bytes, ObjectKind], Buffer] = {}
        for key, (content, kind) in zip(keys, pieces, strict=True):
            place = key, kind
            if place in objects or place in new:
                continue
            known = found.get(place)
            digest = known or self._recent.get(place)
            if digest is not None and self._is_there(digest, kind):
                objects[place] = Encoded(key, digest, known=known is not None)
            else:
                new[place] = content
        for (key, kind), digest in zip(new, self._write(new), strict=True):
            objects[key, kind] = Encoded(key, digest, known=False)
            self._remember(key, kind, digest)
        return [objects[key, kind] for key, (_, kind) in zip(keys, pieces, strict=True)]

    def encode_anew(self, pieces: Sequence[tuple[Buffer, ObjectKind]]) -> Sequence[Encoded]:
        """Write the objects that hold some contents, whatever is there: what is known of one may be damaged.

        Raises
        ------
        OSError
            One could not be written.
        """
        keys = [content_key(content) for content, _ in pieces]
        new = {(key, kind): content for key, (content, kind) in zip(keys, pieces, strict=True)}
        digests = dict(zip(new, self._write(new), strict=True))
        return [Encoded(key, digests[key, kind], known=False) for key, (_, kind) in zip(keys, pieces, strict=True)]

    def _write(self, new: Mapping[tuple[bytes, ObjectKind], Buffer]) -> Sequence[bytes]:
        """Make objects, and return their digests."""
        stored = [self._compressor.compress(content) for content in new.values()]
        digests = [self._algorithm.digest(one) for one in stored]
        for (_, kind), digest, content in zip(new, digests, stored, strict=True):
            self._files.write(object_path(digest, kind, self._algorithm), content)
        return digests

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
