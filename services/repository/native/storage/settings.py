"""Settings of the bucket that holds a repository."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.common.object_store.settings import BucketName, StoreSettings

__all__ = ["RepositoryStoreSettings"]


class RepositoryStoreSettings(StoreSettings):
    """Where the bucket of a repository is, and how patient the suite is with it."""

    model_config = SettingsConfigDict(env_prefix="REPOSITORY_STORE_")

    bucket: BucketName = "cvmfs"
    """Bucket of the repository; it must exist, and clients must be able to read it without credentials."""
    prefix: Annotated[str, Field(pattern=r"^(?:[A-Za-z0-9._-]+/)*$")] = ""
    """What the keys of the repository begin with, such as `cvmfs/thin.example.org/`."""
    lease_seconds: Annotated[int, Field(ge=5, le=600)] = 20
    """Seconds after which another publisher takes over from one that has died or hangs while it writes."""
