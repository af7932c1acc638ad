"""What the documents of an image say about each platform."""

import hashlib
import json
from pathlib import Path

import pytest

from services.common.image_name import ImageName
from services.repository.errors import ImageRefusedError
from services.repository.image_platforms import platform_images
from services.repository.images import ImageDocuments
from tests.support.images import image_of_layers
from tests.support.publisher import make_layer

_NAME = "localhost:5000/ns/tool:v1"


def test_the_platform_that_has_the_name_comes_first() -> None:
    image = image_of_layers(_NAME, ("arm64:v8", ()), ("amd64", ()), ("arm:v7", ()))
    found = platform_images(image)
    assert [(each.machine, each.directory) for each in found] == [
        ("arm64:v8", _NAME),
        ("amd64", f".multiarch/amd64/{_NAME}"),
        ("arm:v7", f".multiarch/arm:v7/{_NAME}"),
    ]
    assert [each.platform for each in found] == ["linux/arm64/v8", "linux/amd64", "linux/arm/v7"]


def test_layers_are_those_of_the_manifest_with_the_diff_ids_of_the_configuration(tmp_path: Path) -> None:
    base, top = make_layer(tmp_path, "base"), make_layer(tmp_path, "top")
    layers = [base, top, base]
    (found,) = platform_images(image_of_layers(_NAME, ("amd64", layers)))
    assert [(each.digest, each.diff_id, each.size, each.media_type) for each in found.layers] == [
        (each.digest, each.diff_id, each.size, each.media_type.value) for each in layers
    ]
    assert found.config_digest == hashlib.sha256(found.config).hexdigest()
    assert found.manifest_digest == hashlib.sha256(found.manifest).hexdigest()
    assert found.index is None


def test_an_index_belongs_to_all_platforms() -> None:
    image = image_of_layers(_NAME, ("amd64", ()), ("arm64", ()))
    files = {**image.files, f"{_NAME}/index.json": b"{}"}
    assert [each.index for each in platform_images(ImageDocuments(name=image.name, files=files))] == [b"{}", b"{}"]


def _changed(directory: Path, path: str, **fields: object) -> ImageDocuments:
    """Return an image one of whose documents says something else, the configuration's digest put right."""
    files = dict(image_of_layers(_NAME, ("amd64", [make_layer(directory, "base")])).files)
    files[path] = json.dumps({**json.loads(files[path]), **fields}).encode()
    manifest = json.loads(files[f"{_NAME}/manifest.json"])
    if path.endswith("config.json"):
        manifest["config"]["digest"] = f"sha256:{hashlib.sha256(files[path]).hexdigest()}"
        files[f"{_NAME}/manifest.json"] = json.dumps(manifest).encode()
    return ImageDocuments(name=ImageName(_NAME), files=files)


@pytest.mark.parametrize(
    ("file", "fields", "says"),
    [
        ("manifest", {"schemaVersion": 1}, "schemaVersion"),
        ("manifest", {"layers": [{"mediaType": "x", "digest": "sha256:x", "size": 1}]}, "layers.0.digest"),
        ("manifest", {"layers": [{"mediaType": "x", "digest": f"sha256:{'0' * 64}", "size": -1}]}, "layers.0.size"),
        ("manifest", {"layers": []}, "0 layers and the configuration 1 diff IDs"),
        ("manifest", {"config": {"mediaType": "x", "digest": f"sha256:{'0' * 64}", "size": 1}}, "publish it again"),
        ("config", {"rootfs": {"diff_ids": ["sha256:../../etc"]}}, "rootfs.diff_ids.0"),
        ("config", {"architecture": "../x"}, "architecture"),
        ("config", {"architecture": ""}, "which processor"),
        ("config", {"variant": ".."}, "which processor"),
    ],
)
def test_documents_that_are_no_image_are_refused(
    tmp_path: Path, file: str, fields: dict[str, object], says: str
) -> None:
    with pytest.raises(ImageRefusedError, match=says):
        platform_images(_changed(tmp_path, f"{_NAME}/{file}.json", **fields))


@pytest.mark.parametrize("file", ["manifest", "config"])
def test_a_document_that_is_missing_is_named(file: str) -> None:
    image = image_of_layers(_NAME, ("amd64", ()))
    files = {path: content for path, content in image.files.items() if not path.endswith(f"{file}.json")}
    with pytest.raises(ImageRefusedError, match=f"{file}.json is missing"):
        platform_images(ImageDocuments(name=image.name, files=files))
