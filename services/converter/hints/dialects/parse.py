"""From the body of a delivery to what it announces, by the kind of its endpoint."""

import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final

from services.converter.hints.dialects.distribution import read_azure, read_distribution
from services.converter.hints.dialects.docker_hub import read_docker_hub
from services.converter.hints.dialects.github import read_github
from services.converter.hints.dialects.harbor import read_harbor
from services.converter.hints.dialects.quay import read_quay
from services.converter.hints.errors import NotJsonError, PayloadError
from services.converter.hints.model import Delivery, Reading

__all__ = ["Kind", "parse_object", "read_delivery"]


class Kind(StrEnum):
    """Who sends to an endpoint."""

    DISTRIBUTION = "distribution"
    """CNCF Distribution, GitLab's registry, and whatever else sends their notifications."""
    HARBOR = "harbor"
    QUAY = "quay"
    DOCKER_HUB = "docker-hub"
    GITHUB = "github"
    """GitHub's container registry."""
    AZURE = "azure"
    SYNC = "sync"
    """A project's own jobs, which name an image that they have pushed."""


_DIALECTS: Final[Mapping[Kind, Callable[[Delivery], Reading]]] = {
    Kind.DISTRIBUTION: read_distribution,
    Kind.HARBOR: read_harbor,
    Kind.QUAY: read_quay,
    Kind.DOCKER_HUB: read_docker_hub,
    Kind.GITHUB: read_github,
    Kind.AZURE: read_azure,
}


def parse_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object of bounded size.

    Raises
    ------
    NotJsonError
        It is not JSON, or nested deeper than any honest one.
    PayloadError
        It is no object.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NotJsonError(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise PayloadError("the body is no JSON object")
    return document


def read_delivery(kind: Kind, body: bytes, *, registry: str, headers: Mapping[str, str]) -> Reading:
    """Read what was delivered to an endpoint.

    Parameters
    ----------
    kind
        The endpoint's kind; not `SYNC`.
    body
        The request's body, of bounded size.
    registry
        The endpoint's registry.
    headers
        The request's headers.

    Raises
    ------
    NotJsonError
        The body is not JSON.
    PayloadError
        It is not what endpoints of this kind are sent.
    """
    return _DIALECTS[kind](Delivery(document=parse_object(body), registry=registry, headers=headers))
