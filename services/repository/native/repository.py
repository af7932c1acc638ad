"""The publisher's repository in CVMFS's own format.

A layer is read once, outside any transaction: its content becomes objects and its tree a catalog, which nothing refers
to yet. A transaction adds such catalogs to those above them; publishing writes these, and then the head. The present
head is read anew by every step, since commands may have changed it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import structlog

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.layout import LayerLayout
from services.common.lock_file import LOCK_FILE, LockError, locked
from services.common.repository_name import RepositoryName
from services.common.threads import in_thread
from services.repository.errors import (
    ForeignTransactionError,
    NoTransactionError,
)
from services.repository.images import ImageDocuments
from services.repository.interface import ListedLayer, OwnTransaction, PreparedLayer, Publication, StoredImage
from services.repository.layer import VerifiedLayer
from services.repository.native.access import RepositoryAccess
from services.repository.native.errors import (
    BrokenRepositoryError,
    NativeError,
    ObjectMissingError,
    OvertakenError,
    RepositoryBusyError,
    StorageError,
)
from services.repository.native.flat.composer import FlatComposer
from services.repository.native.holds import ObjectHolds
from services.repository.native.podman import not_in_stores, stored_images
from services.repository.native.prepared import PreparedLayers
from services.repository.native.records import TRANSACTION_DIRECTORY, ObjectKind
from services.repository.native.republication import Republication
from services.repository.native.storage.interface import Storage
from services.repository.native.transaction import NativeTransaction
from services.repository.native.trust.keyring import KeyFiles
from services.repository.native.trust.renewal import WhitelistFile
from services.repository.native.writer.catalog_files import CatalogFiles
from services.repository.native.writer.index import ContentIndex
from services.repository.native.writer.ingest import IngestedLayer, LayerIngest
from services.repository.native.writer.known_content import KnownContent
from services.repository.native.writer.manifest import Manifest
from services.repository.native.writer.pool import WorkerPool
from services.repository.native.writer.state import Highest, LocalState
from services.repository.native.writer.tree import RepositoryTree, TreeUpdate

__all__ = ["NativeRepository"]

_log = structlog.get_logger(__name__)

_FORGOTTEN: Final = 24 * 3600
"""Age of temporary files that nobody can be writing any more, in seconds."""


class NativeRepository:
    """One repository; a context manager.

    Parameters
    ----------
    name
        Name of the repository.
    storage
        Where it is; it must have been created.
    keys
        Its keys.
    state
        A directory for what the publisher keeps of it: the index of content, its own revisions.
    layout
        Paths that thin images name.
    threads
        Where blocking work runs.
    seen
        A revision that clients may have seen, by what the publisher knows: a state may be lost with its machine. Where
        the repository has an older one, it has been restored from a back-up.
    workers
        Processes that make objects; None takes one for each core that this process may use.
    clock
        Seconds since the epoch.
    """

    def __init__(
        self,
        *,
        name: RepositoryName,
        storage: Storage,
        keys: KeyFiles,
        state: Path,
        layout: LayerLayout,
        threads: Executor,
        seen: int = 0,
        workers: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self._storage = storage
        self._keys = keys
        self._directory = state
        self._layout = layout
        self._threads = threads
        self._seen = seen
        self._workers = workers
        self._clock = clock
        self._turn = asyncio.Lock()
        self._holds = ObjectHolds(storage)
        self._stack = ExitStack()

    async def __aenter__(self) -> Self:
        """Open the repository and start the processes that make objects.

        Raises
        ------
        RepositoryError
            There is no such repository, or a key or a file of the state cannot be used.
        """
        await in_thread(self._threads, lambda _stop: self._enter())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the processes."""
        await in_thread(self._threads, lambda _stop: self._stack.close())

    def _enter(self) -> None:
        with ExitStack() as stack:
            temporary = self._take_state(stack)
            self._access = RepositoryAccess.open(
                name=self.name, storage=self._storage, keys=self._keys, clock=self._clock
            )
            self._tree = RepositoryTree(storage=self._storage, compressor=self._access.compressor, layout=self._layout)
            stack.callback(self._tree.close)
            self._republication = Republication(self._storage)
            self._state = LocalState.open_or_replace(self._directory / "state.sqlite")
            stack.callback(self._state.close)
            path = self._directory / "index.sqlite"
            if not path.exists() and self._state.highest().revision:
                self._index_lost()
            self._index = ContentIndex(path, lost=self._index_lost)
            stack.callback(self._index.close)
            self._known = KnownContent(index=self._index, storage=self._storage)
            pool = stack.enter_context(
                WorkerPool(
                    files=self._storage.local,
                    index=self._index.path,
                    chosen=self._access.chosen,
                    check=not self._storage.staged,
                    workers=self._workers,
                )
            )
            catalogs = CatalogFiles(
                storage=self._storage, compressor=self._access.compressor, pool=pool, temporary=temporary
            )
            self._prepared = PreparedLayers(
                storage=self._storage,
                holds=self._holds,
                known=self._known,
                republication=self._republication,
                ingest=LayerIngest(pool=pool, catalogs=catalogs, temporary=temporary),
            )
            stack.callback(self._prepared.close)
            self.composer = FlatComposer(
                read=self._tree.catalogs.read,
                read_file=lambda name: self._tree.objects.get(name, ObjectKind.FILE),
                files=catalogs,
            )
            self._stack = stack.pop_all()

    def _take_state(self, stack: ExitStack) -> Path:
        """Take the directory of the state, which no two publishers may have; return that of temporary files, empty."""
        temporary = self._directory / "tmp"
        try:
            temporary.mkdir(parents=True, exist_ok=True, mode=0o700)
            stack.enter_context(
                locked(self._directory / LOCK_FILE, otherwise=f"another publisher has the state {self._directory}")
            )
            for leftover in temporary.iterdir():
                leftover.unlink()
        except LockError as error:
            raise RepositoryBusyError(str(error)) from error
        except OSError as error:
            raise StorageError(f"{temporary} cannot be used: {error.strerror}") from error
        return temporary

    def _index_lost(self) -> None:
        _log.warning(
            "the index of content was lost or damaged and is started anew: known content is compressed once more",
            path=str(self._directory / "index.sqlite"),
        )

    @property
    def whitelist(self) -> WhitelistFile:
        """The whitelist of the repository."""
        return self._access.whitelist

    async def recover(self, transactions: Sequence[OwnTransaction]) -> None:  # noqa: ARG002 - no transaction is ever left
        """Make whole what a kill has left between two files."""
        await in_thread(self._threads, lambda _stop: self._recover())

    def _recover(self) -> None:
        with ExitStack() as stack:
            try:
                manifest = stack.enter_context(self._access.changing())
            except RepositoryBusyError as error:
                # Whoever is at work makes whole what a kill has left.
                _log.info("another publisher is at work", reason=str(error))
                manifest = self._access.verify()
            self._state.note(Highest(self._seen, 0))
            if self._storage.staged and manifest.revision < self._state.highest().revision:
                # It was brought back to an earlier state, or made anew: what the index names may not be there any more,
                # and of what is in a bucket the index is believed.
                self._known.forget_all()
            self._state.note(Highest(manifest.revision, manifest.published))
        oldest = time.time() - _FORGOTTEN
        self._storage.delete(
            [
                left.path
                for left in self._storage.list(f"{TRANSACTION_DIRECTORY}/")
                if left.modified < oldest and not left.path.rpartition("/")[2].startswith(".")
            ]
        )

    async def check(self) -> None:
        """Make sure that the repository can be read and its key used."""
        await in_thread(self._threads, lambda _stop: self._access.verify())

    async def lookup(self, digest: Digest) -> Publication | None:
        """Find a published layer."""
        return await in_thread(self._threads, lambda _stop: self._lookup(digest))

    def _lookup(self, digest: Digest) -> Publication | None:
        try:
            found = self._tree.find(self._access.head.read().root, digest)
        except (BrokenRepositoryError, ObjectMissingError) as error:
            if digest in self._republication.layers():
                return None  # it is to be published anew because of that
            raise BrokenRepositoryError(
                f"whether layer {digest} is there cannot be told: {error}: thin-repository check {self.name} says what "
                "mends it"
            ) from error
        if found is None or not found.whole or digest in self._republication.layers():
            return None
        return Publication(revision=self._state.revision_of(digest))

    async def list_layers(self, shard: str) -> Sequence[ListedLayer]:
        """List the published layers whose digests begin with two hex digits."""
        return await in_thread(self._threads, lambda _stop: self._list_layers(shard))

    def _list_layers(self, shard: str) -> Sequence[ListedLayer]:
        without = self._republication.layers()
        return self._tree.list_layers(self._access.head.read().root, shard, without=without)

    async def read_image(self, name: ImageName) -> Mapping[str, bytes] | None:
        """Return the documents of an image of the newest revision."""
        return await in_thread(self._threads, lambda _stop: self._tree.read_image(self._access.head.read().root, name))

    async def list_images(self) -> Sequence[ImageName]:
        """List the images of the newest revision."""
        return await in_thread(self._threads, lambda _stop: self._tree.list_images(self._access.head.read().root))

    async def list_flats(self) -> Collection[Digest]:
        """List the flat images of the newest revision."""
        return await in_thread(self._threads, lambda _stop: self._tree.list_flats(self._access.head.read().root))

    async def ducc_flats(self, configs: Collection[Digest]) -> Collection[Digest]:
        """Return those of some flat images that DUCC has made."""
        return await in_thread(
            self._threads, lambda _stop: self._tree.ducc_flats(self._access.head.read().root, configs)
        )

    async def flats_of(self, name: ImageName) -> Collection[Digest]:
        """Return the flat images that a name leads to in the newest revision."""
        return await in_thread(self._threads, lambda _stop: self._tree.flats_of(self._access.head.read().root, name))

    async def list_stored(self) -> Collection[StoredImage]:
        """List the images in the stores of the newest revision."""
        return await in_thread(
            self._threads, lambda _stop: stored_images(self._tree, self._access.head.read().root, self.name)
        )

    async def not_in_stores(self, images: Sequence[ImageDocuments]) -> Collection[ImageName]:
        """Return which images are not as they are to be in the stores of the newest revision."""
        return await in_thread(
            self._threads, lambda _stop: not_in_stores(self._tree, self._access.head.read().root, self.name, images)
        )

    async def prepare(self, layer: VerifiedLayer) -> PreparedLayer:
        """Make objects and a catalog of a layer."""
        held = await in_thread(self._threads, lambda stop: self._prepared.prepare(layer, stop))
        self._prepared.keep(layer.digest, held)
        return PreparedLayer(layer=layer, sidecar=held.layer.sidecar, is_stored=True)

    async def discard(self, prepared: PreparedLayer) -> None:
        """Let the objects of a layer go, if it has not been published."""
        self._prepared.drop(prepared.layer.digest)

    @asynccontextmanager
    async def transaction(self, token: str) -> AsyncIterator[NativeTransaction]:  # noqa: ARG002 - nothing of it is ever left
        """Open a transaction: take the write lock and read the head."""
        async with self._turn:
            with ExitStack() as stack:
                opened = await in_thread(self._threads, lambda _stop: self._open(stack))
                yield opened

    def _open(self, stack: ExitStack) -> NativeTransaction:
        try:
            stack.enter_context(self._holds.join())
            manifest = stack.enter_context(self._access.changing())
            collections = self._storage.collections()
            update = stack.enter_context(TreeUpdate(self._tree, manifest.root))
        except RepositoryBusyError as error:
            raise ForeignTransactionError(str(error)) from error
        except NativeError as error:
            raise NoTransactionError(str(error)) from error
        return NativeTransaction(
            name=self.name,
            update=update,
            composer=self.composer,
            threads=self._threads,
            add=lambda digest: self._add(update, digest, collections),
            publish=lambda layers: self._publish(update, manifest, layers),
        )

    def _add(self, update: TreeUpdate, digest: Digest, collections: str) -> IngestedLayer:
        """Add a prepared layer to an update; nothing of it may have been collected since."""
        held = self._prepared.whole(digest, collections)
        if held.anew:
            update.replace(held.layer.catalog, digest)
        else:
            update.add(held.layer.catalog, digest)
        return held.layer

    def _publish(self, update: TreeUpdate, previous: Manifest, layers: Sequence[IngestedLayer]) -> int:
        revision, published = self._access.head.next_revision(previous, self._state.highest())
        root = update.store(previous=previous, revision=revision, published=published)
        # Noted before it is there: a number must never be given twice, and one that is left out harms nobody.
        self._state.note(Highest(revision, published), [Digest(layer.sidecar.digest) for layer in layers])
        try:
            self._access.head.publish(root, previous=previous)
        except OvertakenError as error:
            raise ForeignTransactionError(f"the revision {revision} is given up: {error}") from error
        try:
            self._republication.done(
                [digest for layer in layers if self._prepared.is_anew(digest := Digest(layer.sidecar.digest))]
            )
        except NativeError as error:
            _log.warning("layers that have been published anew will be once more", reason=str(error))
        try:
            for layer in layers:
                self._known.add(layer.new)
        except StorageError as error:
            _log.warning("new content is not in the index, it would be compressed once more", reason=str(error))
        return revision
