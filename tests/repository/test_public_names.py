"""The names of flat images are links where DUCC has them, and as DUCC writes them."""

from collections.abc import Mapping

import pytest

from services.common.errors import InvalidValueError
from services.common.image_name import ImageName
from services.repository.errors import ImageRefusedError
from services.repository.image_platforms import platform_images
from services.repository.public_names import check_public_name, is_public_target, platform_links, public_links
from tests.support.images import image_of_layers

_NAME = "quay.io/ns/tool:v1"


def _links(*machines: str, name: str = _NAME) -> tuple[Mapping[str, str], list[str]]:
    """Return the links of an image for some platforms, and where each one's root file system is."""
    images = platform_images(image_of_layers(name, *((machine, ()) for machine in machines)))
    homes = [f".flat/{image.config_digest[:2]}/{image.config_digest}" for image in images]
    return public_links(ImageName(name), images), homes


def test_an_image_for_one_platform_has_one_link() -> None:
    links, (home,) = _links("amd64")
    assert links == {_NAME: f"../../{home}"}
    links, (home,) = _links("arm64:v8", name=f"localhost:5000/tool@sha256:{'2' * 64}")
    assert links == {f"localhost:5000/tool:sha256:{'2' * 64}": f"../{home}"}


def test_one_for_several_has_a_variant_link_to_one_for_each() -> None:
    links, (amd64, arm64) = _links("amd64", "arm64")
    assert links == {
        _NAME: f"../../.multiarch/$(CVMFS_ARCH:-amd64)/{_NAME}",
        f".multiarch/amd64/{_NAME}": f"../../../../{amd64}",
        f".multiarch/arm64/{_NAME}": f"../../../../{arm64}",
        f".multiarch/arm64:v8/{_NAME}": f"../../../../{arm64}",
    }


@pytest.mark.parametrize(
    ("machines", "usual"),
    [(("arm64", "amd64"), "amd64"), (("arm64", "ppc64le"), "arm64"), (("arm:v6", "arm64"), "arm")],
)
def test_a_client_that_does_not_say_what_it_is_gets_one_that_is_there(machines: tuple[str, ...], usual: str) -> None:
    links, _ = _links(*machines)
    assert links[_NAME] == f"../../.multiarch/$(CVMFS_ARCH:-{usual})/{_NAME}"
    assert f".multiarch/{usual}/{_NAME}" in links


def test_a_processor_without_its_variant_is_the_usual_one_or_the_first() -> None:
    images = platform_images(
        image_of_layers(_NAME, *((machine, ()) for machine in ("arm:v6", "arm:v7", "mips:a", "mips:b")))
    )
    by_machine = {image.machine: image.config_digest for image in images}
    links = platform_links(images)
    assert links == by_machine | {"arm": by_machine["arm:v7"], "mips": by_machine["mips:a"]}


def test_what_is_made_is_known_again_at_its_place_only() -> None:
    for machines in (("amd64",), ("amd64", "arm:v7")):
        links, _ = _links(*machines)
        assert all(is_public_target(place, target) for place, target in links.items())
        assert not any(is_public_target(f"above/{place}", target) for place, target in links.items())


@pytest.mark.parametrize(
    "target",
    [
        "/etc/passwd",
        "elsewhere",
        f"../../.flat/ab/{'0' * 64}",
        f"../../.flat/00/{'0' * 64}/etc",
        f"../../.layers/00/{'0' * 64}",
        "../../.multiarch/$(CVMFS_ARCH:-amd64)/quay.io/ns/other:v1",
        f"../../.multiarch/$(HOME)/{_NAME}",
    ],
)
def test_what_leads_elsewhere_is_somebody_elses(target: str) -> None:
    assert not is_public_target(_NAME, target)


@pytest.mark.parametrize("name", ["podmanStore/overlay:v1", "podmanStores/overlay/l:v1"])
def test_no_image_is_flat_whose_name_is_a_place_of_the_repository(name: str) -> None:
    with pytest.raises(ImageRefusedError, match="publish it by another name"):
        check_public_name(ImageName(name))


def test_no_name_is_that_of_a_layer_at_the_root_or_of_a_hidden_directory() -> None:
    for registry in ("ab" * 32, ".layers", ".flat", ".metadata", ".multiarch", ".batches", ".."):
        with pytest.raises(InvalidValueError):
            ImageName(f"{registry}/tool:v1")
