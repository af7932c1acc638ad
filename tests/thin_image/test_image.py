"""What thin images are made of."""

import io
import json
import tarfile
from dataclasses import replace
from typing import Any

import pytest

from services.common.errors import InvalidValueError
from services.common.layout import LayerLayout
from services.common.repository_name import RepositoryName
from services.registry.errors import UnsupportedImageError
from services.thin_image.image import (
    LABEL_DIGEST,
    LABEL_ORIGIN,
    LABEL_REPOSITORY,
    build_thin_image,
    describe,
)
from tests.support.originals import CONFIG, original_image

REPOSITORY = RepositoryName("test.cern.ch")


def test_the_descriptor_has_the_published_form() -> None:
    first, second = (layer.digest for layer in original_image().layers)
    assert describe(original_image(), REPOSITORY, LayerLayout.FLAT).encode().decode() == (
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
    (layer,) = describe(original_image(1), RepositoryName("unpacked.cern.ch"), LayerLayout.DUCC).layers
    digest = layer.digest
    assert layer.url == f"cvmfs://unpacked.cern.ch/.layers/{digest[:2]}/{digest}/layerfs"


def test_more_layers_than_can_be_stacked_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="501 layers"):
        describe(original_image(501), REPOSITORY, LayerLayout.FLAT)


def test_an_image_without_layers_is_refused() -> None:
    """A descriptor without layers would be an ordinary file."""
    with pytest.raises(UnsupportedImageError, match=r"library/ubuntu.* has no layers"):
        describe(original_image(0), REPOSITORY, LayerLayout.FLAT)


def test_all_configuration_is_kept() -> None:
    thin = build_thin_image(original_image(), REPOSITORY, LayerLayout.FLAT)
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
    thin = build_thin_image(original_image(config=running, history=None), REPOSITORY, LayerLayout.FLAT)
    config = json.loads(thin.config.content)
    assert set(config["config"]) == {"Labels"}
    assert len(config["history"]) == 1


def test_odd_values_of_a_configuration_are_kept() -> None:
    running = {"Env": ["HALF=\ud800", "WHOLE=\U0001f600"], "Future": [1.5, 12345678901234567890, None]}
    thin = build_thin_image(original_image(config=running, history=[None]), REPOSITORY, LayerLayout.FLAT)
    config = json.loads(thin.config.content)
    assert {name: config["config"][name] for name in running} == running
    assert config["history"][0] == {"empty_layer": True}


def test_the_layer_holds_the_descriptor_and_nothing_else() -> None:
    thin = build_thin_image(original_image(), REPOSITORY, LayerLayout.FLAT)
    with tarfile.open(fileobj=io.BytesIO(thin.layer.content)) as archive:
        (member,) = archive.getmembers()
        file = archive.extractfile(member)
        assert file is not None
        assert file.read() == thin.descriptor.encode()
    assert (member.name, member.mode, member.uid, member.gid, member.mtime) == ("thin.json", 0o644, 0, 0, 0)


def test_the_same_image_gives_the_same_bytes() -> None:
    # The order of a JSON object's members is nobody's business.
    image = original_image()
    shuffled = json.dumps(dict(reversed(json.loads(image.config).items()))).encode()
    assert shuffled != image.config
    one = build_thin_image(image, REPOSITORY, LayerLayout.FLAT)
    other = build_thin_image(replace(image, config=shuffled), REPOSITORY, LayerLayout.FLAT)
    assert one.manifest == other.manifest
    assert (one.layer, one.config) == (other.layer, other.config)
    # Another version that makes other bytes would give every thin image a new digest: it says so in CHANGELOG.md.
    assert one.manifest.digest == "7dd2ec97a3760fa00a369ef4d2e6a9412a5efd0238cfb4f79f90d78d1baa9361"


def test_an_image_that_is_thin_already_is_refused() -> None:
    """Its one layer is its descriptor: an image of that would have nothing to run."""
    thin = build_thin_image(original_image(), REPOSITORY, LayerLayout.FLAT)
    told = (
        r"ubuntu:latest is a thin image already, with its layers in 'test.cern.ch': use it as it is, or convert what "
        r"it was made from, 'library/ubuntu:latest@https://registry-1.docker.io/v2'"
    )
    with pytest.raises(UnsupportedImageError, match=told):
        build_thin_image(replace(original_image(1), config=thin.config.content), REPOSITORY, LayerLayout.FLAT)
