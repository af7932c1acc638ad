"""Settings of the object store."""

from typing import Annotated

from pydantic import AfterValidator, ByteSize, Field, HttpUrl, SecretStr
from pydantic_settings import SettingsConfigDict

from services.common.errors import InvalidValueError
from services.common.settings import Settings

__all__ = ["BucketName", "ObjectStoreSettings", "StoreSettings"]

_MIB = 1 << 20

_SENDING = 3 * _MIB
"""What a request takes that sends part of an archive, in bytes: a piece is read, one is sent, and of one the kernel
has not taken everything yet."""

BucketName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
"""Name of an S3 bucket."""


def _plain(url: HttpUrl) -> HttpUrl:
    if url.username or url.password or url.query or url.fragment:
        # Not quoted: it may hold a password.
        raise InvalidValueError("an endpoint has the form http(s)://HOST[:PORT], without credentials or a query")
    return url


class StoreSettings(Settings):
    """How an S3 server is reached, and how patient the suite is with it; a subclass names the bucket."""

    endpoint: Annotated[HttpUrl, AfterValidator(_plain)]
    """URL of the S3 server, `http(s)://HOST[:PORT]`."""
    access_key: SecretStr
    """Access key of an S3 user who may read, write and list the bucket."""
    secret_key: SecretStr
    """Secret key of that user."""
    bucket: BucketName
    """Name of the bucket, which must exist."""
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")] = "us-east-1"
    """Region that requests are signed for; most servers do not care."""
    connect_timeout: Annotated[float, Field(gt=0, le=600)] = 5
    """Longest wait for a connection, in seconds."""
    read_timeout: Annotated[float, Field(gt=0, le=3600)] = 30
    """Longest silence of the server, in seconds."""
    retry_seconds: Annotated[float, Field(gt=0, le=3600)] = 60
    """How long a request that meets a transient failure is repeated, in seconds, counted from its last progress."""
    minimum_rate: Annotated[ByteSize, Field(ge=1)] = ByteSize(1 * _MIB)
    """Slowest transfer that is put up with, in bytes per second; it bounds the time of an upload or download."""

    def allowance(self, size: int) -> float:
        """Longest time that one request transferring `size` bytes may take, in seconds."""
        return self.connect_timeout + self.read_timeout + size / self.minimum_rate

    def deadline(self, size: int) -> float:
        """Longest time that transferring `size` bytes may take with all its repetitions, in seconds."""
        return self.allowance(size) + self.retry_seconds


class ObjectStoreSettings(StoreSettings):
    """Where layers are stored and how patient the suite is with the store."""

    model_config = SettingsConfigDict(env_prefix="LAYER_STORE_")

    bucket: BucketName = "layers"
    """Bucket of the layers; it must exist."""
    multipart_threshold: Annotated[ByteSize, Field(ge=1, le=5 << 30)] = ByteSize(32 * _MIB)
    """Archives larger than this are uploaded in parts."""
    part_size: Annotated[ByteSize, Field(ge=5 * _MIB, le=5 << 30)] = ByteSize(16 * _MIB)
    """Size of a part; it grows where an archive would need more than 10,000 of them."""
    parallel_parts: Annotated[int, Field(ge=1, le=64)] = 4
    """Parts of one archive that are uploaded at the same time."""
    object_limit: Annotated[ByteSize, Field(ge=1)] = ByteSize(64 << 30)
    """Larger objects are not downloaded."""

    def sending_memory(self, size: int) -> int:
        """Bytes of memory that the upload of an archive of `size` bytes holds at most."""
        requests = 1 if size <= self.multipart_threshold else self.parallel_parts
        return min(size, _SENDING) * requests + _MIB  # and a piece that is hashed
