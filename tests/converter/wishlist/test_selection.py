"""From wishes and tags to names of images."""

from datetime import UTC, datetime, timedelta

import pytest

from services.common.digest import Digest
from services.common.image_name import ImageName
from services.common.layout import LayerLayout
from services.common.repository_name import RepositoryName
from services.converter.model import (
    DAY,
    ChosenTags,
    ExactDigest,
    ExactTag,
    Origin,
    SignaturePolicy,
    TagSelection,
    ThinTarget,
    VerificationKey,
    Wish,
)
from services.converter.wishlist.output_names import output_name
from services.converter.wishlist.selection import (
    Wanted,
    candidates,
    choose,
    exact_name,
    image_name,
    needs_creation,
    needs_tags,
    settle,
)
from tests.support.wish_lists import DIGEST

_NOW = datetime(2026, 5, 1, tzinfo=UTC)
_DIGEST = Digest.from_oci(DIGEST)


def _wish(tags: TagSelection, *, line: int = 1, priority: int = 0, policies: tuple[SignaturePolicy, ...] = ()) -> Wish:
    return Wish(
        registry="quay.io:443",
        repository="ns/tool",
        tags=tags,
        repositories=(RepositoryName("a.example.org"),),
        priority=priority,
        policies=policies,
        origin=Origin("f", line, 1),
    )


def test_globs_exclusions_and_versions() -> None:
    tags = ["latest", "1.0.0", "1.1.0", "1.1.0-rc.1", "2.0.0", "1.1.0", "v1.2", "old-1.0.0"]
    assert candidates(ChosenTags(include=("1.*", "v*")), tags) == ("1.0.0", "1.1.0", "1.1.0-rc.1", "v1.2")
    assert candidates(ChosenTags(include=("1.*",), exclude=("*-rc*", "1.0*")), tags) == ("1.1.0",)
    assert candidates(ChosenTags(versions=">=1.1 <3"), tags) == ("1.1.0", "2.0.0", "v1.2")


def test_signatures_are_no_images() -> None:
    hex_digits = "0123456789abcdef" * 4
    tags = [f"sha256-{hex_digits}.sig", f"sha256-{hex_digits}.att", f"sha256-{hex_digits}", "sha256-x", "v1"]
    assert candidates(ChosenTags(), tags) == ("sha256-x", "v1")
    assert candidates(ChosenTags(include=(tags[0],)), tags) == (tags[0],)


def test_the_newest_by_version() -> None:
    selection = ChosenTags(newest=2)
    passed = candidates(selection, ["1.9.0", "latest", "1.10.0", "1.2.0"])
    assert passed == ("1.9.0", "1.10.0", "1.2.0")
    assert not needs_creation(selection)
    assert choose(selection, passed, created={}, now=_NOW) == ("1.10.0", "1.9.0")


def test_age_and_the_newest_by_time() -> None:
    selection = ChosenTags(max_age=30 * DAY, newest=2, newest_by="created")
    assert needs_creation(selection)
    created: dict[str, datetime | None] = {f"t{days}": _NOW - timedelta(days=days) for days in (1, 3, 2, 31, 30)}
    created |= {"undated": None, "u3": created["t3"]}
    tags = candidates(selection, created)
    assert choose(selection, tags, created=created, now=_NOW) == ("t1", "t2")
    assert choose(ChosenTags(max_age=30 * DAY), tags, created=created, now=_NOW) == ("t1", "t3", "t2", "t30", "u3")
    newest = ChosenTags(newest=4, newest_by="created")
    assert choose(newest, tags, created=created, now=_NOW) == ("t1", "t2", "u3", "t3")


def test_a_creation_time_that_could_not_be_asked_for_is_no_age() -> None:
    with pytest.raises(KeyError):
        choose(ChosenTags(max_age=DAY), ["a"], created={}, now=_NOW)


def test_exact_wishes_need_no_tags() -> None:
    assert not needs_tags(ExactTag("v1"))
    assert exact_name(_wish(ExactTag("v1"))) == ("quay.io:443/ns/tool:v1", None)
    assert exact_name(_wish(ExactDigest(_DIGEST))) == (f"quay.io:443/ns/tool@{DIGEST}", _DIGEST)
    assert exact_name(_wish(ExactDigest(_DIGEST, "v1"))) == ("quay.io:443/ns/tool:v1", _DIGEST)
    assert exact_name(_wish(ChosenTags())) is None
    assert needs_tags(ChosenTags())


def _settled(*wishes: Wish) -> Wanted:
    name = image_name(wishes[0], "v1")
    found = settle((wish, name, None) for wish in wishes)
    return found[RepositoryName("a.example.org"), ImageName("quay.io:443/ns/tool:v1")]


def test_of_two_wishes_for_one_image_the_priority_decides_then_the_order() -> None:
    first = _wish(ExactTag("v1"), line=1)
    second = _wish(ChosenTags(), line=2, priority=5)
    third = _wish(ExactTag("v1"), line=3, priority=5)
    wanted = _settled(first, second, third)
    assert wanted.wish is second
    assert wanted.others == (third, first)
    assert _settled(first, first).wish is first


def _policy(name: str, *patterns: str, exceptions: tuple[str, ...] = ()) -> SignaturePolicy:
    key = VerificationKey(name="k", pem=b"")
    return SignaturePolicy(name=name, patterns=patterns, exceptions=exceptions, keys=(key,), origin=Origin("f", 1, 1))


def test_signature_policies_of_all_wishes_and_those_that_match_apply() -> None:
    a, b, c = _policy("a"), _policy("b"), _policy("c")
    every = _policy("every", "quay.io:443/*", "*/ns/tool:v1")
    spared = _policy("spared", "*", exceptions=("quay.io:443/ns/*",))
    wishes = [_wish(ExactTag("v1"), policies=(a, b)), _wish(ExactTag("v1"), priority=9, policies=(b, c))]
    assert _settled(*wishes).policies([spared, every, a, _policy("elsewhere", "ghcr.io/*")]) == (b, c, a, every)


@pytest.mark.parametrize(
    ("template", "made"),
    [
        ("https://r.io/sync/$(image)", "r.io/sync/ns/tool:v1"),
        ("$(scheme)://$(registry)/$(repository)_thin:$(tag)", "quay.io:443/ns/tool_thin:v1"),
        ("r.io/$(repository)$(reference)", "r.io/ns/tool:v1"),
        ("r.io/x:$(tag)-$(tag)-$(tag)", "r.io/x:v1-v1-v1"),
    ],
)
def test_names_of_thin_images(template: str, made: str) -> None:
    wish = _wish(ExactTag("v1"))
    target = ThinTarget(template=template, repository=wish.repositories[0], layout=LayerLayout.FLAT)
    assert output_name(target.template, wish, image_name(wish, "v1"), None) == made
