"""A layer archive on its way through the publisher."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final, Literal

from services.common.archive.ahead import ReadAhead
from services.common.archive.compression import open_archive
from services.common.archive.errors import ArchiveError, ArchiveReadError, TreeReadError, TreeWriteError
from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import ArchiveIdentity, LayerContent
from services.common.archive.stream import Source
from services.common.arriving_file import ArrivingFile
from services.common.digest import Digest
from services.common.sidecar import LayerSidecar, encode_path
from services.common.threads import Stop
from services.repository.errors import LayerRefusedError, RepositoryError

__all__ = ["VerifiedLayer"]

_PIECE: Final = 64 << 10
_SMALL: Final = 1 << 20
"""Archives below this size are read before a thread would be ahead, in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedLayer:
    """A layer archive in the spool whose size and digest are those of the announced object.

    One that is still arriving has an `arrival`; then it is verified when `read` has returned.
    """

    path: Path
    """Where it is, or will be when it has arrived and is verified."""
    digest: Digest
    diff_id: Digest
    """SHA-256 that the uncompressed tar stream must have."""
    size: int
    """Size of the archive, in bytes."""
    uncompressed_size: int | None
    """Size that the uncompressed tar stream must have, in bytes; None where nothing was announced."""
    limits: ArchiveLimits
    arrival: ArrivingFile | None = None
    """The file that it arrives in."""

    def read(
        self,
        consume: Callable[[Source], LayerContent],
        *,
        stop: Stop,
        deletions: Literal["listed", "in-tree"] = "listed",
    ) -> LayerSidecar:
        """Give the uncompressed tar stream to a consumer, check all of it, and describe the layer; blocking.

        Parameters
        ----------
        consume
            Reads the stream; it may unpack it, or write it to a repository's own storage.
        stop
            Ends reading when somebody sets it.
        deletions
            Where the consumer leaves the layer's deletions, for the description.

        Raises
        ------
        LayerRefusedError
            The archive breaks a rule or a limit, or is not what its object's metadata says.
        RepositoryError
            What the consumer writes to failed.
        ArrivalFailedError
            The archive did not arrive.
        OSError
            The spool failed.
        """
        try:
            with self._open() as source:
                reader = open_archive(_Stoppable(source, stop), limits=self.limits)
                if self.size < _SMALL:
                    content = consume(reader)
                    _read_to_end(reader)
                else:
                    with ReadAhead(reader) as ahead:
                        content = consume(ahead)
                        _read_to_end(ahead)
                identity = reader.identity()
        except (TreeWriteError, TreeReadError) as error:
            raise RepositoryError(str(error)) from error
        except ArchiveReadError as error:
            raise OSError(str(error)) from error
        except ArchiveError as error:
            self._check_digest(stop)
            raise LayerRefusedError(f"the archive is refused: {error}", kind="archive") from error
        self._compare(identity)
        return self._describe(content, identity, deletions)

    @contextmanager
    def _open(self) -> Iterator[Source]:
        if self.arrival is not None:
            yield self.arrival.reader()
        else:
            with FileIO(self.path) as file:
                yield file

    def _check_digest(self, stop: Stop) -> None:
        """Make sure that an archive which breaks a rule is the announced one, and was not damaged on its way."""
        if self.arrival is None:
            return
        hasher, buffer = hashlib.sha256(), memoryview(bytearray(_PIECE))
        source = _Stoppable(self.arrival.reader(), stop)
        while count := source.readinto(buffer):
            hasher.update(buffer[:count])
        self._compare_digest(Digest(hasher.hexdigest()))

    def _compare(self, found: ArchiveIdentity) -> None:
        self._compare_digest(found.digest)
        for what, announced, actual in (
            ("diff ID", self.diff_id, found.diff_id),
            ("uncompressed size", self.uncompressed_size, found.uncompressed_size),
        ):
            if announced not in (None, actual):
                raise LayerRefusedError(
                    f"the archive has the {what} {actual}, announced was {announced}", kind="diff_id"
                )

    def _compare_digest(self, found: Digest) -> None:
        if found != self.digest:
            raise LayerRefusedError(
                f"the archive has the digest {found}, announced was {self.digest}: it was damaged or forged; remove it "
                "and have the layer uploaded or pushed again",
                kind="digest",
            )

    def _describe(
        self, content: LayerContent, identity: ArchiveIdentity, deletions: Literal["listed", "in-tree"]
    ) -> LayerSidecar:
        return LayerSidecar(
            digest=self.digest,
            diff_id=self.diff_id,
            archive_size=self.size,
            uncompressed_size=identity.uncompressed_size,
            tree_size=content.tree_size,
            entries=content.entries,
            deletions=deletions,
            whiteouts=tuple(map(encode_path, content.whiteouts)),
            opaque=tuple(map(encode_path, content.opaque)),
            notes=content.notes,
        )


class _Stoppable:
    """A file whose reading ends early when nobody waits for it any more."""

    def __init__(self, file: Source, stop: Stop) -> None:
        self._file = file
        self._stop = stop

    def readinto(self, buffer: memoryview, /) -> int:
        self._stop.check()
        return self._file.readinto(buffer) or 0


def _read_to_end(source: Source) -> None:
    """Read what the consumer left, so that digests and sizes are those of everything."""
    buffer = memoryview(bytearray(_PIECE))
    while source.readinto(buffer):
        continue
