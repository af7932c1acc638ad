import json
from typing import Any

import pytest

from services.common.archive.model import MediaType
from services.common.digest import Digest
from services.registry.documents import INDEX_TYPES, MANIFEST_TYPES
from services.registry.errors import DigestMismatchError, InvalidAnswerError, UnsupportedImageError
from services.registry.images import choosable, join_layers
from services.registry.manifests import media_type_of, read_config, read_index, read_manifest
from services.registry.platform import Platform

OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker"
A, B = "a" * 64, "b" * 64


def descriptor(**changes: object) -> dict[str, Any]:
    return {"mediaType": f"{OCI}.layer.v1.tar+gzip", "digest": f"sha256:{A}", "size": 10} | changes


def manifest(**changes: object) -> bytes:
    config = descriptor(mediaType=f"{OCI}.config.v1+json")
    return json.dumps({"schemaVersion": 2, "config": config, "layers": [descriptor()]} | changes).encode()


def index(*entries: dict[str, Any], **changes: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "manifests": entries} | changes).encode()


@pytest.mark.parametrize(
    ("media_type", "form"),
    [
        (f"{DOCKER}.image.rootfs.diff.tar.gzip", MediaType.TAR_GZIP),
        (f"{DOCKER}.image.rootfs.diff.tar", MediaType.TAR),
        (f"{OCI}.layer.v1.tar", MediaType.TAR),
        (f"{OCI}.layer.v1.tar+gzip", MediaType.TAR_GZIP),
        (f"{OCI}.layer.v1.tar+zstd", MediaType.TAR_ZSTD),
    ],
)
def test_every_form_of_layer_is_known(media_type: str, form: MediaType) -> None:
    content = read_manifest(manifest(layers=[descriptor(mediaType=media_type)]), where="x")
    assert content.layers == ((Digest(A), 10, form),)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ({"size": -1}, "layers.0.size: Input should be greater than or equal to 0"),
        ({"size": 1 << 60}, "layers.0.size: Input should be less than or equal to"),
        ({"size": 1.5}, "layers.0.size"),
        ({"size": "10"}, "layers.0.size"),
        ({"size": True}, "layers.0.size"),
        ({"digest": "sha256:../../etc/passwd"}, "layers.0.digest"),
        ({"digest": "md5:00"}, "layers.0.digest"),
    ],
)
def test_bad_values_are_refused_by_their_place(layer: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidAnswerError, match=f"x is not valid: {said}.*push the image anew"):
        read_manifest(manifest(layers=[descriptor(**layer)]), where="x")


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ({"mediaType": f"{DOCKER}.image.rootfs.foreign.diff.tar.gzip"}, "layer 1 is a foreign layer"),
        ({"mediaType": f"{OCI}.layer.nondistributable.v1.tar+gzip"}, "layer 1 is a foreign layer"),
        ({"urls": ["https://example.org/layer"]}, "layer 1 is a foreign layer"),
        ({"mediaType": f"{OCI}.layer.v1.tar+gzip+encrypted"}, "tar, tar.gzip and tar.zstd can be converted"),
    ],
)
def test_layers_that_cannot_be_had_are_refused(layer: dict[str, object], said: str) -> None:
    with pytest.raises(UnsupportedImageError, match=said):
        read_manifest(manifest(layers=[descriptor(**layer)]), where="x")


def test_what_is_no_container_image_is_refused() -> None:
    with pytest.raises(UnsupportedImageError, match="no container image, its configuration is 'application/helm'"):
        read_manifest(manifest(config=descriptor(mediaType="application/helm")), where="x")
    with pytest.raises(InvalidAnswerError, match="configuration of 104857600 bytes, at most"):
        read_manifest(manifest(config=descriptor(mediaType=f"{OCI}.config.v1+json", size=100 << 20)), where="x")


def test_an_index_leaves_out_attestations() -> None:
    image = descriptor(mediaType=MANIFEST_TYPES[1], platform={"os": "linux", "architecture": "arm64", "variant": "v8"})
    attestation = descriptor(
        mediaType=MANIFEST_TYPES[0],
        platform={"os": "unknown", "architecture": "unknown"},
        annotations={"vnd.docker.reference.type": "attestation-manifest"},
    )
    [found] = read_index(index(image, attestation), where="x")
    assert str(found.platform) == "linux/arm64/v8"


@pytest.mark.parametrize(
    "entry",
    [
        {"mediaType": INDEX_TYPES[0], "artifactType": "application/spdx+json"},
        {"mediaType": "application/vnd.example.future+json"},
        {"mediaType": MANIFEST_TYPES[0], "artifactType": "application/spdx+json"},
        {"mediaType": MANIFEST_TYPES[0], "platform": {"os": "unknown", "architecture": "unknown"}},
        {"mediaType": MANIFEST_TYPES[0]},
    ],
)
def test_an_index_may_name_anything_beside_its_images(entry: dict[str, object]) -> None:
    platform = {"os": "linux", "architecture": "arm64"}
    image = descriptor(mediaType=MANIFEST_TYPES[0], artifactType=f"{OCI}.config.v1+json", platform=platform)
    [found] = choosable(read_index(index(descriptor(**entry), image), where="x"))
    assert str(found.platform) == "linux/arm64"


def test_an_index_of_something_else_is_refused() -> None:
    with pytest.raises(UnsupportedImageError, match="names no image but 'application/wasm': name the"):
        read_index(index(descriptor(mediaType="application/wasm")), where="x")
    with pytest.raises(UnsupportedImageError, match="names no image but nothing"):
        read_index(index(), where="x")
    with pytest.raises(InvalidAnswerError, match="a manifest of 104857600 bytes"):
        read_index(index(descriptor(mediaType=MANIFEST_TYPES[0], size=100 << 20)), where="x")


def test_media_types_come_from_the_document_and_the_registry() -> None:
    assert media_type_of(manifest(), "", where="x") == MANIFEST_TYPES[0]
    assert media_type_of(index(), "", where="x") == INDEX_TYPES[0]
    assert media_type_of(manifest(), MANIFEST_TYPES[1], where="x") == MANIFEST_TYPES[1]
    with pytest.raises(InvalidAnswerError, match="and the registry says"):
        media_type_of(manifest(mediaType=MANIFEST_TYPES[0]), MANIFEST_TYPES[1], where="x")
    with pytest.raises(UnsupportedImageError, match="no container image but 'application/x'"):
        media_type_of(b"{}", "application/x", where="x")


def test_schema_1_is_refused_with_what_to_do() -> None:
    with pytest.raises(UnsupportedImageError, match=r"schema 1 manifest.*push it again with a current Docker"):
        media_type_of(
            b'{"schemaVersion": 1, "fsLayers": []}', f"{DOCKER}.distribution.manifest.v1+prettyjws", where="x"
        )


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b"<html>"])
def test_what_is_no_document_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidAnswerError, match="x is not"):
        media_type_of(content, MANIFEST_TYPES[0], where="x")


def test_a_document_that_is_both_is_refused() -> None:
    with pytest.raises(InvalidAnswerError, match="an image and an index"):
        read_manifest(manifest(manifests=[]), where="x")


def test_a_configuration_says_platform_and_diff_ids() -> None:
    document = {
        "os": "linux",
        "architecture": "arm",
        "variant": "v6",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{B}"]},
    }
    platform, diff_ids = read_config(json.dumps(document).encode(), where="x")
    assert (str(platform), diff_ids) == ("linux/arm/v6", (Digest(B),))
    with pytest.raises(InvalidAnswerError, match="does not say what platform"):
        read_config(json.dumps(document | {"os": ""}).encode(), where="x")


def test_null_is_nothing_as_go_writes_it() -> None:
    assert read_manifest(manifest(layers=None, mediaType=None), where="x").layers == ()
    platform = {"os": "linux", "architecture": "arm", "variant": None}
    entry = descriptor(mediaType=MANIFEST_TYPES[0], platform=platform, urls=None, annotations={"a": None})
    assert [str(found.platform) for found in read_index(index(entry), where="x")] == ["linux/arm"]
    document = {**platform, "config": None, "history": None, "rootfs": {"type": "layers", "diff_ids": None}}
    assert read_config(json.dumps(document).encode(), where="x") == (Platform("linux", "arm"), ())


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ({"config": ["Cmd"]}, "config: Input should be a valid dictionary"),
        ({"config": {"Labels": ["a=b"]}}, "config.Labels: Input should be a valid dictionary"),
        ({"history": "one"}, "history: Input should be a valid list"),
        ({"history": ["one"]}, "history.0: Input should be a valid dictionary"),
        ({"created": float("nan")}, "is not JSON"),
    ],
)
def test_a_configuration_has_the_form_that_a_thin_image_is_made_of(field: dict[str, object], said: str) -> None:
    document = {"os": "linux", "architecture": "arm", "rootfs": {"type": "layers"}, **field}
    with pytest.raises(InvalidAnswerError, match=said):
        read_config(json.dumps(document).encode(), where="x")


def test_a_number_that_json_cannot_hold_is_refused() -> None:
    with pytest.raises(InvalidAnswerError, match="is not JSON"):
        media_type_of(b'{"layers": [], "x": 1e999}', "", where="x")


def test_manifest_and_configuration_have_the_same_layers() -> None:
    one = (Digest(A), 10, MediaType.TAR)
    assert len(join_layers((one, one), (Digest(B), Digest(B)), where="x")) == 2
    with pytest.raises(DigestMismatchError, match="2 layers and its configuration 1 diff IDs"):
        join_layers((one, one), (Digest(B),), where="x")
    with pytest.raises(DigestMismatchError, match="two sizes or two diff IDs"):
        join_layers((one, one), (Digest(B), Digest(A)), where="x")
