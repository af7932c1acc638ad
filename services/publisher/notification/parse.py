"""From the body of a request to the layers it announces, whatever the dialect."""

import json
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from services.publisher.errors import NotificationError, UnknownDialectError
from services.publisher.notification.model import ObjectCreated
from services.publisher.notification.s3_records import RecordsNotification
from services.publisher.notification.seaweedfs import FilerNotification

__all__ = ["parse_notification"]

_SHOWN_PROBLEMS = 5
Notification = TypeVar("Notification", bound=BaseModel)


def parse_notification(body: bytes, *, bucket: str) -> tuple[ObjectCreated, ...]:
    """Read a notification.

    Parameters
    ----------
    body
        The request's body, of bounded size.
    bucket
        The bucket that holds layers; events of other buckets announce nothing.

    Returns
    -------
    tuple
        The announced layers, each once. Deletions and objects that are no layers are nothing to announce.

    Raises
    ------
    NotificationError
        The body is not JSON.
    UnknownDialectError
        It is in no known dialect, or breaks its dialect's form.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NotificationError(f"the body is not JSON: {error}") from None
    match document:
        case {"Event": "s3:TestEvent"} | {"Records": None}:
            # With the first, AWS asks whether somebody is there; the second is an empty list, as Go writes it.
            return ()
        case {"Records": _}:
            events = _validated(RecordsNotification, document, "S3 records").created(bucket)
        case {"event_type": _}:
            events = _validated(FilerNotification, document, "a SeaweedFS event").created(bucket)
        case _:
            raise UnknownDialectError(
                "the body is in no known dialect: an object with Records (MinIO, Ceph RGW) or event_type (SeaweedFS)"
            )
    return tuple(dict.fromkeys(events))


def _validated(form: type[Notification], document: object, dialect: str) -> Notification:
    try:
        return form.model_validate(document)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, detail['loc'])) or 'document'}: {detail['msg']}"
            for detail in error.errors(include_url=False, include_input=False)[:_SHOWN_PROBLEMS]
        )
        raise UnknownDialectError(f"the body looks like {dialect}, but {problems}") from None
