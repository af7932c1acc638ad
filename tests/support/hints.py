"""What registries send when something in them changes, and who may send it."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.converter.model import Hint

__all__ = [
    "DIGEST",
    "SECRETS",
    "Everything",
    "distribution_event",
    "envelope",
    "github_webhook",
    "harbor_webhook",
    "hint",
    "signature_of",
    "write_endpoints",
]

DIGEST: Final = "sha256:" + "ab" * 32

SECRETS: Final[Mapping[str, str]] = {
    kind: f"secret-of-{kind}-0123456789"
    for kind in ("distribution", "harbor", "quay", "docker-hub", "github", "azure", "atlas", "lhcb")
}
"""Secrets by the names of endpoints."""

_REGISTRIES: Final = {
    "distribution": "registry.example.org:5000",
    "harbor": "harbor.example.org",
    "azure": "x.azurecr.io",
}


@dataclass(frozen=True, slots=True)
class Everything:
    """Wishes for everything but what is named."""

    unwished: str = "unwished"

    def matches(self, hint: Hint) -> bool:
        """Whether it is wished."""
        return self.unwished not in hint.repository


def hint(name: str) -> Hint:
    """Return the hint about `REGISTRY/REPOSITORY:TAG`."""
    registry, _, rest = name.partition("/")
    repository, _, tag = rest.partition(":")
    return Hint(registry=registry, repository=repository, tag=tag or None)


def write_endpoints(path: Path, **changes: dict[str, Any]) -> None:
    """Write a file of one endpoint of every kind and two projects; `changes` has fields of some, by name."""
    endpoints: list[dict[str, Any]] = []
    for name, secret in SECRETS.items():
        endpoint: dict[str, Any] = {"name": name, "kind": name, "secret": secret, "registry": _REGISTRIES.get(name)}
        if name in ("atlas", "lhcb"):
            endpoint |= {"kind": "sync", "names": [f"gitlab.example.org:5050/{name}/*"]}
        endpoint |= changes.get(name, {})
        endpoints.append({key: value for key, value in endpoint.items() if value is not None})
    path.write_text(json.dumps({"endpoints": endpoints}))


def distribution_event(
    repository: str = "physics/tool", tag: str | None = "v1", *, action: str = "push", **changes: object
) -> dict[str, Any]:
    """Return an event as docker-registry 2.8.3 writes it."""
    target: dict[str, Any] = {
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "size": 708,
        "digest": DIGEST,
        "length": 708,
        "repository": repository,
        "url": f"http://127.0.0.1:5000/v2/{repository}/manifests/{DIGEST}",
    }
    if tag is not None:
        target["tag"] = tag
    event: dict[str, Any] = {
        "id": hashlib.sha256(repr((repository, tag, action)).encode()).hexdigest()[:32],
        "timestamp": "2026-11-30T14:00:00.123456789Z",
        "action": action,
        "target": target,
        "request": {"id": "3a7f", "addr": "127.0.0.1:40000", "host": "elsewhere.example.org", "method": "PUT"},
        "actor": {},
        "source": {"addr": "registry:5000", "instanceID": "5b1c"},
    }
    return event | changes


def envelope(*events: dict[str, Any]) -> bytes:
    """Return the body that holds events."""
    return json.dumps({"events": events}).encode()


def harbor_webhook(kind: str, *resources: dict[str, str], cloud_event: bool = False, **data: object) -> bytes:
    """Return a webhook of Harbor, in one of its two forms."""
    content = {
        "resources": resources,
        "repository": {
            "date_created": 1680501893,
            "name": "tool",
            "namespace": "physics",
            "repo_full_name": "physics/tool",
            "repo_type": "private",
        },
        **data,
    }
    if not cloud_event:
        return json.dumps({"type": kind, "occur_at": 1680501893, "operator": "admin", "event_data": content}).encode()
    return json.dumps(
        {
            "specversion": "1.0",
            "id": "4b2f89a6-548d-4c12-9993-a1f5790b97d2",
            "source": "/projects/1/webhook/policies/3",
            "type": kind,
            "datacontenttype": "application/json",
            "time": "2026-11-30T06:44:53Z",
            "requestid": "req-1",
            "operator": "admin",
            "data": content,
        }
    ).encode()


def github_webhook(tag: str = "v1", *, event: str = "registry_package", **changes: object) -> bytes:
    """Return a webhook about a version of a package, of which most is left out."""
    package = {
        "id": 1,
        "name": "tool",
        "namespace": "Physics",
        "ecosystem": "CONTAINER",
        "package_type": "CONTAINER",
        "package_version": {
            "id": 2,
            "version": DIGEST,
            "container_metadata": {"tag": {"name": tag, "digest": DIGEST}, "labels": {}, "manifest": {}},
            "package_url": f"ghcr.io/Physics/tool:{tag}",
        },
    }
    return json.dumps({"action": "published", event: package | changes, "sender": {"login": "somebody"}}).encode()


def signature_of(body: bytes, secret: str = SECRETS["github"]) -> str:
    """Sign a body as GitHub does."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
