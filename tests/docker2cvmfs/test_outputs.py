"""Files that thin images are written to."""

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from services.common.layout import LayerLayout
from services.common.repository_name import RepositoryName
from services.docker2cvmfs.errors import OutputError
from services.docker2cvmfs.outputs import docker_archive, oci_archive, write_file
from services.registry.platform import Platform
from services.thin_image.image import build_index, build_thin_image
from tests.support.originals import ARM64, original_image

REPOSITORY = RepositoryName("test.cern.ch")
VERSION: dict[str, Any] = {"os.version": "1"}


def test_the_same_image_gives_the_same_docker_archive() -> None:
    one, other = (build_thin_image(original_image(), REPOSITORY, LayerLayout.FLAT) for _ in range(2))
    assert docker_archive(one, "a:b") == docker_archive(other, "a:b")


def test_an_oci_layout_holds_every_platform() -> None:
    # As of many images for arm: only the index that the original was found in has the variant.
    platforms = (ARM64, Platform("linux", "amd64"), Platform("linux", "arm", "v6"))
    originals = (
        original_image(platform=platform, architecture=platform.architecture, variant=None, **VERSION)
        for platform in platforms
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
