"""The tree, and what is published in it."""

import asyncio
import contextlib
import os
import re
import secrets
import stat
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from services.common.archive.ondisk import ListedDeletions
from services.common.archive.unpack import unpack
from services.common.deletion import TreeDeletionError, delete_tree
from services.common.digest import Digest
from services.common.durable import sync_tree, write_file
from services.common.image_name import ImageName
from services.common.layout import LayerLayout, layer_home, sidecar_path, tar_split_path
from services.common.lock_file import LockError, locked
from services.common.repository_name import RepositoryName
from services.common.sidecar import LayerSidecar
from services.common.threads import Stop, in_thread
from services.repository.directory.batches import PREPARED, Batches
from services.repository.directory.flats import FlatIndex, NewFlats, staged_flats
from services.repository.directory.images import ImageIndex, NewIndex, staged_links
from services.repository.directory.podman import DirectoryStores
from services.repository.directory.record import remove_dangling
from services.repository.directory.store_tree import DirectoryStoreTree
from services.repository.directory.transaction import HOME_LINK, DirectoryTransaction
from services.repository.errors import NoTransactionError, RepositoryError
from services.repository.images import ImageDocuments
from services.repository.interface import ListedLayer, OwnTransaction, PreparedLayer, Publication, StoredImage
from services.repository.layer import VerifiedLayer
from services.repository.listing import list_tree
from services.repository.podman.shown import images_in_stores, images_not_in_stores
from services.repository.podman.tar_split import TarSplit

__all__ = ["DirectoryRepository"]

_STAGING: Final = ".staging-"
_PRIVILEGES: Final = ".privileges-"
_DIGEST = re.compile("[0-9a-f]{64}")

_Result = TypeVar("_Result")


class DirectoryRepository:
    """One directory tree, which many may read; a lock makes sure that one publisher at a time writes it.

    Parameters
    ----------
    name
        Name of the repository.
    root
        Root of its tree.
    layout
        Paths that thin images name.
    threads
        Where blocking work runs.
    """

    def __init__(self, *, name: RepositoryName, root: Path, layout: LayerLayout, threads: Executor) -> None:
        self.name = name
        self._root = root
        self._layout = layout
        self._threads = threads
        self._batches = Batches(root)
        self._images = ImageIndex(root=root, batches=self._batches.path, head=self._batches.head)
        self._flats = FlatIndex(root)
        self._stores = DirectoryStoreTree(root=root, staging=None, images=self._images)
        self._turn = asyncio.Lock()
        self._stack = ExitStack()
        self._is_taken = False

    async def __aenter__(self) -> Self:
        """Make the root.

        Raises
        ------
        RepositoryError
            This process may not do what layers need.
        """
        self._batches.path.mkdir(parents=True, exist_ok=True)
        _check_privileges(self._batches.path)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock back."""
        self._stack.close()
        self._is_taken = False

    def take(self) -> None:
        """Take the lock, unless it is taken already, as it is before anything is written.

        Raises
        ------
        RepositoryError
            Another publisher writes here.
        """
        if self._is_taken:
            return
        lock = self._batches.path / ".lock"
        try:
            self._stack.enter_context(locked(lock, otherwise=f"another publisher writes to {self._root}"))
        except LockError as error:
            raise RepositoryError(str(error)) from error
        self._is_taken = True

    async def recover(self, transactions: Sequence[OwnTransaction]) -> None:  # noqa: ARG002 - whatever is there is our own
        """Take the lock; remove what an earlier publisher prepared or staged and did not publish."""
        self.take()
        await in_thread(self._threads, lambda _stop: self._recover())

    def _recover(self) -> None:
        self._batches.finish()
        for name in os.listdir(self._batches.path):
            path = self._batches.path / name
            if name.startswith(_STAGING) or self._batches.is_unpublished(name):
                self._undo(path)
            elif name.startswith(PREPARED):
                delete_tree(path)
            elif name.startswith(_PRIVILEGES):
                path.unlink(missing_ok=True)  # another publisher may be about to do that

    async def check(self) -> None:
        """Make sure that the tree can be written."""

        def probe(_stop: Stop) -> None:
            # Another publisher, which is asked the same, may have made it, or remove it first.
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._batches.path / ".probe")
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(self._batches.path / ".probe")

        try:
            await in_thread(self._threads, probe)
        except OSError as error:
            raise RepositoryError(f"{self._batches.path} cannot be written: {error.strerror}") from error

    async def lookup(self, digest: Digest) -> Publication | None:
        """Find a published layer."""
        home = self._root / layer_home(digest)
        try:
            os.stat(self._root / sidecar_path(digest))
            match = HOME_LINK.fullmatch(os.readlink(home)) if home.is_symlink() else None
        except FileNotFoundError:
            return None
        return Publication(revision=int(match[1]) if match else None)

    async def list_layers(self, shard: str) -> Sequence[ListedLayer]:
        """List published layers; what a batch under way will bring is none of them."""
        return await self._reading(lambda: list_tree(self._root, shard, self._layout))

    async def prepare(self, layer: VerifiedLayer) -> PreparedLayer:
        """Unpack a layer where no reader looks, with its sidecar, and bring it to the disk."""
        self.take()
        try:
            return await in_thread(self._threads, lambda stop: self._prepare(layer, stop))
        except OSError as error:
            raise RepositoryError(f"cannot unpack the layer below {self._batches.path}: {error}") from error

    def _prepare(self, layer: VerifiedLayer, stop: Stop) -> PreparedLayer:
        home = self._batches.path / f"{PREPARED}{layer.digest}"
        delete_tree(home)
        tree = home / "layerfs"
        try:
            # Nobody else may reach setuid files and devices before the whole archive has been found good.
            home.mkdir(0o700)
            tree.mkdir(0o755)
            sidecar = _unpack(layer, tree, home / os.path.basename(tar_split_path(layer.digest)), stop)
            write_file(home / "layer.json", sidecar.encode())
            sync_tree(home, entries=sidecar.entries)
        except BaseException:
            # What is wrong is that which is raised; what stays goes at the next attempt.
            with contextlib.suppress(TreeDeletionError):
                delete_tree(home)
            raise
        return PreparedLayer(layer=layer, sidecar=sidecar)

    async def discard(self, prepared: PreparedLayer) -> None:
        """Remove what `prepare` unpacked."""
        home = self._batches.path / f"{PREPARED}{prepared.layer.digest}"
        await in_thread(self._threads, lambda _stop: delete_tree(home))

    async def read_image(self, name: ImageName) -> Mapping[str, bytes] | None:
        """Return the documents of an image, all of one revision."""
        return await self._reading(lambda: self._images.read(name))

    async def list_images(self) -> Sequence[ImageName]:
        """List the images."""
        return await self._reading(self._images.names)

    async def list_flats(self) -> Collection[Digest]:
        """List the flat images."""
        return await self._reading(lambda: frozenset(self._flats.configs()))

    async def ducc_flats(self, configs: Collection[Digest]) -> Collection[Digest]:
        """Return those of some flat images that DUCC has made."""
        return await self._reading(lambda: frozenset(filter(self._flats.is_duccs, configs)))

    async def flats_of(self, name: ImageName) -> Collection[Digest]:
        """Return the flat images that a name leads to."""
        return await self._reading(lambda: self._images.flats_of(name))

    async def list_stored(self) -> Collection[StoredImage]:
        """List the images in the stores."""
        return await self._reading(lambda: images_in_stores(self._stores, self.name))

    async def not_in_stores(self, images: Sequence[ImageDocuments]) -> Collection[ImageName]:
        """Return which images are not as they are to be in the stores."""
        return await self._reading(lambda: images_not_in_stores(self._stores, self.name, images))

    async def _reading(self, work: Callable[[], _Result]) -> _Result:
        try:
            return await in_thread(self._threads, lambda _stop: work())
        except OSError as error:
            raise RepositoryError(f"{self._root} cannot be read: {error}") from error

    @asynccontextmanager
    async def transaction(self, token: str) -> AsyncIterator[DirectoryTransaction]:
        """Open a transaction."""
        self.take()
        async with self._turn:
            staging = self._batches.path / f"{_STAGING}{token}"
            try:
                await in_thread(self._threads, lambda _stop: self._begin(staging))
            except OSError as error:
                raise NoTransactionError(f"no batch can be begun in {self._batches.path}: {error}") from error
            try:
                yield DirectoryTransaction(
                    batches=self._batches,
                    staging=staging,
                    images=NewIndex(self._images, staging),
                    stores=DirectoryStores(name=self.name, root=self._root, staging=staging, images=self._images),
                    flats=NewFlats(self._flats, staging, self._batches.revision + 1),
                    layout=self._layout,
                    threads=self._threads,
                )
            except OSError as error:
                raise RepositoryError(f"the transaction failed: {error}") from error
            finally:
                await in_thread(self._threads, lambda _stop: self._end(staging))

    def _begin(self, staging: Path) -> None:
        self._batches.finish()  # unless it is already
        os.mkdir(staging, 0o700)

    def _end(self, staging: Path) -> None:
        for path in (staging, self._batches.next):
            if path.exists():
                self._undo(path)

    def _undo(self, batch: Path) -> None:
        """Undo a transaction that has not been published."""
        remove_dangling(self._root, (*staged_links(batch), *staged_flats(batch)))
        for name in os.listdir(batch):
            if _DIGEST.fullmatch(name):
                # Of a layer that is published already the links lead somewhere and stay.
                remove_dangling(self._root, (layer_home(Digest(name)), name))
        self._images.sweep(self._batches.superseded())
        self._batches.forget(batch)


def _unpack(layer: VerifiedLayer, tree: Path, beside: Path, stop: Stop) -> LayerSidecar:
    """Unpack a layer; write beside it what its archive has besides the files' content."""
    with beside.open("xb") as file:
        witness = TarSplit(file)
        sidecar = layer.read(
            lambda stream: unpack(stream, tree, deletions=ListedDeletions(), limits=layer.limits, witness=witness),
            stop=stop,
        )
        sidecar = witness.finish(sidecar)
    if not sidecar.tar_split:
        beside.unlink()
    return sidecar


def _check_privileges(directory: Path) -> None:
    """Try what layers need: files of any owner, and devices."""
    probe = directory / f"{_PRIVILEGES}{secrets.token_hex(8)}"  # others may try at the same time
    try:
        os.mknod(probe, stat.S_IFBLK | 0o600, os.makedev(1, 1))
        os.lchown(probe, 1, 1)
    except PermissionError as error:
        raise RepositoryError(
            f"this process may not make devices and files of other owners in {directory}, and layers hold such files: "
            "run the publisher as root, in a container with capabilities CHOWN, MKNOD, FOWNER, SETFCAP, DAC_OVERRIDE"
        ) from error
    finally:
        probe.unlink(missing_ok=True)
