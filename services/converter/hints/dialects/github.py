"""Webhooks of GitHub about its container registry: the events `package` and `registry_package`, which tell the same.

Source: docs.github.com, "Webhook events and payloads".
"""

from typing import Final

from pydantic import Field

from services.converter.hints.dialects.wire import validated, whole
from services.converter.hints.model import Delivery, Reading, identity_of
from services.registry.wire import WireObject

__all__ = ["read_github"]

_EVENTS: Final = frozenset({"package", "registry_package"})
_ACTIONS: Final = frozenset({"published", "updated"})
_CONTAINER: Final = "container"


class _Tag(WireObject):
    name: str = ""


class _Metadata(WireObject):
    tag: _Tag = Field(default_factory=_Tag)


class _Version(WireObject):
    container_metadata: _Metadata = Field(default_factory=_Metadata)
    package_url: str = ""


class _Package(WireObject):
    ecosystem: str = ""
    package_type: str = ""
    package_version: _Version = Field(default_factory=_Version)


class _Webhook(WireObject):
    action: str = ""
    package: _Package | None = None
    registry_package: _Package | None = None


def read_github(delivery: Delivery) -> Reading:
    """Read a webhook; those that are not about containers, GitHub's ping among them, announce nothing.

    Raises
    ------
    PayloadError
        It is none.
    """
    if delivery.headers.get("X-GitHub-Event", "") not in _EVENTS:
        return Reading(ignored=1)
    webhook = validated(_Webhook, delivery.document, "a webhook of GitHub about a package")
    package = webhook.package or webhook.registry_package or _Package()
    tag = package.package_version.container_metadata.tag.name
    is_container = _CONTAINER in (package.ecosystem.lower(), package.package_type.lower())
    # What an index names is published too, without a tag.
    if webhook.action not in _ACTIONS or not is_container or not tag:
        return Reading(ignored=1)
    # `ghcr.io/OWNER/NAME:TAG`, with the owner's name as the owner writes it; the registry knows it in lower case.
    url = package.package_version.package_url.lower()
    host, _, path = url.partition("/")
    if host != delivery.registry.lower():
        return Reading(malformed=1)
    repository = path.partition(":")[0]
    return whole(delivery.registry, [(repository, tag)], identity_of(delivery.headers.get("X-GitHub-Delivery")))
