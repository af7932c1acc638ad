"""The S3 bucket that layers are exchanged through; the one place that talks to it."""

from services.common.object_store.errors import (
    AccessDeniedError,
    BucketMissingError,
    ChecksumMismatchError,
    ObjectConflictError,
    ObjectMissingError,
    ObjectStoreError,
    ObjectTooLargeError,
    StoreRefusedError,
    StoreUnavailableError,
    StreamMismatchError,
)
from services.common.object_store.model import AnnouncedLayer, StoredLayer
from services.common.object_store.settings import ObjectStoreSettings
from services.common.object_store.store import ObjectStore

__all__ = [
    "AccessDeniedError",
    "AnnouncedLayer",
    "BucketMissingError",
    "ChecksumMismatchError",
    "ObjectConflictError",
    "ObjectMissingError",
    "ObjectStore",
    "ObjectStoreError",
    "ObjectStoreSettings",
    "ObjectTooLargeError",
    "StoreRefusedError",
    "StoreUnavailableError",
    "StoredLayer",
    "StreamMismatchError",
]
