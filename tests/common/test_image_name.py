"""Names of images in a repository."""

import pytest

from services.common.errors import InvalidValueError
from services.common.image_name import ImageName

_DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "registry", "repository", "version"),
    [
        ("registry.hub.docker.com/library/fedora:latest", "registry.hub.docker.com", "library/fedora", "latest"),
        ("gitlab-p4n.aip.de:5005/p4n/x/y:1.0", "gitlab-p4n.aip.de:5005", "p4n/x/y", "1.0"),
        ("localhost:5000/a:b", "localhost:5000", "a", "b"),
        ("[::1]:5000/a:b", "[::1]:5000", "a", "b"),
        (f"quay.io/ns/tool@sha256:{_DIGEST}", "quay.io", "ns/tool", f"sha256:{_DIGEST}"),
    ],
)
def test_names_say_where_an_image_is(text: str, registry: str, repository: str, version: str) -> None:
    """Registry, repository and version are what stands between the signs."""
    name = ImageName(text)

    assert (name.registry, name.repository, name.version) == (registry, repository, version)
    assert name.path == f"{registry}/{repository}:{version}"
    assert ImageName.of_path(name.path) == text


@pytest.mark.parametrize(
    "text",
    [
        "fedora:latest",
        "quay.io/ns/tool",
        "quay.io/ns/tool:",
        "quay.io/NS/tool:v1",
        "quay.io/../etc:v1",
        "quay.io/ns/../tool:v1",
        "quay.io//tool:v1",
        ".metadata/ns/tool:v1",
        "quay.io/ns/tool:.v1",
        "quay.io/ns/tool:v1\n",
        "quay.io/ns/tool@sha256:0123",
        f"quay.io/ns/tool:v1@sha256:{_DIGEST}",
        "quay.io/" + "a" * 250 + ":v1",
        "quay.io/" + "a/" * 300 + "a:v1",
        "https://quay.io/ns/tool:v1",
    ],
)
def test_nothing_else_is_a_name(text: str) -> None:
    """What could lead elsewhere in the repository, or means two things, is refused."""
    with pytest.raises(InvalidValueError):
        ImageName(text)


def test_a_name_says_whether_it_has_a_tag() -> None:
    """A digest is no tag."""
    assert ImageName("quay.io/ns/tool:v1").tag == "v1"
    assert ImageName(f"quay.io/ns/tool@sha256:{_DIGEST}").tag is None
