"""Settings of the set-up, read from `SETUP_*` environment variables."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, PositiveFloat, SecretStr
from pydantic_settings import SettingsConfigDict

from services.common.logs import LogFormat, LogLevel
from services.common.settings import Settings

__all__ = ["SetupSettings", "StoreKind"]


class StoreKind(StrEnum):
    """The kinds of object store, by how they are set up."""

    MINIO = "minio"
    """The bucket, its notification and both users are made."""
    S3 = "s3"
    """The bucket is made; users and notifications are the store's administrator's."""


class SetupSettings(Settings):
    """What an administrator decides about the set-up; `LAYER_STORE_*` name the store and its administrator."""

    model_config = SettingsConfigDict(env_prefix="SETUP_")

    store: StoreKind = StoreKind.MINIO
    """What is made: with minio the buckets, the notification and both users, with s3 the buckets alone."""
    webhook: Annotated[str, Field(pattern=r"^[A-Z0-9_]{1,32}$")] = "PUBLISHER"
    """Kind minio: the webhook that announces layers, ID in MinIO's own MINIO_NOTIFY_WEBHOOK_ENDPOINT_ID."""
    repository_bucket: str = ""
    """Bucket that the repository is in, where it is in one: it is made, and in MinIO everybody may read what is in it,
    and the publisher write to it."""
    uploader_access_key: SecretStr
    """Access key of the user that graphdrivers and docker2cvmfs have."""
    uploader_secret_key: SecretStr
    """Secret key of that user."""
    agent_access_key: SecretStr
    """Access key of the user that the publisher has."""
    agent_secret_key: SecretStr
    """Secret key of that user."""
    patience: PositiveFloat = 120
    """Seconds for which a store that does not answer is waited for."""

    log_level: LogLevel = LogLevel.INFO
    """Least severe events that are logged."""
    log_format: LogFormat = LogFormat.AUTO
    """Form of the log on standard error; auto is console on a terminal and json elsewhere."""
