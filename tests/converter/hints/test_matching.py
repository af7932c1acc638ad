import pytest

from services.common.digest import Digest
from services.common.repository_name import RepositoryName
from services.converter.hints.matching import WishIndex
from services.converter.model import ChosenTags, ExactDigest, ExactTag, Origin, TagSelection, Wish
from tests.support.hints import hint


def _wish(registry: str, repository: str, tags: TagSelection) -> Wish:
    return Wish(
        registry=registry,
        repository=repository,
        tags=tags,
        repositories=(RepositoryName("unpacked.example.org"),),
        origin=Origin("list.yaml", 1, 1),
    )


_WISHES = (
    _wish("registry.hub.docker.com", "library/fedora", ExactTag("latest")),
    _wish("docker.io", "atlas/base", ChosenTags(include=("21.*", "22.*"), exclude=("*-test",), newest=3)),
    _wish("quay.io", "ns/tool", ExactDigest(Digest("ab" * 32))),
    _wish("Registry.Example.org:5000", "ns/tool", ExactTag("V1")),
)


@pytest.mark.parametrize(
    ("name", "matches"),
    [
        ("docker.io/library/fedora:latest", True),
        ("index.docker.io/library/fedora:latest", True),
        ("registry-1.docker.io/fedora:latest", True),
        ("docker.io/library/fedora", True),
        ("docker.io/library/fedora:43", False),
        ("quay.io/library/fedora:latest", False),
        ("registry.hub.docker.com/atlas/base:21.2", True),
        ("registry.hub.docker.com/atlas/base:21.2-test", False),
        ("registry.hub.docker.com/atlas/base:20.2", False),
        ("quay.io/ns/tool:v1", False),
        ("quay.io/ns/tool", True),
        ("registry.example.org:5000/ns/tool:V1", True),
        ("registry.example.org:5000/ns/tool:v1", False),
        ("registry.example.org/ns/tool:V1", False),
    ],
)
def test_hints_are_about_wishes_whatever_name_of_the_registry_they_use(name: str, matches: bool) -> None:  # noqa: FBT001
    assert WishIndex(_WISHES).matches(hint(name)) is matches
