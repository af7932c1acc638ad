"""An open transaction of a native repository: layers and images in the catalogs of the next revision."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.layout import layer_home
from services.common.repository_name import RepositoryName
from services.common.threads import in_thread
from services.repository.errors import ImageAdditionError, LayerAdditionError, LayerRemovalError
from services.repository.flat.differences import DifferenceReports
from services.repository.images import ImageDocuments
from services.repository.interface import PreparedLayer
from services.repository.native.errors import NativeError
from services.repository.native.flat.composer import FlatComposer
from services.repository.native.image_outputs import put_image, remove_image
from services.repository.native.podman import NativeStores
from services.repository.native.writer.ingest import IngestedLayer
from services.repository.native.writer.tree import TreeUpdate

__all__ = ["NativeTransaction"]


class NativeTransaction:
    """The layers and images of one revision.

    Parameters
    ----------
    name
        Name of the repository.
    update
        The catalogs of the revision.
    composer
        Makes flat images.
    threads
        Where blocking work runs.
    add
        Adds a layer that has been prepared to the update, and returns it. It blocks.
    publish
        Makes the update visible, with these layers; returns the revision. It blocks.
    """

    def __init__(
        self,
        *,
        name: RepositoryName,
        update: TreeUpdate,
        composer: FlatComposer,
        threads: Executor,
        add: Callable[[Digest], IngestedLayer],
        publish: Callable[[Sequence[IngestedLayer]], int],
    ) -> None:
        self._update = update
        self._composer = composer
        self._threads = threads
        self._add = add
        self._publish = publish
        self._stores = NativeStores(name=name, update=update)
        self._layers: list[IngestedLayer] = []

    async def add(self, prepared: PreparedLayer) -> None:
        """Add a prepared layer to the catalogs above it."""
        digest = prepared.layer.digest
        try:
            await self._change(lambda: self._layers.append(self._add(digest)))
        except NativeError as error:
            raise LayerAdditionError(f"layer {digest} cannot be added: {error}") from error

    async def put_image(self, documents: ImageDocuments) -> None:
        """Put an image in its place, with the outputs that are made of its layers here."""
        await self._change_image(
            documents.name, lambda: put_image(self._update, self._composer, self._stores, documents)
        )

    async def remove_image(self, name: ImageName) -> None:
        """Take an image out."""
        await self._change_image(name, lambda: remove_image(self._update, self._stores, name))

    async def _change_image(self, name: ImageName, work: Callable[[], None]) -> None:
        try:
            await self._change(work)
        except NativeError as error:
            raise ImageAdditionError(f"the image {name} cannot be changed: {error}") from error

    async def remove_flat(self, config: Digest) -> None:
        """Take the flat image of a configuration out, and the image out of podman's stores."""

        def remove() -> None:
            remove_from_stores = self._stores.plan_removal(config)
            self._update.flats.remove(config)
            remove_from_stores()

        try:
            await self._change(remove)
        except NativeError as error:
            raise ImageAdditionError(f"the flat image of {config.oci} cannot be taken out: {error}") from error

    def reports(self) -> Mapping[Digest, DifferenceReports]:
        """Return what people must know of the flat images that have been made."""
        return self._update.reports

    async def remove_layer(self, digest: Digest) -> None:
        """Take a layer out of the catalogs above it; its objects go with a collection."""

        def remove() -> None:
            if self._update.find(digest) is None:
                return
            self._stores.check_unused(digest)
            if not self._update.remove(digest):
                raise LayerRemovalError(f"{layer_home(digest)} is no layer of this suite: remove it by hand")

        try:
            await self._change(remove)
        except NativeError as error:
            raise LayerRemovalError(f"layer {digest} cannot be taken out: {error}") from error

    async def publish(self) -> int:
        """Make the batch visible by a new manifest."""
        await self._change(self._stores.write)
        return await in_thread(self._threads, lambda _stop: self._publish(self._layers))

    async def _change(self, work: Callable[[], object]) -> None:
        await in_thread(self._threads, lambda _stop: work())
