"""A layer archive on its way through the publisher."""

from collections.abc import Callable
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
    """A layer archive in the spool whose size and digest are those of the announced object."""

    path: Path
    digest: Digest
    diff_id: Digest
    """SHA-256 that the uncompressed tar stream must have."""
    size: int
    """Size of the archive, in bytes."""
    uncompressed_size: int | None
    """Size that the uncompressed tar stream must have, in bytes; None where nothing was announced."""
    limits: ArchiveLimits

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
        OSError
            The spool failed.
        """
        try:
            with FileIO(self.path) as file:
                reader = open_archive(_Stoppable(file, stop), limits=self.limits)
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
            raise LayerRefusedError(f"the archive is refused: {error}", kind="archive") from error
        self._compare(identity)
        return self._describe(content, identity, deletions)

    def _compare(self, found: ArchiveIdentity) -> None:
        for what, announced, actual, kind in (
            ("digest", self.digest, found.digest, "digest"),
            ("diff ID", self.diff_id, found.diff_id, "diff_id"),
            ("uncompressed size", self.uncompressed_size, found.uncompressed_size, "diff_id"),
        ):
            if announced not in (None, actual):
                raise LayerRefusedError(f"the archive has the {what} {actual}, announced was {announced}", kind=kind)

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

    def __init__(self, file: FileIO, stop: Stop) -> None:
        self._file = file
        self._stop = stop

    def readinto(self, buffer: memoryview, /) -> int:
        self._stop.check()
        return self._file.readinto(buffer)


def _read_to_end(source: Source) -> None:
    """Read what the consumer left, so that digests and sizes are those of everything."""
    buffer = memoryview(bytearray(_PIECE))
    while source.readinto(buffer):
        continue
