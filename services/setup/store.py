"""The object store as its administrator uses it, by the `minio` SDK.

Every step can be repeated: it makes what is missing and leaves the rest as it is.
"""

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

import structlog
import urllib3
from minio import Minio, MinioAdmin
from minio.credentials.providers import StaticProvider
from minio.error import InvalidResponseError, MinioAdminException, S3Error, ServerError
from minio.notificationconfig import NotificationConfig, PrefixFilterRule, QueueConfig
from pydantic import HttpUrl, SecretStr

from services.common.object_store.model import KEY_PREFIX
from services.common.object_store.settings import ObjectStoreSettings
from services.setup.errors import SetupError
from services.setup.policies import Policy

__all__ = ["Administrator", "StoreBusyError", "StoreUser"]

_log = structlog.get_logger(__name__)

_CONFIGURATION: Final = "thin-image-layers"
"""Id of the suite's own part of the bucket's notifications; others are left as they are."""

_CREATED: Final = "s3:ObjectCreated:*"
_SERVER_FAILS: Final = 500
_ABSENT: Final = KEY_PREFIX + "0" * 64
"""Key of no layer: no archive has this digest."""


class StoreBusyError(SetupError):
    """The store does not answer, or answers that it cannot at the moment: worth trying again."""


class StoreUser:
    """One user of the bucket.

    Parameters
    ----------
    name
        What it is called, in messages and as the name of its policy.
    access_key
        Its access key.
    secret_key
        Its secret key.
    """

    def __init__(self, *, name: str, access_key: SecretStr, secret_key: SecretStr) -> None:
        self.name = name
        self.access_key = access_key
        self.secret_key = secret_key


class Administrator:
    """Does what takes an administrator's key.

    Parameters
    ----------
    settings
        The store, its bucket, and its administrator.
    """

    def __init__(self, settings: ObjectStoreSettings) -> None:
        self._settings = settings
        self._bucket = settings.bucket
        self._http = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=settings.connect_timeout, read=settings.read_timeout),
            retries=False,
            # The certificates that the system trusts, and SSL_CERT_FILE.
            ssl_context=ssl.create_default_context(),
        )
        self._client = self._client_of(settings.access_key, settings.secret_key)

    def _client_of(self, access_key: SecretStr, secret_key: SecretStr) -> Minio:
        return Minio(
            _address(self._settings.endpoint),
            access_key=access_key.get_secret_value(),
            secret_key=secret_key.get_secret_value(),
            secure=self._settings.endpoint.scheme == "https",
            region=self._settings.region,
            http_client=self._http,
        )

    def make_bucket(self, bucket: str) -> None:
        """Make a bucket."""
        with self._failures(f"making the bucket {bucket}"):
            if self._client.bucket_exists(bucket):
                _log.info("bucket is there", bucket=bucket)
                return
            self._client.make_bucket(bucket)
            _log.info("bucket made", bucket=bucket)

    def set_policy(self, bucket: str, policy: Policy) -> None:
        """Give a bucket its own policy, in place of the one that it has."""
        with self._failures(f"setting the policy of the bucket {bucket}"):
            self._client.set_bucket_policy(bucket, json.dumps(policy))
            _log.info("policy of the bucket set", bucket=bucket)

    def announce_layers(self, webhook: str) -> None:
        """Let MinIO announce new layers to one of its webhooks."""
        wanted = QueueConfig(
            queue=f"arn:minio:sqs::{webhook}:webhook",
            events=[_CREATED],
            config_id=_CONFIGURATION,
            prefix_filter_rule=PrefixFilterRule(KEY_PREFIX),
        )
        with self._failures(f"setting the notification to the webhook {webhook}"):
            present = self._client.get_bucket_notification(self._bucket)
            if wanted in present.queue_config_list:
                _log.info("notification is there", webhook=webhook)
                return
            others = [queue for queue in present.queue_config_list if queue.config_id != _CONFIGURATION]
            self._client.set_bucket_notification(
                self._bucket,
                NotificationConfig(present.cloud_func_config_list, [*others, wanted], present.topic_config_list),
            )
            _log.info("notification set", webhook=webhook)

    def make_user(self, user: StoreUser, policy: Policy) -> None:
        """Make a user of MinIO, or give it its secret key and its policy anew."""
        administrator = MinioAdmin(
            endpoint=_address(self._settings.endpoint),
            credentials=StaticProvider(
                self._settings.access_key.get_secret_value(), self._settings.secret_key.get_secret_value()
            ),
            region=self._settings.region,
            secure=self._settings.endpoint.scheme == "https",
            http_client=self._http,
        )
        name = f"{self._bucket}-{user.name}"
        with self._failures(f"making the user {user.name}"):
            administrator.policy_add(name, policy=policy)
            administrator.user_add(user.access_key.get_secret_value(), user.secret_key.get_secret_value())
            administrator.policy_set(name, user=user.access_key.get_secret_value())
            _log.info("user made", user=user.name, policy=name)

    def check_keys(self, user: StoreUser) -> None:
        """Make sure that the store knows a user by its keys, whatever it may do.

        Raises
        ------
        SetupError
            It does not.
        """
        with self._failures(f"looking for a layer as the user {user.name}"):
            try:
                # Not by HEAD, whose refusals have no body that tells why.
                self._client_of(user.access_key, user.secret_key).get_object(self._bucket, _ABSENT)
            except S3Error as error:
                # Who may not list the bucket is refused to look for what is not there.
                if error.code not in {"NoSuchKey", "AccessDenied"}:
                    raise

    def check_listing(self, user: StoreUser) -> None:
        """Make sure that a user can list the layers.

        Raises
        ------
        SetupError
            It cannot.
        """
        with self._failures(f"listing the bucket as the user {user.name}"):
            client = self._client_of(user.access_key, user.secret_key)
            next(client.list_objects(self._bucket, prefix=KEY_PREFIX), None)

    @contextmanager
    def _failures(self, doing: str) -> Iterator[None]:
        """Turn the SDK's errors into the suite's."""
        try:
            yield
        except urllib3.exceptions.HTTPError as error:
            raise StoreBusyError(f"{doing}: {self._settings.endpoint} does not answer: {error}") from error
        except ServerError as error:
            raise StoreBusyError(f"{doing}: {error}") from error
        except InvalidResponseError as error:
            raise SetupError(f"{doing}: {self._settings.endpoint} is no S3 server: {error}") from error
        except S3Error as error:
            self._refused(doing, int(error.response.status), f"{error.code}: {error.message}", error)
        except MinioAdminException as error:
            self._refused(doing, int(error._code), error._body, error)  # noqa: SLF001 - there is no other way to them

    def _refused(self, doing: str, status: int, reason: str, error: Exception) -> NoReturn:
        kind = StoreBusyError if status >= _SERVER_FAILS else SetupError
        raise kind(f"{doing}: {self._settings.endpoint} refused with status {status}: {reason}") from error


def _address(url: HttpUrl) -> str:
    return f"{url.host}:{url.port}"
