"""What podman calls layers and files.

The names must be those that podman itself gives when it pulls an image (containers/image, `storage_dest.go`): then it
knows the layers of the store again, and pulls nothing that is in it.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Final

from services.common.digest import Digest

__all__ = ["big_data_file", "layer_ids", "link_name", "mask_id"]

_LINK_LENGTH: Final = 26
"""Of the short names of layers that mounts name (containers-storage, `drivers/overlay/overlay.go`)."""
_PLAIN: Final = re.compile(r"[.0-9a-z]+")


def layer_ids(diff_ids: Iterable[Digest]) -> Iterator[Digest]:
    """Give the identifiers of an image's layers, base first: each depends on all layers below it."""
    below: Digest | None = None
    for diff_id in diff_ids:
        below = diff_id if below is None else Digest(hashlib.sha256(f"{below}+{diff_id}".encode()).hexdigest())
        yield below


def link_name(layer: Digest) -> str:
    """Return the short name of a layer.

    podman takes random ones; here the same layer has the same name in every store, so that a store that is written
    anew is what it was.
    """
    digest = hashlib.sha256(f"link:{layer}".encode()).digest()
    return base64.b32encode(digest)[:_LINK_LENGTH].decode()


def mask_id(layer: Digest) -> Digest:
    """Return the name of the directory that has a layer's mask, which podman does not know as a layer."""
    return Digest(hashlib.sha256(f"mask:{layer}".encode()).hexdigest())


def big_data_file(key: str) -> str:
    """Return the name of the file that has one of the documents of an image (containers-storage, `images.go`)."""
    return key if _PLAIN.fullmatch(key) else "=" + base64.b64encode(key.encode()).decode()
