"""Layers of ordinary images that are in repositories: they need not be downloaded, nor unpacked.

Before containerd fetches a layer it asks for the snapshot to unpack it in, and names in labels the layer's digest and
the snapshot that is going to come of it. The answer that this one exists already makes it look for a committed snapshot
with the label of that name, on the same parent, and go on with the next layer.

What is taken from a repository is what would have been unpacked, so a layer has to pass all of these:

- It has a sidecar. Without one nobody knows what the layer deletes: deletions may be missing, or be there as the files
  `.wh.*` that archives have for them.
- The chain ID that the client expects is that of the parent's and the sidecar's diff ID (OCI image specification,
  "Layer ChainID"). The client takes both from documents of the image's author, who could else have a layer stand for
  another one in everybody's images.
- Everything below it is remote, too. At the first layer that is not, containerd fetches it and all above it, whatever
  it is told of those, so nothing would be saved. And what is in repositories can so be at the bottom of a union only.
- It holds no thin.json. That decides what an image is made of where it is unpacked.

Only requests of CRI's namespace count. Docker does not expect images without their layers: it does not list them, or
saves them without an error and without layers.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from services.common.descriptor import DESCRIPTOR_NAME, LayerUrl
from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.layout import LayerLayout
from services.common.repository_name import RepositoryName
from services.node.cvmfs.finder import LayerFinder, PublishedLayer
from services.node.cvmfs.repository_io import RepositoryIo
from services.node.errors import RepositoryError
from services.snapshotter.store.model import Snapshot

__all__ = ["REFERENCE", "RemoteLayers", "chain_id"]

REFERENCE: Final = "containerd.io/snapshot.ref"
"""Label of a request: the name of the snapshot that is going to come of it, which is its chain ID."""

_LAYER: Final = "containerd.io/snapshot/cri.layer-digest"
"""Label of a request: the digest of the layer as the registry has it."""

_NAMESPACE: Final = "k8s.io/"
"""How the keys of CRI begin: containerd puts the namespace before them. Of the client itself nothing is known."""

_log = structlog.get_logger(__name__)


def chain_id(parent: str | None, diff_id: Digest) -> str:
    """Return the chain ID of a layer on a chain.

    Parameters
    ----------
    parent
        Chain ID of what it stands on; None for the lowest layer.
    diff_id
        SHA-256 of the layer's uncompressed archive.
    """
    if parent is None:
        return diff_id.oci
    return Digest(hashlib.sha256(f"{parent} {diff_id.oci}".encode()).hexdigest()).oci


class RemoteLayers:
    """Finds layers that stand in for snapshots.

    Parameters
    ----------
    repositories
        Where they may be.
    finder
        Looks into repositories.
    io
        Threads for further looks.
    """

    def __init__(self, *, repositories: Sequence[RepositoryName], finder: LayerFinder, io: RepositoryIo) -> None:
        self._repositories = repositories
        self._finder = finder
        self._io = io

    async def find(
        self, key: str, parent: Snapshot | None, labels: Mapping[str, str], *, holder: str
    ) -> LayerUrl | None:
        """Find the published layer that is what a snapshot is wanted for; None if there is none.

        A repository that cannot be looked into has none: the layer can still be had from the registry.

        Parameters
        ----------
        key
            Of the wanted snapshot.
        parent
            What it is to stand on.
        labels
            Of the request.
        holder
            Who uses the repositories meanwhile.
        """
        wanted, digest = labels.get(REFERENCE), _layer(labels)
        if not key.startswith(_NAMESPACE) or wanted is None or digest is None:
            return None
        if parent is not None and (parent.remote is None or REFERENCE not in parent.labels):
            return None
        below = None if parent is None else parent.labels[REFERENCE]
        for repository in self._order(parent):
            # Every layer is at this place, be there other ways to it or not.
            url = LayerUrl.of(repository, digest, LayerLayout.DUCC)
            try:
                reason = await self._objection(url, wanted, below, holder=holder)
            except RepositoryError as error:
                _log.warning("layer_not_looked_up", url=url, reason=str(error), effect="it is downloaded")
                continue
            if reason is None:
                return url
            _log.info("layer_not_taken", url=url, reason=reason)
        return None

    def _order(self, parent: Snapshot | None) -> list[RepositoryName]:
        """Return the repositories in the order in which they are asked."""
        # That of the layer below first: another one, which may hang, is then asked once for an image.
        first = None if parent is None or parent.remote is None else parent.remote.repository
        return sorted(self._repositories, key=lambda name: name != first)

    async def _objection(self, url: LayerUrl, wanted: str, below: str | None, *, holder: str) -> str | None:
        """Return why a layer does not stand in for a snapshot; None if it does."""
        findings = await self._finder.find([url], holder=holder)
        for error in findings.failures:
            raise error
        layer = findings.found.get(url)
        if layer is None:
            return "it is not there"
        if layer.diff_id is None:
            return "it has no sidecar, so nobody knows what it deletes"
        if chain_id(below, layer.diff_id) != wanted:
            return f"it does not give the snapshot {wanted} that the image has it for"
        try:
            holds_descriptor = await self._io.run(lambda: _holds_descriptor(layer), url.repository)
        except OSError as error:
            raise RepositoryError(f"cannot read layer {url}: {error.strerror}") from error
        return f"it holds {DESCRIPTOR_NAME}" if holds_descriptor else None


def _layer(labels: Mapping[str, str]) -> Digest | None:
    """Return the digest of the layer that a request is for; None where it names none of a kind that is published."""
    try:
        return Digest.from_oci(labels.get(_LAYER, ""))
    except InvalidValueError:
        return None


def _holds_descriptor(layer: PublishedLayer) -> bool:
    # Without taking an error for an absence, as os.path does.
    try:
        os.lstat(layer.tree / DESCRIPTOR_NAME)
    except FileNotFoundError:
        return False
    return True
