"""The layers and images of one batch, in a directory that becomes the batch."""

import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

import structlog

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.layout import LayerLayout, layer_home, layer_tree, sidecar_path
from services.common.threads import Stop, in_thread
from services.repository.directory.batches import BATCHES, OVERTAKEN, PREPARED, Batches
from services.repository.directory.flats import NewFlats
from services.repository.directory.images import NewIndex
from services.repository.directory.podman import DirectoryStores
from services.repository.directory.record import Leftovers
from services.repository.ducc import is_ducc_layer
from services.repository.errors import LayerAdditionError, LayerRemovalError, RepositoryError
from services.repository.flat.differences import DifferenceReports
from services.repository.image_platforms import platform_images
from services.repository.images import ImageDocuments
from services.repository.interface import PreparedLayer
from services.repository.public_names import is_public_target

__all__ = ["HOME_LINK", "DirectoryTransaction"]

_log: Final = structlog.get_logger(__name__)

HOME_LINK: Final = re.compile(r"\.\./\.\./\.batches/([0-9]{1,18})/[0-9a-f]{64}")
"""Where the link of a layer's home leads."""


class DirectoryTransaction:
    """An open transaction.

    Parameters
    ----------
    batches
        Those of the repository.
    staging
        Directory of the transaction.
    images
        What it changes of the images.
    stores
        What it changes of podman's stores.
    flats
        What it changes of the flat images.
    layout
        Paths that thin images name.
    threads
        Where blocking work runs.
    """

    def __init__(
        self,
        *,
        batches: Batches,
        staging: Path,
        images: NewIndex,
        stores: DirectoryStores,
        flats: NewFlats,
        layout: LayerLayout,
        threads: Executor,
    ) -> None:
        self._batches = batches
        self._root = batches.root
        self._staging = staging
        self._images = images
        self._stores = stores
        self._flats = flats
        self._layout = layout
        self._threads = threads
        self._digests: list[Digest] = []
        self._removed: dict[Digest, str] = {}

    async def add(self, prepared: PreparedLayer) -> None:
        """Move a prepared layer into the batch."""
        digest = prepared.layer.digest
        for path in (self._root / layer_home(digest), self._root / digest):
            # A link that leads nowhere is of an earlier attempt.
            if path.exists() and not self._is_duccs(path, digest):
                raise LayerAdditionError(f"{path} is there already, and is no layer that this publisher knows")
        home = self._staging / digest
        try:
            os.rename(self._staging.parent / f"{PREPARED}{digest}", home)
            home.chmod(0o755)
        except OSError as error:
            raise LayerAdditionError(f"layer {digest} cannot be staged: {error}") from error
        self._digests.append(digest)

    def _is_duccs(self, path: Path, digest: Digest) -> bool:
        """Tell whether a layer is one that DUCC has made, and nobody has verified."""
        if path.is_symlink() or not path.is_dir() or (self._root / sidecar_path(digest)).exists():
            return False
        return path == self._root / layer_home(digest) and is_ducc_layer(os.listdir(path))

    async def put_image(self, documents: ImageDocuments) -> None:
        """Write the documents of an image into the batch, and make its outputs."""
        await in_thread(self._threads, lambda stop: self._put_image(documents, stop))

    def _put_image(self, documents: ImageDocuments, stop: Stop) -> None:
        put_into_stores = self._stores.plan(documents.name, documents)
        with self._flats.changing():
            if documents.outputs.flat is not None:
                self._flats.put(platform_images(documents), documents.outputs.flat, stop)
            self._images.put(documents)
        put_into_stores()

    async def remove_image(self, name: ImageName) -> None:
        """Take an image out with the batch."""

        def remove() -> None:
            remove_from_stores = self._stores.plan(name, None)
            self._images.remove(name)
            remove_from_stores()

        await in_thread(self._threads, lambda _stop: remove())

    async def remove_flat(self, config: Digest) -> None:
        """Take a flat image out when the batch is visible, and the image out of podman's stores."""

        def remove() -> None:
            remove_from_stores = self._stores.plan_removal(config)
            self._flats.remove(config)
            remove_from_stores()

        await in_thread(self._threads, lambda _stop: remove())

    def reports(self) -> Mapping[Digest, DifferenceReports]:
        """Return what people must know of the flat images that have been made."""
        return self._flats.reports

    async def remove_layer(self, digest: Digest) -> None:
        """Take a layer out when the batch is visible."""
        await in_thread(self._threads, lambda _stop: self._remove_layer(digest))

    def _remove_layer(self, digest: Digest) -> None:
        home = self._root / layer_home(digest)
        if not os.path.lexists(home):
            return
        target = os.readlink(home) if home.is_symlink() else ""
        if HOME_LINK.fullmatch(target) is None:
            raise LayerRemovalError(f"{home} is nothing that this suite has published: remove it by hand")
        self._stores.check_unused(digest)
        self._removed[digest] = target

    async def publish(self) -> int:
        """Make the batch visible by one renaming."""
        return await in_thread(self._threads, lambda _stop: self._publish())

    def _publish(self) -> int:
        changed = {self._root}
        self._flats.drop_unused()
        overtaken: dict[str, str] = {}
        for link, target in (*self._layer_links(), *self._images.links(), *self._flats.links(), *self._stores.links()):
            place = str(link.relative_to(self._root))
            # A name of a layer that is to come into the place of DUCC's would lead to that one at once.
            if _is_in_the_way(link, place) or os.path.dirname(target) in overtaken:
                overtaken[place] = target
            else:
                changed |= self._link(link, target)
        self._leftovers(overtaken).write(self._staging)
        self._images.write(self._batches.revision + 1)
        self._stores.write()
        revision = self._batches.publish(self._staging, changed)
        try:
            self._batches.finish()
            self._stores.sweep()
        except (OSError, RepositoryError) as error:
            _log.warning("what a batch has left to be done is done with the next one", reason=str(error))
        return revision

    def _layer_links(self) -> Iterator[tuple[Path, str]]:
        for digest in self._digests:
            yield self._root / layer_home(digest), f"../../{BATCHES}/{self._batches.revision + 1}/{digest}"
            if self._layout is LayerLayout.FLAT:
                yield self._root / digest, layer_tree(digest)

    def _leftovers(self, overtaken: Mapping[str, str]) -> Leftovers:
        root = self._root.resolve()
        links = [str(link.relative_to(self._root)) for link in self._images.dangling()]
        superseded = [
            str(path.relative_to(root)) for part in (self._images, self._stores) for path in part.superseded()
        ]
        superseded += [os.path.normpath(f"{layer_home(digest)}/../{to}") for digest, to in self._removed.items()]
        superseded += self._flats.superseded()
        overtaken_in = f"{BATCHES}/{OVERTAKEN}{self._batches.revision + 1}"
        superseded += [overtaken_in] if overtaken else []
        layers = {layer_home(digest): target for digest, target in self._removed.items()}
        return Leftovers(
            links=[*links, *self._removed],
            layers={**layers, **self._flats.removed()},
            moved=self._flats.moved(),
            overtaken=overtaken,
            overtaken_in=overtaken_in,
            superseded=superseded,
            before=self._batches.superseded(),
        )

    def _link(self, link: Path, target: str) -> set[Path]:
        """Make a link, with the directories above it; return all directories that may have got something new."""
        link.parent.mkdir(parents=True, exist_ok=True)
        # One may be left of a transaction that a kill ended.
        if link.is_symlink() and not link.exists():
            link.unlink()
        if not link.is_symlink():
            link.symlink_to(target)
        return {path for path in link.parents if path.is_relative_to(self._root)}


def _is_in_the_way(link: Path, place: str) -> bool:
    """Tell whether DUCC has left something in the place of a link, which goes when the batch is visible.

    Whatever else could be there has been refused before.
    """
    if not link.is_symlink():
        return link.exists()
    return link.exists() and is_public_target(place, os.readlink(link))
