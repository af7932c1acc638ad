"""What the publisher needs of a repository, whatever its kind.

What is published is layers, and images, which name layers. A batch is published in four steps: every layer is
*prepared* outside any transaction, a transaction is opened, the prepared layers and the documents of images are added,
and the transaction is published or aborted. Layers are handed over as streams, so a repository that writes its own
storage format needs no directory in between.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.repository_name import RepositoryName
from services.common.sidecar import LayerSidecar
from services.repository.flat.differences import DifferenceReports
from services.repository.images import ImageDocuments
from services.repository.layer import VerifiedLayer
from services.repository.podman.shown import StoredImage

__all__ = [
    "ImageDocuments",
    "ListedLayer",
    "OwnTransaction",
    "PreparedLayer",
    "Publication",
    "Repository",
    "StoredImage",
    "Transaction",
]


@dataclass(frozen=True, slots=True)
class Publication:
    """A layer is in the repository."""

    revision: int | None
    """The revision that brought it, where the repository knows that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedLayer:
    """What is in the place of a layer in the published tree."""

    digest: Digest
    whole: bool
    """Whether its sidecar is there; without one it is not of this suite, or damaged."""
    linked: bool
    """Whether the path that thin images name is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTransaction:
    """A transaction that the publisher opened, or was about to open, and has not seen the end of."""

    token: str
    """Names the transaction; the mark of it in the repository holds the same."""
    process: str | None
    """The program that works on the transaction, as `<pid>/<start time>`, while it runs."""


@dataclass(frozen=True, slots=True)
class PreparedLayer:
    """A layer whose archive has been read to its end and found good, ready to be added to a transaction."""

    layer: VerifiedLayer
    sidecar: LayerSidecar
    is_stored: bool = False
    """Whether its content lies where the repository keeps it, so that the archive may go before the layer is added."""


class Transaction(Protocol):
    """An open transaction of a repository."""

    async def add(self, prepared: PreparedLayer) -> None:
        """Add a layer and its sidecar.

        Raises
        ------
        LayerAdditionError, LayerRefusedError
            The layer could not be added; the transaction is as if it had never been tried.
        """

    async def put_image(self, documents: ImageDocuments) -> None:
        """Put the documents of an image in their place, and its outputs, instead of all that there are of it.

        The layers of the image must be in the repository, or have been added before.

        Raises
        ------
        ImageAdditionError
            That cannot be done, as where something is in the way that is not this suite's; the transaction is as if it
            had never been tried.
        RepositoryError
            It has been done in part: the transaction is not to be published.
        """

    async def remove_image(self, name: ImageName) -> None:
        """Take the documents of an image out, and its name; nothing happens if there are none.

        What its flat output was made as stays until `remove_flat`. Errors as `put_image`.
        """

    async def remove_layer(self, digest: Digest) -> None:
        """Take a layer and its sidecar out; nothing happens if it is not there.

        Images that stand on it are taken out before.

        Raises
        ------
        LayerRemovalError
            That cannot be done, as where an image in a store of podman's stands on it; the transaction is as if it had
            never been tried.
        RepositoryError
            It has been done in part: the transaction is not to be published.
        """

    async def remove_flat(self, config: Digest) -> None:
        """Take the flat image of a configuration out; nothing happens if it is not there. Errors as `put_image`."""

    def reports(self) -> Mapping[Digest, DifferenceReports]:
        """Return what people must know of the flat images that have been made, by their configurations."""

    async def publish(self) -> int | None:
        """Make everything changed visible at once, durably; return the new revision where it is known.

        Raises
        ------
        RepositoryError
            Nothing has been made visible.
        """


class Repository(Protocol):
    """A repository that layers are published to. Its transactions exclude one another."""

    name: RepositoryName

    async def recover(self, transactions: Sequence[OwnTransaction]) -> None:
        """Clean up what an earlier publisher left, whose journal says which transactions were its own.

        Raises
        ------
        RepositoryError
            It could not be cleaned up now; worth trying again.
        """

    async def check(self) -> None:
        """Make sure that the repository can be used.

        Raises
        ------
        RepositoryError
            It cannot; the text says why.
        """

    async def lookup(self, digest: Digest) -> Publication | None:
        """Find a published layer; what an open transaction holds is not published."""

    async def list_layers(self, shard: str) -> Sequence[ListedLayer]:
        """List the published layers whose digests begin with two hex digits, in the order of their digests.

        Parameters
        ----------
        shard
            The two digits, so that memory holds a part of all layers only.

        Raises
        ------
        RepositoryError
            The repository cannot be read.
        """

    async def read_image(self, name: ImageName) -> Mapping[str, bytes] | None:
        """Return the published documents of an image by their paths below `.metadata`, all of one revision.

        Raises
        ------
        RepositoryError
            The repository cannot be read.
        """

    async def list_images(self) -> Sequence[ImageName]:
        """List the published images in the order of their names.

        Raises
        ------
        RepositoryError
            The repository cannot be read.
        """

    async def list_flats(self) -> Collection[Digest]:
        """List the published flat images by their configurations.

        Raises
        ------
        RepositoryError
            The repository cannot be read.
        """

    async def ducc_flats(self, configs: Collection[Digest]) -> Collection[Digest]:
        """Return those of some published flat images, by their configurations, that are as DUCC makes them.

        Raises
        ------
        RepositoryError
            The repository cannot be read.
        """

    async def flats_of(self, name: ImageName) -> Collection[Digest]:
        """Return the configurations of the published flat images that the name of an image leads to.

        Raises
        ------
        RepositoryError
            The repository cannot be read.
        """

    async def list_stored(self) -> Collection[StoredImage]:
        """List the images in the published stores of podman's, each by all of its names.

        Raises
        ------
        RepositoryError
            The repository cannot be read.
        """

    async def not_in_stores(self, images: Sequence[ImageDocuments]) -> Collection[ImageName]:
        """Return which images podman would not find in all stores that they are to be in, or could not run.

        Raises
        ------
        ImageRefusedError
            The documents of one are not those of an image.
        RepositoryError
            The repository cannot be read.
        """

    async def prepare(self, layer: VerifiedLayer) -> PreparedLayer:
        """Read a layer's archive to its end, check all of it, and do what can be done ahead of a transaction.

        Raises
        ------
        LayerRefusedError
            The layer is at fault.
        RepositoryError
            The repository is.
        """

    async def discard(self, prepared: PreparedLayer) -> None:
        """Drop what `prepare` made, if there still is any."""

    def transaction(self, token: str) -> AbstractAsyncContextManager[Transaction]:
        """Open a transaction; leaving its context without `publish` aborts it.

        Parameters
        ----------
        token
            Names the transaction, so that `recover` can tell it from others.

        Raises
        ------
        ForeignTransactionError
            Somebody else has one open.
        TransactionLeftOpenError
            At the end of the context: it could be neither published nor aborted.
        NoTransactionError
            None can be opened for another reason.
        """
