"""A repository that is a plain directory tree, for machines without CVMFS.

A batch appears all at once, for readers and across a kill or a power failure, because one rename makes it visible::

    .batches/.prepared-DIGEST/      a layer being unpacked, its sidecar beside it
    .batches/.staging-TOKEN/DIGEST  the layers of the open transaction
    .layers/XX/DIGEST               -> ../../.batches/REVISION/DIGEST   dangling until the rename
    DIGEST                          -> .layers/XX/DIGEST/layerfs        (layout flat)
    .batches/REVISION/              the renamed .staging-TOKEN: everything above resolves from here on

Deletions are listed in the sidecars and have nothing in the tree, as in CVMFS, so that a driver sees one encoding.
"""

import asyncio
import contextlib
import os
import re
import stat
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from services.common.archive.ondisk import ListedDeletions
from services.common.archive.unpack import unpack
from services.common.deletion import TreeDeletionError, delete_tree
from services.common.digest import Digest
from services.common.durable import sync_directory, sync_tree, write_file
from services.common.layout import LayerLayout, layer_home, layer_tree, sidecar_path
from services.common.lock_file import LockError, locked
from services.common.repository_name import RepositoryName
from services.common.threads import Stop, in_thread
from services.repository.errors import LayerAdditionError, NoTransactionError, RepositoryError
from services.repository.interface import ListedLayer, OwnTransaction, PreparedLayer, Publication
from services.repository.layer import VerifiedLayer
from services.repository.listing import list_tree

__all__ = ["DirectoryRepository"]

_BATCHES: Final = ".batches"
_STAGING: Final = ".staging-"
_PREPARED: Final = ".prepared-"
_HOME_LINK = re.compile(r"\.\./\.\./\.batches/([0-9]{1,18})/[0-9a-f]{64}")


class DirectoryRepository:
    """One directory tree; a lock makes sure that one publisher at a time writes it.

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
        self._batches = root / _BATCHES
        self._turn = asyncio.Lock()
        self._revision = 0
        self._stack = ExitStack()

    async def __aenter__(self) -> Self:
        """Make the root and take the lock.

        Raises
        ------
        RepositoryError
            Another publisher writes here, or this process may not do what layers need.
        """
        self._batches.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(
                    locked(self._batches / ".lock", otherwise=f"another publisher writes to {self._root}")
                )
            except LockError as error:
                raise RepositoryError(str(error)) from error
            _check_privileges(self._batches)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock back."""
        self._stack.close()

    async def recover(self, transactions: Sequence[OwnTransaction]) -> None:  # noqa: ARG002 - whatever is there is our own
        """Remove what an earlier publisher prepared or staged and did not publish."""
        await in_thread(self._threads, lambda _stop: self._recover())

    def _recover(self) -> None:
        names = os.listdir(self._batches)
        self._revision = max((int(name) for name in names if name.isdecimal()), default=0)
        for name in names:
            path = self._batches / name
            if name.startswith(_STAGING):
                self._remove_staging(path)
            elif name.startswith(_PREPARED):
                delete_tree(path)

    async def check(self) -> None:
        """Make sure that the tree can be written."""

        def probe(_stop: Stop) -> None:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._batches / ".probe")
            os.rmdir(self._batches / ".probe")

        try:
            await in_thread(self._threads, probe)
        except OSError as error:
            raise RepositoryError(f"{self._batches} cannot be written: {error.strerror}") from error

    async def lookup(self, digest: Digest) -> Publication | None:
        """Find a published layer."""
        try:
            target = os.readlink(self._root / layer_home(digest))
            os.stat(self._root / sidecar_path(digest))
        except FileNotFoundError:
            return None
        match = _HOME_LINK.fullmatch(target)
        return Publication(revision=int(match[1]) if match else None)

    async def list_layers(self, shard: str) -> Sequence[ListedLayer]:
        """List published layers; what a batch under way will bring is none of them."""
        try:
            return await in_thread(self._threads, lambda _stop: list_tree(self._root, shard, self._layout))
        except OSError as error:
            raise RepositoryError(f"{self._root} cannot be read: {error}") from error

    async def prepare(self, layer: VerifiedLayer) -> PreparedLayer:
        """Unpack a layer where no reader looks, with its sidecar, and bring it to the disk."""
        try:
            return await in_thread(self._threads, lambda stop: self._prepare(layer, stop))
        except OSError as error:
            raise RepositoryError(f"cannot unpack the layer below {self._batches}: {error}") from error

    def _prepare(self, layer: VerifiedLayer, stop: Stop) -> PreparedLayer:
        home = self._batches / f"{_PREPARED}{layer.digest}"
        delete_tree(home)
        tree = home / "layerfs"
        try:
            # Nobody else may reach setuid files and devices before the whole archive has been found good.
            home.mkdir(0o700)
            tree.mkdir(0o755)
            sidecar = layer.read(
                lambda stream: unpack(stream, tree, deletions=ListedDeletions(), limits=layer.limits), stop=stop
            )
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
        home = self._batches / f"{_PREPARED}{prepared.layer.digest}"
        await in_thread(self._threads, lambda _stop: delete_tree(home))

    @asynccontextmanager
    async def transaction(self, token: str) -> AsyncIterator["_Transaction"]:
        """Open a transaction."""
        async with self._turn:
            staging = self._batches / f"{_STAGING}{token}"
            try:
                os.mkdir(staging, 0o700)
            except OSError as error:
                raise NoTransactionError(f"no batch can be begun in {self._batches}: {error}") from error
            try:
                yield _Transaction(
                    root=self._root,
                    staging=staging,
                    revision=self._revision + 1,
                    layout=self._layout,
                    threads=self._threads,
                )
            except OSError as error:
                raise RepositoryError(f"the transaction failed: {error}") from error
            finally:
                await in_thread(self._threads, lambda _stop: self._end(staging))

    def _end(self, staging: Path) -> None:
        if staging.exists():
            self._remove_staging(staging)
        else:
            self._revision += 1

    def _remove_staging(self, staging: Path) -> None:
        """Undo a transaction that has not been published."""
        for name in os.listdir(staging):
            digest = Digest(name)
            for link in (self._root / layer_home(digest), self._root / digest):
                # Of a layer that is published already the links lead somewhere and stay.
                if link.is_symlink() and not link.exists():
                    link.unlink()
        delete_tree(staging)


class _Transaction:
    """The layers of one batch, in a directory that becomes the batch by its renaming."""

    def __init__(self, *, root: Path, staging: Path, revision: int, layout: LayerLayout, threads: Executor) -> None:
        self._root = root
        self._staging = staging
        self._revision = revision
        self._layout = layout
        self._threads = threads
        self._digests: list[Digest] = []

    async def add(self, prepared: PreparedLayer) -> None:
        """Move a prepared layer into the batch."""
        digest = prepared.layer.digest
        for path in (self._root / layer_home(digest), self._root / digest):
            if path.exists():  # a link that leads nowhere is of an earlier attempt, and does not
                raise LayerAdditionError(f"{path} is there already, and is no layer that this publisher knows")
        home = self._staging / digest
        try:
            os.rename(self._staging.parent / f"{_PREPARED}{digest}", home)
            home.chmod(0o755)
        except OSError as error:
            raise LayerAdditionError(f"layer {digest} cannot be staged: {error}") from error
        self._digests.append(digest)

    async def publish(self) -> int:
        """Make the batch visible by one renaming."""
        return await in_thread(self._threads, lambda _stop: self._publish())

    def _publish(self) -> int:
        batches = self._staging.parent
        changed = {self._staging, self._root}
        for digest in self._digests:
            changed |= self._link(digest)
        self._staging.chmod(0o755)
        for directory in changed:
            sync_directory(directory)
        os.rename(self._staging, batches / str(self._revision))
        sync_directory(batches)
        return self._revision

    def _link(self, digest: Digest) -> set[Path]:
        home = self._root / layer_home(digest)
        home.parent.mkdir(parents=True, exist_ok=True)
        _replace_link(f"../../{_BATCHES}/{self._revision}/{digest}", home)
        if self._layout is LayerLayout.FLAT:
            _replace_link(layer_tree(digest), self._root / digest)
        return {home.parent, home.parent.parent}


def _replace_link(target: str, link: Path) -> None:
    # One may be left of a transaction that a kill ended.
    if link.is_symlink() and not link.exists():
        link.unlink()
    os.symlink(target, link)


def _check_privileges(directory: Path) -> None:
    """Try what layers need: files of any owner, and devices."""
    probe = directory / ".privileges"
    try:
        probe.unlink(missing_ok=True)
        os.mknod(probe, stat.S_IFBLK | 0o600, os.makedev(1, 1))
        os.lchown(probe, 1, 1)
    except PermissionError as error:
        raise RepositoryError(
            f"this process may not make devices and files of other owners in {directory}, and layers hold such files: "
            "run the publisher as root, in a container with capabilities CHOWN, MKNOD, FOWNER, SETFCAP, DAC_OVERRIDE"
        ) from error
    finally:
        probe.unlink(missing_ok=True)
