"""Webhooks of Harbor, in its own payload and as CloudEvents (from 2.8 on).

Source: goharbor/website, "Configure Webhook Notifications"; goharbor/harbor (src/controller/event, src/pkg/notifier).
"""

import re
from collections.abc import Iterator
from typing import Annotated, Final

from pydantic import Field

from services.converter.hints.dialects.wire import validated, whole
from services.converter.hints.model import Delivery, Reading, identity_of
from services.registry.wire import WireObject

__all__ = ["read_harbor"]

_CHANGES: Final = frozenset({"PUSH_ARTIFACT", "DELETE_ARTIFACT", "harbor.artifact.pushed", "harbor.artifact.deleted"})
_REPLICATIONS: Final = frozenset({"REPLICATION", "harbor.replication.status.changed"})

_NAME_AND_TAG = re.compile(r"([^:@\s]{1,255}):([^:@\s]{1,128})(?:\s.*)?", re.DOTALL)
"""Some releases write a count behind the tag."""


class _Resource(WireObject):
    tag: str = ""


class _Repository(WireObject):
    repo_full_name: str = ""


class _Artifact(WireObject):
    name_tag: str = ""


class _Destination(WireObject):
    namespace: str = ""


class _Replication(WireObject):
    dest_resource: _Destination = Field(default_factory=_Destination)
    successful_artifact: Annotated[list[_Artifact], Field(max_length=1000)] = Field(default_factory=list)

    def named(self) -> Iterator[tuple[str, str]]:
        """Give the repositories and tags that were written."""
        for artifact in self.successful_artifact:
            match = _NAME_AND_TAG.fullmatch(artifact.name_tag)
            if match is not None:
                inside = match[1].startswith(f"{self.dest_resource.namespace}/")
                yield match[1] if inside else f"{self.dest_resource.namespace}/{match[1]}", match[2]


class _Data(WireObject):
    resources: Annotated[list[_Resource], Field(max_length=1000)] = Field(default_factory=list)
    repository: _Repository = Field(default_factory=_Repository)
    replication: _Replication = Field(default_factory=_Replication)

    def named(self) -> Iterator[tuple[str, str]]:
        """Give the repositories and tags that were pushed or deleted."""
        for resource in self.resources:
            # What has no tag is told by its digest there.
            if not resource.tag.startswith("sha256:"):
                yield self.repository.repo_full_name, resource.tag


class _Payload(WireObject):
    type: str
    event_data: _Data | None = None
    """Of Harbor's own form."""
    data: _Data | None = None
    """Of a CloudEvent."""
    id: str = ""
    """Of a CloudEvent."""


def read_harbor(delivery: Delivery) -> Reading:
    """Read a webhook.

    Raises
    ------
    PayloadError
        It is none.
    """
    payload = validated(_Payload, delivery.document, "a webhook of Harbor")
    content = payload.event_data or payload.data or _Data()
    if payload.type in _CHANGES:
        return whole(delivery.registry, content.named(), identity_of(payload.id))
    if payload.type in _REPLICATIONS:
        return whole(delivery.registry, content.replication.named(), identity_of(payload.id))
    return Reading(ignored=1)
