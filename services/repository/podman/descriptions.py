"""What the lists of a store say of images and layers, and what their documents and names are called there."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Final

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.repository.image_platforms import PlatformImage, PlatformLayer
from services.repository.podman.identity import layer_ids
from services.repository.podman.rows import GZIP, PLAIN, ZSTD, ImageRow, LayerRow

__all__ = ["created", "image_documents", "image_names", "image_row", "layer_row"]

_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
"""What Go reads as a time; anything else would make the whole list unreadable."""
_HUB: Final = frozenset(("registry.hub.docker.com", "index.docker.io"))
"""Other names of Docker Hub, which wish lists use; podman's own is `docker.io`."""


def image_row(image: PlatformImage, *, names: Sequence[str]) -> ImageRow:
    """Return what the list says of an image that has some names."""
    documents = image_documents(image)
    identifiers = list(layer_ids(layer.diff_id for layer in image.layers))
    return ImageRow(
        id=image.config_digest,
        digest=image.manifest_digest.oci,
        names=list(names),
        layer=identifiers[-1] if identifiers else None,
        big_data_names=list(documents),
        big_data_sizes={key: len(content) for key, content in documents.items()},
        big_data_digests={key: _oci(content) for key, content in documents.items()},
        created=created(image),
    )


def layer_row(
    identifier: Digest, parent: Digest | None, layer: PlatformLayer, *, size: int, made: str | None
) -> LayerRow:
    """Return what the list says of a layer.

    Parameters
    ----------
    identifier, parent
        Its own identifier, and that of the layer below it.
    size
        Of the tar stream, in bytes.
    made
        When it was, as `created` says.
    """
    compression = ZSTD if layer.media_type.endswith("zstd") else GZIP if layer.media_type.endswith("gzip") else PLAIN
    return LayerRow(
        id=identifier,
        parent=parent,
        created=made,
        compressed_diff_digest=layer.digest.oci,
        compressed_size=layer.size,
        diff_digest=layer.diff_id.oci,
        diff_size=size,
        compression=compression,
    )


def image_documents(image: PlatformImage) -> dict[str, bytes]:
    """Return the documents by the keys that podman looks for; the index counts as a manifest that it may name."""
    documents = {
        "manifest": image.manifest,
        f"manifest-{image.manifest_digest.oci}": image.manifest,
        image.config_digest.oci: image.config,
    }
    if image.index is not None:
        documents[f"manifest-{_oci(image.index)}"] = image.index
    return documents


def image_names(name: ImageName) -> Iterator[str]:
    """Give the names of an image in a store; of one on Docker Hub also that which podman makes of a short name."""
    yield str(name)
    if name.registry in _HUB:
        yield f"docker.io/{name.partition('/')[2]}"


def created(image: PlatformImage) -> str | None:
    """Return when an image was made, where it says so in a way that Go can read."""
    return image.created if image.created and _MOMENT.fullmatch(image.created) else None


def _oci(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
