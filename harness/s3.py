"""What the harness does to an S3 server as its administrator."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import HttpUrl, SecretStr

from services.common.object_store.settings import ObjectStoreSettings
from services.repository.native.storage.settings import RepositoryStoreSettings

__all__ = ["S3Access", "S3Error", "accepts_objects", "create_bucket", "remove_bucket", "s3_client"]


class S3Error(Exception):
    """The server did not do what it was told; the text says what."""


@dataclass(frozen=True, slots=True)
class S3Access:
    """One bucket and the user who may use it."""

    endpoint: str
    """URL of the server."""
    bucket: str
    """Name of the bucket."""
    access_key: str
    """Access key of the user."""
    secret_key: str = field(default="", repr=False)
    """Secret key of the user."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The settings of a service whose layers are in the bucket."""
        return self._environment("LAYER_STORE_")

    @property
    def repository_environment(self) -> Mapping[str, str]:
        """The settings of a service whose native repository is in the bucket."""
        return self._environment("REPOSITORY_STORE_")

    def _environment(self, prefix: str) -> Mapping[str, str]:
        return {
            f"{prefix}ENDPOINT": self.endpoint,
            f"{prefix}BUCKET": self.bucket,
            f"{prefix}ACCESS_KEY": self.access_key,
            f"{prefix}SECRET_KEY": self.secret_key,
        }

    @property
    def settings(self) -> ObjectStoreSettings:
        """The same for a service in this process."""
        return ObjectStoreSettings(**self._named)

    def repository_settings(self, **chosen: Any) -> RepositoryStoreSettings:  # noqa: ANN401 - the other fields of it
        """The same where the bucket holds a native repository."""
        return RepositoryStoreSettings(**self._named, **chosen)

    @property
    def _named(self) -> dict[str, Any]:
        return {
            "endpoint": HttpUrl(self.endpoint),
            "bucket": self.bucket,
            "access_key": SecretStr(self.access_key),
            "secret_key": SecretStr(self.secret_key),
        }


@cache
def _session() -> AioSession:
    """One session for all clients: it keeps the description of S3, which takes a tenth of a second to read."""
    return AioSession()


@asynccontextmanager
async def s3_client(access: S3Access, service: str = "s3") -> AsyncIterator[Any]:
    """Open a client that neither waits long nor repeats anything; `service` is the name of the API."""
    config = AioConfig(
        connect_timeout=60,
        read_timeout=60,
        signature_version="s3v4" if service == "s3" else "v4",
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"total_max_attempts": 1},
    )
    async with _session().create_client(
        service,
        endpoint_url=access.endpoint,
        region_name="us-east-1",
        aws_access_key_id=access.access_key,
        aws_secret_access_key=access.secret_key,
        config=config,
    ) as client:
        yield client


async def accepts_objects(client: Any, bucket: str) -> bool:  # noqa: ANN401 - botocore's clients have no static type
    """Whether the server takes an object: a listening port says little about the storage behind it."""
    try:
        await client.put_object(Bucket=bucket, Key="probe", Body=b"probe")
        await client.delete_object(Bucket=bucket, Key="probe")
    except (BotoCoreError, ClientError):
        return False
    return True


async def create_bucket(client: Any, bucket: str) -> bool:  # noqa: ANN401 - botocore's clients have no static type
    """Make a bucket that may be there already; False while the server is not up."""
    try:
        await client.create_bucket(Bucket=bucket)
    except client.exceptions.BucketAlreadyOwnedByYou:
        return True
    except (BotoCoreError, ClientError):
        return False
    return True


async def remove_bucket(client: Any, bucket: str) -> None:  # noqa: ANN401 - botocore's clients have no static type
    """Delete a bucket that may have gone already, and its objects before."""
    try:
        async for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            if found := [{"Key": item["Key"]} for item in page.get("Contents", ())]:
                deleted = await client.delete_objects(Bucket=bucket, Delete={"Objects": found, "Quiet": True})
                if errors := deleted.get("Errors"):
                    raise S3Error(f"bucket {bucket} cannot be emptied: {errors}")
        await client.delete_bucket(Bucket=bucket)
    except client.exceptions.NoSuchBucket:
        return
