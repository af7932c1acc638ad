"""A policy applies to an image whatever the wish calls its registry, and nothing weakens it."""

from dataclasses import replace

import pytest

from services.common.image_name import ImageName
from services.common.repository_name import RepositoryName
from services.converter.model import ExactTag, Origin, VerificationKey, Wish
from services.converter.provenance.applying import applicable
from tests.support.cosign import policy

_KEY = VerificationKey(name="key", pem=b"")


def _wish(*policies: str) -> Wish:
    return Wish(
        registry="quay.io",
        repository="ns/tool",
        tags=ExactTag("v1"),
        repositories=(RepositoryName("unpacked.example.org"),),
        policies=tuple(replace(policy(_KEY), name=name, patterns=()) for name in policies),
        origin=Origin("list.yaml", 1, 1),
    )


@pytest.mark.parametrize(
    ("pattern", "name", "applies"),
    [
        ("quay.io/ns/*", "quay.io/ns/tool:v1", True),
        ("quay.io/ns/*", "Quay.IO/ns/tool:v1", True),
        ("quay.io/ns/*", "quay.io/other/tool:v1", False),
        ("docker.io/library/*", "registry.hub.docker.com/library/fedora:latest", True),
        ("docker.io/library/*", "index.docker.io/fedora:latest", True),
        ("registry.hub.docker.com/*", "docker.io/atlas/base:21.2", True),
        ("docker.io/*", "quay.io/docker.io/base:21.2", False),
        ("docker.io/*@sha256:*", f"docker.io/atlas/base@sha256:{'ab' * 32}", True),
    ],
)
def test_patterns_match_all_names_of_a_registry(pattern: str, name: str, applies: bool) -> None:  # noqa: FBT001
    known = replace(policy(_KEY), patterns=(pattern,))
    assert applicable(ImageName(name), (), (known,)) == ((known,) if applies else ())
    everything = replace(policy(_KEY), exceptions=(pattern,))
    assert applicable(ImageName(name), (), (everything,)) == (() if applies else (everything,))


def test_what_any_wish_names_applies_besides_what_matches() -> None:
    matching = replace(policy(_KEY), name="matching", patterns=("quay.io/*",))
    unnamed = replace(policy(_KEY), name="unnamed", patterns=())
    found = applicable(ImageName("quay.io/ns/tool:v1"), (_wish("a"), _wish("b", "a")), (matching, unnamed))
    assert [each.name for each in found] == ["a", "b", "matching"]
