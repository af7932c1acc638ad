"""Notifications of CNCF Distribution (docker-registry, GitLab's registry, and others), and Azure's, which are alike.

Source: distribution/docs/content/about/notifications.md; Azure: "Azure Container Registry webhook schema reference".

An envelope holds events one by one, and a registry repeats an envelope for ever that is not accepted, with everything
that happens later behind it. So an event that cannot be read is passed over, and counted, and the others are taken.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field, ValidationError

from services.common.errors import InvalidValueError
from services.converter.hints.dialects.wire import validated
from services.converter.hints.model import Delivery, Event, Reading, identity_of, read_hint
from services.registry.wire import WireObject

__all__ = ["read_azure", "read_distribution"]

_OF_INTEREST: Final = frozenset({"push", "delete"})
"""Actions that change what a tag names; others are pull, mount, and Azure's of charts and quarantines."""


class _Target(WireObject):
    repository: str = ""
    tag: str = ""


class _Event(WireObject):
    id: str = ""
    action: str
    target: _Target


class _Envelope(WireObject):
    events: Annotated[list[Mapping[str, Any]], Field(max_length=1000)]


def read_distribution(delivery: Delivery) -> Reading:
    """Read an envelope of events.

    Raises
    ------
    PayloadError
        It is none.
    """
    events = validated(_Envelope, delivery.document, "an envelope of a registry's events").events
    return _read(events, delivery.registry)


def read_azure(delivery: Delivery) -> Reading:
    """Read the one event that Azure's registries send at a time; raises as `read_distribution`."""
    validated(_Event, delivery.document, "an event of Azure Container Registry")
    return _read([delivery.document], delivery.registry)


def _read(documents: list[Mapping[str, Any]], registry: str) -> Reading:
    found: list[Event] = []
    ignored = malformed = 0
    for document in documents:
        try:
            event = _Event.model_validate(document)
            hint = None
            # What has no tag is a blob, an image that an index names, or one half of a deletion.
            if event.action in _OF_INTEREST and event.target.tag:
                hint = read_hint(registry, event.target.repository, event.target.tag)
        except (ValidationError, InvalidValueError):
            malformed += 1
            continue
        if hint is None:
            ignored += 1
        else:
            found.append(Event(hint, identity_of(event.id)))
    return Reading(events=tuple(found), ignored=ignored, malformed=malformed)
