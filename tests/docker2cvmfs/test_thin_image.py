"""What thin images are made of."""

import hashlib
import io
import json
import os
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.common.archive.model import MediaType
from services.common.digest import Digest
from services.common.errors import InvalidValueError
from services.common.layout import LayerLayout
from services.common.repository_name import RepositoryName
from services.docker2cvmfs.errors import OutputError
from services.docker2cvmfs.outputs import docker_archive, oci_archive, write_file
from services.docker2cvmfs.thin_image import (
    LABEL_DIGEST,
    LABEL_ORIGIN,
    LABEL_REPOSITORY,
    build_index,
    build_thin_image,
    describe,
)
from services.registry.errors import UnsupportedImageError
from services.registry.images import Image, ImageLayer
from services.registry.platform import Platform
from services.registry.reference import ImageReference

REPOSITORY = RepositoryName("test.cern.ch")
CONFIG: dict[str, Any] = {
    "architecture": "arm64",
    "os": "linux",
    "variant": "v8",
    "created": "2024-02-03T04:05:06.789Z",
    "author": "somebody",
    "config": {
        "User": "12:34",
        "Env": ["PATH=/bin", "KEY=\u00fc"],
        "Cmd": ["-c"],
        "Entrypoint": ["/bin/sh"],
        "WorkingDir": "/srv",
        "Labels": {"org.example.label": "kept"},
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/data": {}},
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 5},
        "StopSignal": "SIGUSR1",
        "Shell": ["/bin/ash", "-ec"],
        "OnBuild": ["RUN true"],
        "ArgsEscaped": True,
    },
    "history": [{"created_by": "one"}, {"created_by": "two", "empty_layer": True}],
    "moby.buildkit.cache.v0": "of the layers",
}


VERSION: dict[str, Any] = {"os.version": "1"}
_ARM64 = Platform("linux", "arm64", "v8")


def _image(count: int = 2, *, platform: Platform = _ARM64, **changes: Any) -> Image:  # noqa: ANN401 - parts of a JSON document
    layers = tuple(
        ImageLayer(
            digest=Digest(hashlib.sha256(b"%d" % number).hexdigest()),
            diff_id=Digest("d" * 64),
            size=number,
            media_type=MediaType.TAR_GZIP,
        )
        for number in range(count)
    )
    return Image(
        reference=ImageReference.parse("ubuntu"),
        platform=platform,
        manifest=b"{}",
        manifest_media_type="application/vnd.oci.image.manifest.v1+json",
        manifest_digest=Digest("a" * 64),
        config=json.dumps({**CONFIG, "rootfs": {"type": "layers", "diff_ids": []}, **changes}).encode(),
        config_digest=Digest("c" * 64),
        layers=layers,
    )


def test_the_descriptor_has_the_published_form() -> None:
    first, second = (layer.digest for layer in _image().layers)
    assert describe(_image(), REPOSITORY, LayerLayout.FLAT).encode().decode() == (
        "{\n"
        '  "version": "1.0",\n'
        '  "origin": "library/ubuntu:latest@https://registry-1.docker.io/v2",\n'
        '  "layers": [\n'
        f'    {{\n      "digest": "{first}",\n      "url": "cvmfs://test.cern.ch/{first}"\n    }},\n'
        f'    {{\n      "digest": "{second}",\n      "url": "cvmfs://test.cern.ch/{second}"\n    }}\n'
        "  ]\n"
        "}\n"
    )


def test_the_layout_of_unpacked_cern_ch() -> None:
    (layer,) = describe(_image(1), RepositoryName("unpacked.cern.ch"), LayerLayout.DUCC).layers
    digest = layer.digest
    assert layer.url == f"cvmfs://unpacked.cern.ch/.layers/{digest[:2]}/{digest}/layerfs"


def test_more_layers_than_can_be_stacked_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="501 layers"):
        describe(_image(501), REPOSITORY, LayerLayout.FLAT)


def test_an_image_without_layers_is_refused() -> None:
    """A descriptor without layers would be an ordinary file."""
    with pytest.raises(UnsupportedImageError, match=r"library/ubuntu.* has no layers"):
        describe(_image(0), REPOSITORY, LayerLayout.FLAT)


def test_all_configuration_is_kept() -> None:
    thin = build_thin_image(_image(), REPOSITORY, LayerLayout.FLAT)
    config = json.loads(thin.config.content)
    labels = config["config"].pop("Labels")
    assert labels == {
        "org.example.label": "kept",
        LABEL_ORIGIN: "library/ubuntu:latest@https://registry-1.docker.io/v2",
        LABEL_DIGEST: f"sha256:{'a' * 64}",
        LABEL_REPOSITORY: "test.cern.ch",
    }
    running = {name: value for name, value in CONFIG["config"].items() if name != "Labels"}
    assert config.pop("config") == running
    assert config.pop("rootfs") == {"type": "layers", "diff_ids": [thin.layer.digest.oci]}
    history = config.pop("history")
    assert [entry.get("empty_layer", False) for entry in history] == [True, True, False]
    assert history[-1]["created"] == CONFIG["created"]
    kept = ("architecture", "os", "variant", "created", "author")
    assert config == {name: CONFIG[name] for name in kept}


@pytest.mark.parametrize("running", [None, {}, {"Labels": None}])
def test_an_image_without_configuration_gets_labels_all_the_same(running: dict[str, Any] | None) -> None:
    thin = build_thin_image(_image(config=running, history=None), REPOSITORY, LayerLayout.FLAT)
    config = json.loads(thin.config.content)
    assert set(config["config"]) == {"Labels"}
    assert len(config["history"]) == 1


def test_odd_values_of_a_configuration_are_kept() -> None:
    running = {"Env": ["HALF=\ud800", "WHOLE=\U0001f600"], "Future": [1.5, 12345678901234567890, None]}
    thin = build_thin_image(_image(config=running, history=[None]), REPOSITORY, LayerLayout.FLAT)
    config = json.loads(thin.config.content)
    assert {name: config["config"][name] for name in running} == running
    assert config["history"][0] == {"empty_layer": True}


def test_the_layer_holds_the_descriptor_and_nothing_else() -> None:
    thin = build_thin_image(_image(), REPOSITORY, LayerLayout.FLAT)
    with tarfile.open(fileobj=io.BytesIO(thin.layer.content)) as archive:
        (member,) = archive.getmembers()
        file = archive.extractfile(member)
        assert file is not None
        assert file.read() == thin.descriptor.encode()
    assert (member.name, member.mode, member.uid, member.gid, member.mtime) == ("thin.json", 0o644, 0, 0, 0)


def test_the_same_image_gives_the_same_bytes() -> None:
    # The order of a JSON object's members is nobody's business.
    image = _image()
    shuffled = json.dumps(dict(reversed(json.loads(image.config).items()))).encode()
    assert shuffled != image.config
    one = build_thin_image(image, REPOSITORY, LayerLayout.FLAT)
    other = build_thin_image(replace(image, config=shuffled), REPOSITORY, LayerLayout.FLAT)
    assert one.manifest == other.manifest
    assert docker_archive(one, "a:b") == docker_archive(other, "a:b")
    # Another version that makes other bytes would give every thin image a new digest: it says so in CHANGELOG.md.
    assert one.manifest.digest == "7dd2ec97a3760fa00a369ef4d2e6a9412a5efd0238cfb4f79f90d78d1baa9361"


def test_an_oci_layout_holds_every_platform() -> None:
    # As of many images for arm: only the index that the original was found in has the variant.
    platforms = (_ARM64, Platform("linux", "amd64"), Platform("linux", "arm", "v6"))
    originals = (
        _image(platform=platform, architecture=platform.architecture, variant=None, **VERSION) for platform in platforms
    )
    images = [build_thin_image(original, REPOSITORY, LayerLayout.FLAT) for original in originals]
    with tarfile.open(fileobj=io.BytesIO(oci_archive(images, "both"))) as archive:
        contents = {member.name: archive.extractfile(member) for member in archive}
        read = {name: file.read() for name, file in contents.items() if file is not None}
    for name, content in read.items():
        if name.startswith("blobs/"):
            assert name == f"blobs/sha256/{hashlib.sha256(content).hexdigest()}"
    (top,) = json.loads(read["index.json"])["manifests"]
    assert top["digest"] == build_index(images).digest.oci
    index = json.loads(read[f"blobs/sha256/{top['digest'][7:]}"])
    assert [entry["platform"] for entry in index["manifests"]] == [
        {"architecture": "arm64", "os": "linux", "variant": "v8", "os.version": "1"},
        {"architecture": "amd64", "os": "linux", "os.version": "1"},
        {"architecture": "arm", "os": "linux", "variant": "v6", "os.version": "1"},
    ]
    for entry in index["manifests"]:
        assert f"blobs/sha256/{entry['digest'][7:]}" in read


def test_an_image_that_is_thin_already_is_refused() -> None:
    """Its one layer is its descriptor: an image of that would have nothing to run."""
    thin = build_thin_image(_image(), REPOSITORY, LayerLayout.FLAT)
    told = (
        r"ubuntu:latest is a thin image already, with its layers in 'test.cern.ch': use it as it is, or convert what "
        r"it was made from, 'library/ubuntu:latest@https://registry-1.docker.io/v2'"
    )
    with pytest.raises(UnsupportedImageError, match=told):
        build_thin_image(replace(_image(1), config=thin.config.content), REPOSITORY, LayerLayout.FLAT)


async def test_what_a_link_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "old.tar").write_bytes(b"old")
    (tmp_path / "link.tar").symlink_to("old.tar")
    await write_file(tmp_path / "link.tar", b"new")
    assert (tmp_path / "link.tar").is_symlink()
    assert (tmp_path / "old.tar").read_bytes() == b"new"
    assert len(list(tmp_path.iterdir())) == 2


async def test_what_is_no_file_is_written_to_and_stays(tmp_path: Path) -> None:
    """As `/dev/stdout` or `/dev/null`, which a file in their place would take from the whole machine."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        await write_file(pipe, b"content")
        assert os.read(reader, 100) == b"content"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    with pytest.raises(OutputError, match=r"cannot write .*: Is a directory"):
        await write_file(tmp_path, b"content")
