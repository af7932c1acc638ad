"""A layer archive on its way through the publisher."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from services.common.archive.compression import open_archive
from services.common.archive.errors import ArchiveError
from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import LayerContent
from services.common.digest import Digest
from services.common.sidecar import LayerSidecar, encode_path
from services.publisher.errors import LayerRefusedError
from services.publisher.threads import Stop

__all__ = ["VerifiedLayer", "describe"]

_MAX_NOTES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedLayer:
    """A layer archive in the spool whose size and digest are those of the announced object."""

    path: Path
    digest: Digest
    diff_id: Digest
    """SHA-256 that the uncompressed tar stream must have."""
    size: int
    """Size of the archive, in bytes."""
    uncompressed_size: int
    """Size that the uncompressed tar stream must have, in bytes."""
    limits: ArchiveLimits

    @contextmanager
    def open(self, stop: Stop) -> Iterator[BinaryIO]:
        """Open the uncompressed tar stream; blocking.

        At the end of the context the rest of the stream is read, and the diff ID and size are checked.

        Parameters
        ----------
        stop
            Ends reading when somebody sets it.

        Raises
        ------
        LayerRefusedError
            The archive breaks a rule or a limit, or is not what its object's metadata says.
        """
        try:
            with self.path.open("rb") as file, open_archive(file, limits=self.limits) as stream:
                yield stream
        except ArchiveError as error:
            raise LayerRefusedError(f"the archive is refused: {error}", kind="archive") from error
