"""Notifications of Quay: a push names the tags that it set, and no digest.

Source: docs.quay.io, "Repository Notifications".
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from services.converter.hints.dialects.wire import validated, whole
from services.converter.hints.model import Delivery, Reading
from services.registry.wire import WireObject

__all__ = ["read_quay"]

_Tag = Annotated[str, Field(max_length=200)]


class _Notification(WireObject):
    repository: str
    updated_tags: (
        Annotated[list[_Tag], Field(max_length=1000)] | Annotated[Mapping[_Tag, Any], Field(max_length=1000)] | None
    ) = None
    """A list of tags; older releases have a map from tags to identifiers of images. Other events have none."""


def read_quay(delivery: Delivery) -> Reading:
    """Read a notification.

    Raises
    ------
    PayloadError
        It is none.
    """
    notification = validated(_Notification, delivery.document, "a notification of Quay")
    if not notification.updated_tags:
        return Reading(ignored=1)
    return whole(delivery.registry, ((notification.repository, tag) for tag in notification.updated_tags))
