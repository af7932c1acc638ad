"""S3 records, the dialect of MinIO, Ceph RGW and AWS.

They differ in two things: MinIO writes `s3:ObjectCreated:Put` where the others leave out `s3:`, and Ceph alone leaves
the key as it is where the others form-encode it (space as `+`, slash as `%2F`).
"""

from collections.abc import Iterator
from typing import Annotated, Final
from urllib.parse import unquote_plus

from pydantic import BaseModel, Field

from services.publisher.notification.model import ObjectCreated, layer_created

__all__ = ["RecordsNotification"]

_RAW_KEY_SOURCE: Final = "ceph:s3"
_CREATED: Final = "ObjectCreated:"


class _Bucket(BaseModel):
    name: str


class _Object(BaseModel):
    key: str


class _Entity(BaseModel):
    bucket: _Bucket
    object: _Object


class _Record(BaseModel):
    event_name: Annotated[str, Field(alias="eventName")]
    event_source: Annotated[str, Field(alias="eventSource")]
    s3: _Entity

    @property
    def key(self) -> str:
        key = self.s3.object.key
        return key if self.event_source == _RAW_KEY_SOURCE else unquote_plus(key)

    @property
    def is_creation(self) -> bool:
        return self.event_name.removeprefix("s3:").startswith(_CREATED)


class RecordsNotification(BaseModel):
    """A document with a list of records; everything else in it is of no interest.

    However many there are: the size of a request is bounded, and a store that is told no sends the same again for ever.
    """

    records: Annotated[list[_Record], Field(alias="Records")]

    def created(self, bucket: str) -> Iterator[ObjectCreated]:
        """Give the layers that the records announce in a bucket."""
        for record in self.records:
            if record.is_creation and record.s3.bucket.name == bucket:
                layer = layer_created(record.key)
                if layer is not None:
                    yield layer
