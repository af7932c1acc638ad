"""Local copies of layers that this machine committed and that its repositories do not show yet.

A committed image has to run at once on the machine that made it. So the uploaded archive is kept until the layer's
sidecar shows in the mounted repository, and an extraction of it, made when it is first needed, stands in for the layer.

On disk, below the driver's home::

    copies/<digest>/archive      the layer archive
    copies/<digest>/record.json  diff ID, sizes, media type, layer URL
    copies/<digest>/tree/        the extraction, in the kernel's overlay encoding; appears by one rename
"""

import asyncio
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from services.common.archive.compression import open_archive
from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import LayerArchive, MediaType
from services.common.archive.ondisk import OverlayDeletions
from services.common.archive.unpack import unpack
from services.common.descriptor import LayerUrl
from services.common.digest import Digest
from services.common.durable import sync_tree, write_file
from services.common.streams import run_in_thread
from services.node.holders import Holders
from services.node.locks import Locks
from services.node.removal import bury, delete_directory, delete_leftovers

__all__ = ["LocalCopies", "LocalCopy"]

_RECORD: Final = "record.json"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LocalCopy:
    """A layer of which this machine keeps its own archive."""

    archive: LayerArchive
    url: LayerUrl
    """Where the layer is going to be."""

    @property
    def tree(self) -> Path:
        """The extraction, if there is one yet."""
        return self.archive.path.with_name("tree")

    @property
    def record(self) -> Path:
        """What is written down about it, when it is kept."""
        return self.archive.path.with_name(_RECORD)


class LocalCopies:
    """The local copies below one home directory.

    Parameters
    ----------
    home
        The driver's directory.
    limits
        Bounds for the extraction; a layer that was made here can still be hostile.
    """

    def __init__(self, *, home: Path, limits: ArchiveLimits) -> None:
        self._copies = home / "copies"
        self._spool = home / "spool"
        self._limits = limits
        self._locks = Locks[Digest]()
        self._holders = Holders[Digest]()
        for directory in (self._copies, self._spool):
            # Private all the same: the kernel reaches lower directories with the credentials of whoever mounts, root.
            directory.mkdir(mode=0o700, exist_ok=True)
        self._index: dict[Digest, LocalCopy] = {}
        self._finish_interrupted()

    def _finish_interrupted(self) -> None:
        delete_leftovers(self._spool.iterdir())
        for directory in self._copies.iterdir():
            try:
                copy = self._read(directory)
            except (OSError, ValueError, KeyError, TypeError) as error:
                # A union may stand on its tree, so it stays; the layer itself is in the object store.
                _log.error("local_copy_damaged", directory=str(directory), error=repr(error))
                continue
            delete_leftovers([directory / "tree.new"])
            self._index[copy.archive.digest] = copy

    def _read(self, directory: Path) -> LocalCopy:
        record = json.loads((directory / _RECORD).read_bytes())
        archive = LayerArchive(
            path=directory / "archive",
            digest=Digest(directory.name),
            diff_id=Digest(record["diff_id"]),
            size=record["size"],
            uncompressed_size=record["uncompressed_size"],
            media_type=MediaType(record["media_type"]),
        )
        return LocalCopy(archive, LayerUrl(record["url"]))

    def new_spool(self) -> Path:
        """Make a private directory for an archive that is being written. Blocks."""
        return Path(tempfile.mkdtemp(dir=self._spool))

    def keep(self, copy: LocalCopy) -> None:
        """Take over an archive that has been uploaded, by one rename of its directory. Blocks.

        Parameters
        ----------
        copy
            Its archive lies in a directory of `new_spool`, which this call uses up.
        """
        archive, spool = copy.archive, copy.archive.path.parent
        archive.path.rename(spool / "archive")
        record = {
            "diff_id": archive.diff_id,
            "size": archive.size,
            "uncompressed_size": archive.uncompressed_size,
            "media_type": archive.media_type,
            "url": copy.url,
        }
        write_file(spool / _RECORD, f"{json.dumps(record)}\n".encode())
        sync_tree(spool, entries=2)
        place = self._copies / archive.digest
        try:
            spool.rename(place)
        except OSError:
            if not (place / _RECORD).exists():
                raise
            # The same changes were committed before.
            delete_directory(spool)
        self._index[archive.digest] = self._read(place)

    def __contains__(self, digest: Digest) -> bool:
        """Return whether there is a copy of the layer."""
        return digest in self._index

    def all(self) -> list[LocalCopy]:
        """Return all copies."""
        return list(self._index.values())

    async def tree(self, digest: Digest, *, holder: str) -> Path | None:
        """Return the layer's files, extracted at first use, and note that `holder` uses them.

        None if there is no copy of the layer, or none any more since it shows in its repository.

        Raises
        ------
        ArchiveError
            The archive breaks a limit.
        """
        async with self._locks.hold(digest):
            copy = self._index.get(digest)
            if copy is None:
                return None
            tree = copy.tree
            if not await asyncio.to_thread(tree.is_dir):
                await run_in_thread(lambda: self._extract(copy, tree))
            self._holders.add(digest, holder)
            return tree

    def claim(self, digest: Digest, *, holder: str) -> None:
        """Note a use that an earlier process of this program began."""
        self._holders.add(digest, holder)

    def release(self, *, holder: str) -> None:
        """Note that `holder` uses no copy any more."""
        self._holders.drop(holder)

    def _extract(self, copy: LocalCopy, tree: Path) -> None:
        new = tree.with_name("tree.new")
        delete_directory(new)
        new.mkdir(mode=0o755)
        with open(copy.archive.path, "rb", buffering=0) as file:
            source = open_archive(file, limits=self._limits)
            content = unpack(source, new, deletions=OverlayDeletions(), limits=self._limits)
        # Or power could fail when the tree has its name and its files have no content yet, and nobody would see it.
        sync_tree(new, entries=content.entries)
        new.rename(tree)

    async def drop(self, digest: Digest) -> None:
        """Let a copy go whose layer now shows in its repository.

        While somebody uses the extraction only the archive goes, and the rest at a later call.
        """
        async with self._locks.hold(digest):
            copy = self._index.get(digest)
            if copy is None:
                return
            if digest in self._holders:
                await asyncio.to_thread(copy.archive.path.unlink, missing_ok=True)
                return
            del self._index[digest]
            await run_in_thread(lambda: self._delete(copy))

    def _delete(self, copy: LocalCopy) -> None:
        grave = bury(copy.archive.path.parent, self._spool)
        if grave is not None:
            delete_directory(grave)
