"""An open transaction of a repository on its stratum 0."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

import structlog

from services.common.archive.ondisk import ListedDeletions
from services.common.archive.unpack import unpack
from services.common.deletion import delete_tree
from services.common.digest import Digest
from services.common.durable import write_file
from services.common.image_name import METADATA_DIRECTORY, ImageName
from services.common.layout import (
    CATALOG_MARKER,
    LAYERS_DIRECTORY,
    LayerLayout,
    layer_home,
    layer_tree,
    sidecar_path,
)
from services.common.threads import Stop, in_thread
from services.repository.cvmfs_server.branch import Branch
from services.repository.cvmfs_server.claim import claimant
from services.repository.cvmfs_server.documents import put_image, remove_image
from services.repository.cvmfs_server.place import Place
from services.repository.cvmfs_server.tool import CvmfsServer
from services.repository.errors import (
    ForeignTransactionError,
    ImageRefusedError,
    LayerAdditionError,
    LayerRefusedError,
    LayerRemovalError,
    NoTransactionError,
    RepositoryError,
)
from services.repository.flat.differences import DifferenceReports
from services.repository.images import ImageDocuments
from services.repository.interface import PreparedLayer

__all__ = ["MARKER", "ServerTransaction"]

_log = structlog.get_logger(__name__)

MARKER: Final = f"{LAYERS_DIRECTORY}/.publisher-transaction"
"""File in a transaction that holds its token."""
_REVISION: Final = "user.revision"


class ServerTransaction:
    """An open transaction; the repository aborts it at the end unless it has been published.

    Parameters
    ----------
    place
        Where the repository is.
    layout
        Paths that thin images name.
    tool
        The program.
    branch
        Its mounts.
    token
        Names the transaction.
    threads
        Where blocking work runs.
    """

    def __init__(
        self, *, place: Place, layout: LayerLayout, tool: CvmfsServer, branch: Branch, token: str, threads: Executor
    ) -> None:
        self._place = place
        self._layout = layout
        self._tool = tool
        self._branch = branch
        self._token = token
        self._threads = threads
        self._added: list[Digest] = []
        self._images: list[ImageDocuments] = []

    async def add(self, prepared: PreparedLayer) -> None:
        """Unpack a layer into the transaction's area, with its sidecar and catalog marker.

        Raises
        ------
        NoTransactionError
            Somebody has aborted the transaction.
        """
        self._still_own()
        try:
            unpacked = await in_thread(self._threads, lambda stop: self._add(prepared, stop))
        except RepositoryError:
            self._still_own()  # else the area has been taken away, which is no fault of the layer
            raise
        if claimant(self._place.flag) != self._token:
            # What has been unpacked lies in a transaction that somebody else has opened meanwhile, if in any.
            if unpacked:
                await in_thread(self._threads, lambda _stop: self._withdraw(prepared.layer.digest))
            self._still_own()
        self._added.append(prepared.layer.digest)

    def _still_own(self) -> None:
        """Make sure that the open transaction is this one.

        Raises
        ------
        NoTransactionError
            Somebody has aborted it.
        """
        if claimant(self._place.flag) == self._token:
            return
        if self._place.flag.exists():
            raise ForeignTransactionError(
                f"somebody has aborted the publisher's transaction of {self._place.name} and has one open"
            )
        raise NoTransactionError(f"somebody has aborted the publisher's transaction of {self._place.name}")

    def _withdraw(self, digest: Digest) -> None:
        home = self._place.area / layer_home(digest)
        try:
            if not self._is_published(digest):
                delete_tree(home)
        except OSError as error:
            _log.error("a layer has been unpacked into somebody else's transaction", digest=digest, reason=str(error))

    def _add(self, prepared: PreparedLayer, stop: Stop) -> bool:
        """Unpack a layer where it is not there; return whether it was not."""
        digest = prepared.layer.digest
        area = self._place.area
        home = area / layer_home(digest)
        if (area / sidecar_path(digest)).exists():
            return False  # the published tree was being remounted when it was looked for
        link = area / digest if self._layout is LayerLayout.FLAT else None
        if self._is_published(digest) or (link is not None and not _free(link, digest)):
            raise LayerRefusedError(
                f"something that this suite has not published is in the place of {digest}", kind="place"
            )
        try:
            delete_tree(home)
            self._fill(home, prepared, stop)
            if link is not None and not link.is_symlink():
                link.symlink_to(layer_tree(digest))
        except BaseException as error:
            self._clear(home, error)
            if isinstance(error, OSError | RepositoryError):
                raise LayerAdditionError(f"layer {digest} cannot be added: {error}") from error
            raise
        return True

    def _is_published(self, digest: Digest) -> bool:
        """Tell whether anything was published in the place of a layer, also while that tree is being remounted.

        Then the area shows it all the same, and what the transaction has changed does not have it.
        """
        place = layer_home(digest)
        if os.path.lexists(self._place.published / place):
            return True
        return os.path.lexists(self._place.area / place) and not os.path.lexists(self._place.scratch / place)

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

    async def put_image(self, documents: ImageDocuments) -> None:
        """Write the documents of an image into the transaction's area.

        Raises
        ------
        NoTransactionError
            Somebody has aborted the transaction.
        ImageRefusedError
            The image has outputs.
        """
        if documents.outputs:
            # A root file system would be a second copy of all layers, unpacked file by file.
            raise ImageRefusedError(
                f"the image {documents.name} is wanted flat, or in a store of podman's, which a repository of "
                "cvmfs_server's cannot have: ask for it without outputs, or have a native repository "
                "(thin-repository create)"
            )
        await self._change(lambda: put_image(self._place.area, documents))
        self._images.append(documents)

    async def remove_image(self, name: ImageName) -> None:
        """Remove the documents of an image from the transaction's area; errors as `put_image`."""
        await self._change(lambda: remove_image(self._place.area, name))

    async def remove_layer(self, digest: Digest) -> None:
        """Delete a layer in the transaction's area.

        Raises
        ------
        NoTransactionError
            Somebody has aborted the transaction.
        """
        await self._change(lambda: self._remove_layer(digest))

    async def remove_flat(self, config: Digest) -> None:
        """Do nothing: no image is flat here."""

    def reports(self) -> Mapping[Digest, DifferenceReports]:
        """Return nothing: no image is flat here."""
        return {}

    async def _change(self, work: Callable[[], None]) -> None:
        self._still_own()
        try:
            await in_thread(self._threads, lambda _stop: work())
        except OSError as error:
            self._still_own()  # else the area has been taken away
            raise RepositoryError(f"{self._place.area} cannot be changed: {error}") from error
        except RepositoryError:
            self._still_own()
            raise
        if claimant(self._place.flag) != self._token:
            _log.error("something may have been changed in somebody else's transaction", repository=self._place.name)
            self._still_own()

    def _remove_layer(self, digest: Digest) -> None:
        area = self._place.area
        home = area / layer_home(digest)
        if not os.path.lexists(home):
            return
        if not (area / sidecar_path(digest)).exists() or home.is_symlink():
            raise LayerRemovalError(f"{home} is no layer of this suite: remove it by hand")
        link = area / digest
        if link.is_symlink() and os.readlink(link) == layer_tree(digest):
            link.unlink()
        delete_tree(home)

    async def publish(self) -> int | None:
        """Publish; a failure after which the token is in the published tree was none.

        Nor is the program's word taken for a success: if what it publishes is not what is seen here, as in another
        mount namespace, it ends well and the layers are nowhere.

        Raises
        ------
        NoTransactionError
            Somebody has aborted the transaction.
        """
        self._still_own()
        try:
            await in_thread(self._threads, lambda _stop: self._branch.remember())
            async with self._branch.watched():
                await self._tool.publish(f"publisher-{self._token}")
        except RepositoryError as error:
            if await in_thread(self._threads, self._published_token) != self._token:
                raise
            _log.error("publishing failed after it had succeeded", reason=str(error))
        await in_thread(self._threads, self._find_published)
        return await in_thread(self._threads, self._revision)

    def _published_token(self, _stop: Stop) -> str | None:
        try:
            return (self._place.published / MARKER).read_text(encoding="ascii")
        except (OSError, ValueError):
            return None

    def _find_published(self, _stop: Stop) -> None:
        published = self._place.published
        for digest in self._added:
            if not os.path.lexists(published / sidecar_path(digest)):
                raise RepositoryError(
                    f"cvmfs_server has published, but layer {digest} is not in {published}: "
                    f"are that and {self._place.area} here what the program has mounted?"
                )
        for image in self._images:
            for path in image.files:
                if not os.path.lexists(published / METADATA_DIRECTORY / path):
                    raise RepositoryError(f"cvmfs_server has published, but {path} of an image is not in {published}")

    def _revision(self, _stop: Stop) -> int | None:
        try:
            return int(os.getxattr(self._place.published, _REVISION))
        except (OSError, ValueError) as error:
            _log.warning("the revision is not known", reason=str(error))
            return None


def _free(link: Path, digest: Digest) -> bool:
    """Tell whether a layer's link can be made, or is there: somebody may have removed what it leads to."""
    try:
        return os.readlink(link) == layer_tree(digest)
    except FileNotFoundError:
        return True
    except OSError:
        return False
