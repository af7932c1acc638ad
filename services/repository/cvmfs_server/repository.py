"""A CVMFS repository on its stratum 0, written through the real `cvmfs_server`.

A transaction makes `/cvmfs/REPOSITORY` writable, a union of what is published and what has been changed; `publish`
turns it into a new revision, all at once. Layers are unpacked straight into it, since everything in it is read again
and compressed by `publish` anyway. Their deletions go to the sidecars, since the union could not hold them as devices.

Somebody else's transaction is never touched. The publisher's own is claimed by a token that the journal knows
(`claim`). A marker file in it holds the same token and is published along; so a token that is in the published
tree names a transaction that has succeeded, whatever the program's exit status was. The program's word is not taken for
an abort either: version 2.12 ends with status 0 when a mount that is busy keeps it from aborting.
"""

import asyncio
import errno
import os
import stat
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import structlog

from services.common.archive.layer import read_layer
from services.common.archive.memorytree import MemoryTree
from services.common.archive.notes import Notes
from services.common.archive.ondisk import ListedDeletions
from services.common.archive.unpack import unpack
from services.common.deletion import delete_tree
from services.common.digest import Digest
from services.common.durable import write_file
from services.common.layout import (
    CATALOG_MARKER,
    LAYERS_DIRECTORY,
    LayerLayout,
    layer_home,
    layer_tree,
    sidecar_path,
)
from services.common.repository_name import RepositoryName
from services.common.sidecar import LayerSidecar
from services.common.threads import Stop, in_thread
from services.repository.cvmfs_server.claim import claimant
from services.repository.cvmfs_server.names import CvmfsNames
from services.repository.cvmfs_server.opener import MARKER_XATTR
from services.repository.cvmfs_server.program import outlive
from services.repository.cvmfs_server.tool import CvmfsServer
from services.repository.errors import (
    ForeignTransactionError,
    LayerAdditionError,
    LayerRefusedError,
    NoTransactionError,
    RepositoryError,
    TransactionLeftOpenError,
)
from services.repository.interface import ListedLayer, OwnTransaction, PreparedLayer, Publication
from services.repository.layer import VerifiedLayer
from services.repository.listing import list_tree

__all__ = ["CvmfsServerRepository"]

_log = structlog.get_logger(__name__)

_MARKER: Final = f"{LAYERS_DIRECTORY}/.publisher-transaction"
_DAY: Final = 86400
_REVISION: Final = "user.revision"
"""Extended attribute of a mounted repository's root: the number of the revision."""


class CvmfsServerRepository:
    """One repository.

    Parameters
    ----------
    name
        Its name.
    mount
        Directory that repositories are mounted in for writing, `/cvmfs`.
    spool
        Directory of the program's own state, `/var/spool/cvmfs`.
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
        self,
        *,
        name: RepositoryName,
        mount: Path,
        spool: Path,
        layout: LayerLayout,
        tool: CvmfsServer,
        patience: float,
        threads: Executor,
    ) -> None:
        self.name = name
        self._area = mount / name
        self._published = spool / name / "rdonly"
        self._flag = spool / name / "in_transaction.lock"
        self._layout = layout
        self._tool = tool
        self._patience = patience
        self._threads = threads
        self._turn = asyncio.Lock()
        self._own: set[str] = set()
        self._keeps_xattrs = True
        """Whether the repository keeps extended attributes; known after the first publish."""

    async def recover(self, transactions: Sequence[OwnTransaction]) -> None:
        """Wait for a program that an earlier publisher started; abort the transaction that it left.

        While one is open the program calls its repository unhealthy if its mounts are not as it left them, as after a
        kill. So fitness is asked for at the end.
        """
        for transaction in transactions:
            if transaction.process is not None:
                await outlive(transaction.process, self._patience)
            self._own.add(transaction.token)
        async with self._turn:
            await self._abort_own()
            await self._tool.make_fit()
        await self._look_for_xattrs()

    async def check(self) -> None:
        """Make sure that the repository is there."""

        def probe(_stop: Stop) -> None:
            # Unlike the attributes of a file, this is in no cache of the kernel's. A directory must not be opened: a
            # publish that finds one open waits for a minute before it remounts.
            os.statvfs(self._published)
            os.statvfs(self._area)

        try:
            await in_thread(self._threads, probe)
        except OSError as error:
            raise RepositoryError(f"repository {self.name} is not mounted: {error}") from error

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
                return stat.S_ISREG(os.stat(self._published / sidecar_path(digest)).st_mode)
            except (FileNotFoundError, NotADirectoryError):
                return False

        try:
            found = await in_thread(self._threads, look)
        except OSError as error:
            raise RepositoryError(f"the published tree of {self.name} cannot be read: {error}") from error
        return Publication(revision=None) if found else None

    async def list_layers(self, shard: str) -> Sequence[ListedLayer]:
        """List the layers of the published tree, all of one revision."""

        def look(stop: Stop) -> Sequence[ListedLayer]:
            # At the end of a publish nothing is mounted for a moment, and every layer would count as lost.
            while True:
                revision = os.getxattr(self._published, _REVISION)
                listed = list_tree(self._published, shard, self._layout)
                if os.getxattr(self._published, _REVISION) == revision:
                    return listed
                stop.check()

        try:
            return await in_thread(self._threads, look)
        except OSError as error:
            raise RepositoryError(f"the published tree of {self.name} cannot be read: {error}") from error

    async def prepare(self, layer: VerifiedLayer) -> PreparedLayer:
        """Read a layer to its end and check all of it; nothing is written before the transaction."""

        def survey(stop: Stop) -> LayerSidecar:
            notes = Notes()
            tree = CvmfsNames(MemoryTree(), notes, keeps_xattrs=self._keeps_xattrs)
            return layer.read(lambda stream: read_layer(stream, tree, limits=layer.limits, notes=notes), stop=stop)

        return PreparedLayer(layer=layer, sidecar=await in_thread(self._threads, survey))

    async def discard(self, prepared: PreparedLayer) -> None:
        """Do nothing: nothing was made."""

    @asynccontextmanager
    async def transaction(self, token: str) -> AsyncIterator["_Transaction"]:
        """Open a transaction; a foreign one is an error, one of the publisher's own that was left open is aborted."""
        async with self._turn:
            self._own.add(token)
            await self._open(token)
            try:
                yield _Transaction(
                    area=self._area,
                    published=self._published,
                    layout=self._layout,
                    tool=self._tool,
                    token=token,
                    threads=self._threads,
                )
            finally:
                await self._end()
        await self._look_for_xattrs()

    async def _look_for_xattrs(self) -> None:
        """Find out by what was published last whether the repository keeps extended attributes."""

        def look(_stop: Stop) -> bool | None:
            try:
                os.getxattr(self._published / _MARKER, MARKER_XATTR)
            except OSError as error:
                return False if error.errno == errno.ENODATA else None
            return True

        kept = await in_thread(self._threads, look)
        if kept is False and self._keeps_xattrs:
            _log.warning(
                "the repository drops extended attributes, file capabilities among them",
                hint="set CVMFS_INCLUDE_XATTRS=true in its server.conf",
            )
        if kept is not None:
            self._keeps_xattrs = kept

    async def _open(self, token: str) -> None:
        # What this leaves open if it fails is aborted by the next one: it is claimed by a token of the publisher's own,
        # or cannot be told from a foreign one.
        try:
            await self._abort_own()
            if not self._flag.exists():
                await self._tool.transaction(flag=self._flag, marker=self._area / _MARKER, token=token)
                return
        except RepositoryError as error:
            if not self._flag.exists() or self._own_is_open():
                raise NoTransactionError(f"no transaction of {self.name} can be opened: {error}") from error
        raise ForeignTransactionError(f"somebody else has a transaction of {self.name} open")

    async def _end(self) -> None:
        try:
            await self._abort_own()
        except RepositoryError as error:
            raise TransactionLeftOpenError(f"a transaction could not be aborted: {error}") from error
        self._own.clear()

    async def _abort_own(self) -> None:
        """Abort the open transaction if it is the publisher's own.

        One that has been published and could not be closed is no exception: what remains of it is to be dropped.

        Raises
        ------
        RepositoryError
            It could not be aborted.
        """
        if not self._own_is_open():
            return
        _log.warning("aborting a transaction of the publisher's own", repository=self.name)
        said = await self._tool.abort()
        if self._own_is_open():
            raise RepositoryError(f"cvmfs_server abort ended well, but the transaction is still open: {said}")

    def _own_is_open(self) -> bool:
        return claimant(self._flag) in self._own


class _Transaction:
    """An open transaction; the repository aborts it at the end unless it has been published."""

    def __init__(
        self,
        *,
        area: Path,
        published: Path,
        layout: LayerLayout,
        tool: CvmfsServer,
        token: str,
        threads: Executor,
    ) -> None:
        self._area = area
        self._published = published
        self._layout = layout
        self._tool = tool
        self._token = token
        self._threads = threads
        self._added: list[Digest] = []

    async def add(self, prepared: PreparedLayer) -> None:
        """Unpack a layer into the transaction's area, with its sidecar and catalog marker."""
        await in_thread(self._threads, lambda stop: self._add(prepared, stop))
        self._added.append(prepared.layer.digest)

    def _add(self, prepared: PreparedLayer, stop: Stop) -> None:
        digest = prepared.layer.digest
        home = self._area / layer_home(digest)
        if (self._area / sidecar_path(digest)).exists():
            return  # the published tree was being remounted when it was looked for
        link = self._area / digest if self._layout is LayerLayout.FLAT else None
        if os.path.lexists(self._published / layer_home(digest)) or (link is not None and os.path.lexists(link)):
            raise LayerRefusedError(
                f"something that this suite has not published is in the place of {digest}", kind="place"
            )
        try:
            delete_tree(home)
            self._fill(home, prepared, stop)
            if link is not None:
                link.symlink_to(layer_tree(digest))
        except BaseException as error:
            self._clear(home, error)
            if isinstance(error, OSError | RepositoryError):
                raise LayerAdditionError(f"layer {digest} cannot be added: {error}") from error
            raise

    def _clear(self, home: Path, cause: BaseException) -> None:
        """Remove what there is of a layer: published, it would be a stranger's in the layer's place for ever."""
        try:
            delete_tree(home)
        except OSError as error:
            raise RepositoryError(f"{cause}; and what there is of it in {home} cannot be removed: {error}") from cause

    def _fill(self, home: Path, prepared: PreparedLayer, stop: Stop) -> None:
        # Nobody else may reach setuid files and devices before the layer is whole.
        home.parent.mkdir(parents=True, exist_ok=True)
        home.mkdir(0o700)
        tree = home / "layerfs"
        tree.mkdir(0o755)
        layer = prepared.layer
        unpacked = layer.read(
            lambda stream: unpack(stream, tree, deletions=ListedDeletions(), limits=layer.limits), stop=stop
        )
        notes = tuple(dict.fromkeys((*prepared.sidecar.notes, *unpacked.notes)))
        write_file(home / CATALOG_MARKER, b"")
        write_file(home / "layer.json", unpacked.model_copy(update={"notes": notes}).encode())
        home.chmod(0o755)

    async def publish(self) -> int | None:
        """Publish; a failure after which the token is in the published tree was none.

        Nor is the program's word taken for a success: if what it publishes is not what is seen here, as in another
        mount namespace, it ends well and the layers are nowhere.
        """
        try:
            await self._tool.publish(f"publisher-{self._token}")
        except RepositoryError as error:
            if await in_thread(self._threads, self._published_token) != self._token:
                raise
            _log.error("publishing failed after it had succeeded", reason=str(error))
        await in_thread(self._threads, self._find_published)
        return await in_thread(self._threads, self._revision)

    def _published_token(self, _stop: Stop) -> str | None:
        try:
            return (self._published / _MARKER).read_text(encoding="ascii")
        except (OSError, ValueError):
            return None

    def _find_published(self, _stop: Stop) -> None:
        for digest in self._added:
            if not os.path.lexists(self._published / sidecar_path(digest)):
                raise RepositoryError(
                    f"cvmfs_server has published, but layer {digest} is not in {self._published}: "
                    f"are that and {self._area} here what the program has mounted?"
                )

    def _revision(self, _stop: Stop) -> int | None:
        try:
            return int(os.getxattr(self._published, _REVISION))
        except (OSError, ValueError) as error:
            _log.warning("the revision is not known", reason=str(error))
            return None
