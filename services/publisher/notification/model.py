"""The one thing that a notification can say to the publisher."""

from dataclasses import dataclass

from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.object_store.model import digest_of

__all__ = ["ObjectCreated", "layer_created"]


@dataclass(frozen=True, slots=True)
class ObjectCreated:
    """An object that is a layer archive, going by its key, has been created."""

    digest: Digest
    """SHA-256 that the key claims for the archive."""


def layer_created(key: str) -> ObjectCreated | None:
    """Read an object's key; return nothing for one that is not a layer's."""
    try:
        return ObjectCreated(digest_of(key))
    except InvalidValueError:
        return None
