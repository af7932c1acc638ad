"""Documents from outside, kind by kind: who reads them, what is of their form, and what does harm to readers."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from services.common.descriptor import ThinDescriptor
from services.common.errors import InvalidValueError, SuiteError
from services.common.sidecar import LayerSidecar
from services.converter.hints.dialects.parse import Kind, read_delivery
from services.converter.hints.errors import PayloadError
from services.converter.provenance.payload import Payload
from services.converter.wishlist.tree import TreeError, parse_tree
from services.publisher.errors import PublisherError
from services.publisher.notification.parse import parse_notification
from services.registry.errors import RegistryError
from services.registry.manifests import media_type_of, read_config, read_index, read_manifest
from services.registry.referrers import read_referrers
from services.repository.errors import ImageAdditionError, ImageRefusedError
from services.repository.flat.configuration import read_configuration
from services.repository.podman.rows import read_images, read_layers
from tests.support.hints import distribution_event, envelope, github_webhook, harbor_webhook
from tests.support.notifications import ceph_event, minio_event, seaweedfs_event

__all__ = ["DOCUMENTS", "NO_JSON", "ODD_JSON", "Document"]

_HEX: Final = "1be7f2b886e89a58e59c4e685fcc5905a26ddef3201f290b96f1eff7d778e122"
_OCI: Final = f"sha256:{_HEX}"


@dataclass(frozen=True)
class Document:
    """One kind of document."""

    subject: str
    """What it is, for people."""
    read: Callable[[bytes], object]
    error: type[SuiteError]
    """What its reader says of whatever is no such document."""
    seeds: Sequence[bytes]
    """Such documents."""
    json: bool = True
    """Whether it is JSON: what is none must be refused."""


def _json(document: object) -> bytes:
    return json.dumps(document).encode()


NO_JSON: Final[Mapping[str, bytes]] = {
    "nothing": b"",
    "a brace": b"{",
    "zeros": bytes(100),
    "no UTF-8": b'{"a": "\xff\xfe"}',
    "two documents": b"{} {}",
    "a comma too many": b'{"a": 1,}',
    "100,000 lists in one another": b"[" * 100_000,
    "100,000 objects in one another": b'{"a":' * 100_000,
    "quotes of another kind": b"{'a': 1}",
    "a page": b"<html><body>Sorry</body></html>",
    "a text without end": b'"' + b"a" * 1_000_000,
}
"""What is no JSON at all, and must be refused by all who read JSON."""

ODD_JSON: Final[Mapping[str, bytes]] = {
    "null": b"null",
    "true": b"true",
    "a number": b"1",
    "a number of 5,000 digits": b"9" * 5_000,
    "a number beyond all": b"1e999",
    "no number": b"NaN",
    "a text": b'"text"',
    "half a character": b'"\\ud800"',
    "half a character as a name": b'{"\\ud800": "\\udfff"}',
    "a list": b"[]",
    "lists": b"[[], {}, null]",
    "an object": b"{}",
    "a name twice": b'{"version": "1", "version": "1"}',
    "100,000 names": b"{" + b", ".join(b'"n%d": 0' % number for number in range(100_000)) + b"}",
    "a name of a megabyte": b'{"' + b"n" * 1_000_000 + b'": 1}',
    "900 lists in one another": b"[" * 900 + b"]" * 900,
}
"""What is JSON, or nearly, and none of the documents."""

_THIN: Final = {
    "version": "1.0", "min_version": "1.0", "origin": "x:1@https://r.example.org", "comment": "c",
    "layers": [{"digest": _HEX, "url": f"cvmfs://r.example.org/{_HEX}"}],
}  # fmt: skip
_SIDECAR: Final = {
    "version": "1", "digest": _HEX, "diff_id": _HEX, "archive_size": 1, "uncompressed_size": 2, "tree_size": 3,
    "entries": 4, "whiteouts": ["a/b%41", "c"], "opaque": ["", "d"], "notes": ["n"],
}  # fmt: skip
_MANIFEST: Final = {
    "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": _OCI, "size": 10},
    "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": _OCI, "size": 1}],
}  # fmt: skip
_INDEX: Final = {
    "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
    "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": _OCI, "size": 10,
        "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}, "annotations": {"a": "b"},
    }],
}  # fmt: skip
_CONFIG: Final = {
    "os": "linux", "architecture": "amd64", "created": "2024-01-01T00:00:00Z",
    "config": {"Env": ["A=b", "C"], "Entrypoint": ["/e"], "Cmd": ["c"], "Labels": {"l": "m"}},
    "rootfs": {"type": "layers", "diff_ids": [_OCI]}, "history": [{"created_by": "x"}],
}  # fmt: skip
_QUAY: Final = {"repository": "physics/tool", "updated_tags": ["v1"], "name": "tool"}
_HUB: Final = {"push_data": {"tag": "v1"}, "repository": {"repo_name": "physics/tool"}}
_RESOURCE: Final = {"digest": _OCI, "tag": "v1", "resource_url": "x/physics/tool:v1"}
_PAYLOAD: Final = {
    "critical": {
        "identity": {"docker-reference": "x/y"}, "image": {"docker-manifest-digest": _OCI},
        "type": "cosign container image signature",
    },
}  # fmt: skip
_LAYER_ROW: Final = {
    "id": _HEX, "parent": _HEX, "created": "2024-01-01T00:00:00Z", "compressed-diff-digest": _OCI,
    "compressed-size": 1, "diff-digest": _OCI, "diff-size": 2, "compression": 2,
}  # fmt: skip
_IMAGE_ROW: Final = {
    "id": _HEX, "digest": _OCI, "names": ["x/y:1"], "layer": _HEX, "metadata": "{}", "big-data-names": ["manifest"],
    "big-data-sizes": {"manifest": 1}, "big-data-digests": {"manifest": _OCI}, "created": "2024-01-01T00:00:00Z",
}  # fmt: skip
_WISHES: Final = b"""version: 2
defaults: &d {platforms: [linux/amd64]}
images:
  - name: registry.example.org/physics/*:v1
    <<: *d
"""
_LAUGHS: Final = b"a0: &a0 [x]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (number, number, b", ".join([b"*a%d" % (number - 1)] * 10)) for number in range(1, 12)
)
_GITHUB: Final = {"X-GitHub-Event": "registry_package", "X-GitHub-Delivery": "72d3162e"}


def _delivered(kind: Kind) -> Callable[[bytes], object]:
    return lambda body: read_delivery(kind, body, registry="registry.example.org", headers=_GITHUB)


def _documents(content: bytes) -> list[Any]:
    """Read what a registry says is a manifest, as whatever it may be."""
    return [
        media_type_of(content, "", where="manifest"),
        (read_index if b"manifests" in content else read_manifest)(content, where="manifest"),
    ]


_WEBHOOKS: Final[Mapping[Kind, Sequence[bytes]]] = {
    Kind.DISTRIBUTION: [envelope(distribution_event(), distribution_event(action="delete"))],
    Kind.HARBOR: [
        harbor_webhook("PUSH_ARTIFACT", _RESOURCE),
        harbor_webhook("harbor.artifact.deleted", _RESOURCE, cloud_event=True),
    ],
    Kind.QUAY: [_json(_QUAY), _json(_QUAY | {"updated_tags": {"v1": "x"}})],
    Kind.DOCKER_HUB: [_json(_HUB)],
    Kind.GITHUB: [github_webhook()],
    Kind.AZURE: [_json(distribution_event())],
}

DOCUMENTS: Final = [
    Document("descriptors of thin images", partial(ThinDescriptor.parse, where="layer"), InvalidValueError,
             [_json(_THIN)]),
    Document("sidecars of layers", partial(LayerSidecar.parse, where="layer"), InvalidValueError, [_json(_SIDECAR)]),
    Document("notifications of object stores", partial(parse_notification, bucket="layers"), PublisherError,
             [minio_event("layers", f"sha256/{_HEX}"), ceph_event("layers", f"sha256/{_HEX}", "x"),
              seaweedfs_event("layers", f"sha256/{_HEX}", event="rename")]),
    *[Document(f"webhooks, {kind}", _delivered(kind), PayloadError, seeds) for kind, seeds in _WEBHOOKS.items()],
    Document("manifests and indexes", _documents, RegistryError, [_json(_MANIFEST), _json(_INDEX)]),
    Document("configurations of images", partial(read_config, where="configuration"), RegistryError, [_json(_CONFIG)]),
    Document("configurations of flat images", read_configuration, ImageRefusedError, [_json(_CONFIG)]),
    Document("lists of what refers to an image", partial(read_referrers, where="referrers"), RegistryError,
             [_json(_INDEX)]),
    Document("payloads of signatures", Payload.read, InvalidValueError, [_json(_PAYLOAD)]),
    Document("lists of images in a store of podman's", partial(read_images, where="images.json"), ImageAdditionError,
             [_json([_IMAGE_ROW])]),
    Document("lists of layers in a store of podman's", partial(read_layers, where="layers.json"), ImageAdditionError,
             [_json([_LAYER_ROW])]),
    Document("wish lists", lambda content: parse_tree(content, "wishes.yaml"), TreeError, [_WISHES, _LAUGHS],
             json=False),
]  # fmt: skip
"""All kinds."""
