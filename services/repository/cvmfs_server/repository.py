"""A CVMFS repository on its stratum 0, written through the real `cvmfs_server`.

A transaction makes `/cvmfs/REPOSITORY` writable, a union of what is published and what has been changed; `publish`
turns it into a new revision, all at once. Layers are unpacked straight into it, since everything in it is read again
and compressed by `publish` anyway. Their deletions go to the sidecars, since the union could not hold them as devices.

Somebody else's transaction is never touched (`ownership`). A marker file in the publisher's own holds its token and is
published along; so a token that is in the published tree names a transaction that has succeeded, whatever the program's
exit status was. The program's word is not taken for an abort either: version 2.12 ends with status 0 when a mount that
is busy keeps it from aborting.
"""

import asyncio
import contextlib
import errno
import os
import stat
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

import structlog

from services.common.archive.layer import read_layer
from services.common.archive.memorytree import MemoryTree
from services.common.archive.notes import Notes
from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.layout import LayerLayout, sidecar_path
from services.common.sidecar import LayerSidecar
from services.common.threads import Stop, in_thread
from services.repository.cvmfs_server.attributes import AttributeKeeping
from services.repository.cvmfs_server.branch import Branch
from services.repository.cvmfs_server.documents import list_images, read_image
from services.repository.cvmfs_server.names import CvmfsNames
from services.repository.cvmfs_server.ownership import Ownership
from services.repository.cvmfs_server.place import Place
from services.repository.cvmfs_server.program import outlive
from services.repository.cvmfs_server.publishing_lock import PublishingLock
from services.repository.cvmfs_server.readiness import Readiness
from services.repository.cvmfs_server.scratch import Scratch
from services.repository.cvmfs_server.tool import CvmfsServer
from services.repository.cvmfs_server.transaction import MARKER, ServerTransaction
from services.repository.errors import (
    ForeignTransactionError,
    NoTransactionError,
    RepositoryError,
    TransactionLeftOpenError,
)
from services.repository.images import ImageDocuments
from services.repository.interface import ListedLayer, OwnTransaction, PreparedLayer, Publication, StoredImage
from services.repository.layer import VerifiedLayer
from services.repository.listing import list_tree

__all__ = ["CvmfsServerRepository"]

_log = structlog.get_logger(__name__)

_Result = TypeVar("_Result")

_DAY: Final = 86400
_REVISION: Final = "user.revision"
"""Extended attribute of a mounted repository's root: the number of the revision."""
_DEAD: Final = (errno.ENOTCONN, errno.ECONNABORTED)
"""What a mount says whose CVMFS client has died."""


class CvmfsServerRepository:
    """One repository.

    Parameters
    ----------
    place
        Where it is.
    layout
        Paths that thin images name.
    tool
        The program.
    patience
        How long a program that an earlier publisher started may go on, in seconds.
    threads
        Where blocking work runs.
    """

    def __init__(
        self, *, place: Place, layout: LayerLayout, tool: CvmfsServer, patience: float, threads: Executor
    ) -> None:
        self.name = place.name
        self._place = place
        self._layout = layout
        self._tool = tool
        self._patience = patience
        self._threads = threads
        self._ownership = Ownership(place)
        self._branch = Branch(place, threads)
        self._lock = PublishingLock(place.publishing_lock, place.name)
        self._turn = asyncio.Lock()
        self._readiness = Readiness(place=place, branch=self._branch, lock=self._lock, threads=threads)
        self._attributes = AttributeKeeping(place)

    def directories(self) -> Mapping[str, Path]:
        """Return what the program writes to on this machine, by what it is for; what is not known yet is left out."""
        directories = {"cvmfs_spool": self._place.spool}
        with contextlib.suppress(RepositoryError):  # `recover` will say that
            storage = self._place.configuration().storage
            if storage is not None:
                directories["storage"] = storage
        return directories

    async def recover(self, transactions: Sequence[OwnTransaction]) -> None:
        """Wait for a program that an earlier publisher started; abort the transaction that it left.

        While one is open the program calls its repository unhealthy if its mounts are not as it left them, as after a
        kill. So fitness is asked for at the end.
        """
        for transaction in transactions:
            if transaction.process is not None:
                await outlive(transaction.process, self._patience)
            self._ownership.add(transaction.token)
        opener = self._ownership.living_opener()
        if opener is not None:
            await outlive(opener, self._patience)
        async with self._turn:
            try:
                await self._abort_own()
                await self._make_fit()
            except RepositoryError as error:
                self._readiness.obstacle = str(error)
                raise
            self._readiness.obstacle = None
        await self._blocking(self._attributes.look)

    async def check(self) -> None:
        """Make sure that the repository is there, and that nothing keeps it from being published to."""
        await self._readiness.check(at_work=self._turn.locked)

    async def trusted_until(self) -> float:
        """Tell when the whitelist expires, to a day; in seconds since the epoch.

        Raises
        ------
        RepositoryError
            It cannot be found out now.
        """
        return time.time() + await self._tool.whitelist_days() * _DAY

    async def lookup(self, digest: Digest) -> Publication | None:
        """Find a layer in the published tree, which a transaction does not change."""

        def look(_stop: Stop) -> bool:
            try:
                return stat.S_ISREG(os.stat(self._place.published / sidecar_path(digest)).st_mode)
            except (FileNotFoundError, NotADirectoryError):
                return False

        return Publication(revision=None) if await self._read(look) else None

    async def list_layers(self, shard: str) -> Sequence[ListedLayer]:
        """List the layers of the published tree, all of one revision."""
        return await self._read_one_revision(lambda published: list_tree(published, shard, self._layout))

    async def read_image(self, name: ImageName) -> Mapping[str, bytes] | None:
        """Return the documents of an image in the published tree, all of one revision."""
        return await self._read_one_revision(lambda published: read_image(published, name))

    async def list_images(self) -> Sequence[ImageName]:
        """List the images of the published tree, all of one revision."""
        return await self._read_one_revision(list_images)

    async def list_flats(self) -> Collection[Digest]:
        """Return none: no image is flat here."""
        return ()

    async def ducc_flats(self, configs: Collection[Digest]) -> Collection[Digest]:  # noqa: ARG002 - as `list_flats`
        """Return none, as `list_flats`."""
        return ()

    async def flats_of(self, name: ImageName) -> Collection[Digest]:  # noqa: ARG002 - no image is flat here
        """Return none, as `list_flats`."""
        return ()

    async def _read_one_revision(self, look: Callable[[Path], _Result]) -> _Result:
        def repeat(stop: Stop) -> _Result:
            # At the end of a publish nothing is mounted for a moment, and everything would count as lost.
            while True:
                revision = os.getxattr(self._place.published, _REVISION)
                seen = look(self._place.published)
                if os.getxattr(self._place.published, _REVISION) == revision:
                    return seen
                stop.check()

        return await self._read(repeat)

    async def _read(self, look: Callable[[Stop], _Result]) -> _Result:
        """Look at the published tree; once more after it has been mounted anew, where its client has died."""
        try:
            return await in_thread(self._threads, look)
        except OSError as error:
            if error.errno not in _DEAD:
                raise self._unreadable(error) from error
        async with self._turn:
            try:
                return await in_thread(self._threads, look)  # which a publish may have mended meanwhile
            except OSError as error:
                if error.errno not in _DEAD:
                    raise self._unreadable(error) from error
                _log.warning("the CVMFS client of the published tree has died", repository=self.name)
                await self._abort_own()
                await self._make_fit()
        try:
            return await in_thread(self._threads, look)
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> RepositoryError:
        return RepositoryError(f"the published tree of {self.name} cannot be read: {error}")

    async def list_stored(self) -> Collection[StoredImage]:
        """Return none: no image is in a store here."""
        return ()

    async def not_in_stores(self, images: Sequence[ImageDocuments]) -> Collection[ImageName]:
        """Return those that are to be in one."""
        return [image.name for image in images if image.outputs.podman is not None]

    async def prepare(self, layer: VerifiedLayer) -> PreparedLayer:
        """Read a layer to its end and check all of it; nothing is written before the transaction."""

        def survey(stop: Stop) -> LayerSidecar:
            notes = Notes()
            with Scratch(self._place.scratch.parent) as scratch:
                tree = CvmfsNames(
                    MemoryTree(),
                    notes,
                    keeps_xattrs=self._attributes.keeps(),
                    before=self._place.longest_prefix,
                    scratch=scratch,
                )
                return layer.read(lambda stream: read_layer(stream, tree, limits=layer.limits, notes=notes), stop=stop)

        return PreparedLayer(layer=layer, sidecar=await in_thread(self._threads, survey))

    async def discard(self, prepared: PreparedLayer) -> None:
        """Do nothing: nothing was made."""

    @asynccontextmanager
    async def transaction(self, token: str) -> AsyncIterator[ServerTransaction]:
        """Open a transaction; a foreign one is an error, one of the publisher's own that was left open is aborted."""
        async with self._turn:
            self._ownership.add(token)
            try:
                await self._open(token)
            except asyncio.CancelledError:
                await self._end()  # it may have been opened all the same
                raise
            try:
                yield ServerTransaction(
                    place=self._place,
                    layout=self._layout,
                    tool=self._tool,
                    branch=self._branch,
                    token=token,
                    threads=self._threads,
                )
            finally:
                await self._end()
        await self._blocking(self._attributes.look)

    async def _open(self, token: str) -> None:
        # What this leaves open if it fails is aborted by the next one: it is the publisher's own, or cannot be told
        # from a foreign one.
        try:
            await self._abort_own()
            if not self._place.flag.exists():
                await self._begin(token)
                self._readiness.obstacle = None
                return
        except NoTransactionError as error:
            self._readiness.obstacle = str(error)
            raise
        except RepositoryError as error:
            if not self._place.flag.exists() or await self._blocking(self._ownership.is_open):
                obstacle = self._readiness.obstacle = f"no transaction of {self.name} can be opened: {error}"
                raise NoTransactionError(obstacle) from error
        self._readiness.obstacle = None
        raise ForeignTransactionError(f"somebody else has a transaction of {self.name} open", is_over=self._is_closed)

    async def _begin(self, token: str) -> None:
        await self._blocking(self._lock.release_inherited)
        await self._blocking(self._branch.remember)
        if (held := await self._blocking(self._branch.holders)) is not None:
            raise NoTransactionError(held, is_over=self._is_mounted_once)
        await self._tool.transaction(flag=self._place.flag, marker=self._place.area / MARKER, token=token)

    async def _is_mounted_once(self) -> bool:
        return await self._blocking(self._branch.holders) is None

    async def _is_closed(self) -> bool:
        return not self._place.flag.exists()

    async def _end(self) -> None:
        try:
            await self._abort_own()
        except RepositoryError as error:
            obstacle = self._readiness.obstacle = f"a transaction could not be aborted: {error}"
            raise TransactionLeftOpenError(obstacle) from error
        self._ownership.clear()

    async def _abort_own(self) -> None:
        """Abort the open transaction if it is the publisher's own.

        One that has been published and could not be closed is no exception: what remains of it is to be dropped.

        Raises
        ------
        RepositoryError
            It could not be aborted.
        """
        if not await self._blocking(self._ownership.is_open):
            return
        _log.warning("aborting a transaction of the publisher's own", repository=self.name)
        await self._blocking(self._lock.release_inherited)
        said = await self._tool.abort()
        if await self._blocking(self._ownership.is_open):
            raise RepositoryError(f"cvmfs_server abort ended well, but the transaction is still open: {said}")

    async def _make_fit(self) -> None:
        """Mount what is not mounted as it should be, unless somebody else has a transaction open.

        Raises
        ------
        RepositoryError
            It is not fit, and cannot be made so.
        """
        await self._blocking(self._place.configuration)
        await self._tool.check_whitelist()
        if self._place.flag.exists():
            return  # somebody's, whose mounts are their own affair
        await self._blocking(self._lock.release_inherited)
        await self._tool.mount()

    async def _blocking(self, work: Callable[[], _Result]) -> _Result:
        return await in_thread(self._threads, lambda _stop: work())
