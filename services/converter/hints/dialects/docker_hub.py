"""Webhooks of Docker Hub: pushes only, without digests.

Source: docs.docker.com, "Webhooks" of Docker Hub.
"""

from services.converter.hints.dialects.wire import validated, whole
from services.converter.hints.model import Delivery, Reading
from services.registry.wire import WireObject

__all__ = ["read_docker_hub"]


class _Push(WireObject):
    tag: str


class _Repository(WireObject):
    repo_name: str


class _Webhook(WireObject):
    push_data: _Push
    repository: _Repository


def read_docker_hub(delivery: Delivery) -> Reading:
    """Read a webhook.

    Raises
    ------
    PayloadError
        It is none.
    """
    webhook = validated(_Webhook, delivery.document, "a webhook of Docker Hub")
    return whole(delivery.registry, [(webhook.repository.repo_name, webhook.push_data.tag)])
