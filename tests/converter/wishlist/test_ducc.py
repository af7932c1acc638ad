"""DUCC's wish lists, taken as they are."""

import pytest

from services.common.digest import Digest
from services.common.image_outputs import NO_OUTPUTS, FlatOutput, ImageOutputs
from services.common.layout import LayerLayout
from services.converter.model import ChosenTags, ExactDigest, ExactTag, Origin, ThinTarget
from services.converter.wishlist.problems import Reading
from services.converter.wishlist.reading import read_wish_list
from services.converter.wishlist.selection import candidates, exact_name
from tests.support.wish_lists import DIGEST, FIFTY, SOURCE, problems_of, wishes_of

_HEAD = "version: 1\nuser: pusher\ncvmfs_repo: unpacked.cern.ch\noutput_format: 'https://r.example.org/sync/$(image)'\n"


def _list(*entries: str, head: str = _HEAD) -> str:
    return head + "input:\n" + "".join(f"  - '{entry}'\n" for entry in entries)


def _reading(text: str) -> Reading:
    return read_wish_list(text.encode(), SOURCE)


def test_a_recipe_has_the_outputs_that_the_setting_says() -> None:
    outputs = ImageOutputs(flat=FlatOutput())
    reading = read_wish_list(_list("quay.io/ns/tool:v1").encode(), SOURCE, recipe_outputs=outputs)
    assert reading.wish_list is not None
    assert [wish.outputs for wish in reading.wish_list.wishes] == [outputs]
    assert [wish.outputs for wish in wishes_of(_list("quay.io/ns/tool:v1")).wishes] == [NO_OUTPUTS]


def test_a_list_of_fifty_entries_is_taken_as_it_is() -> None:
    assert FIFTY.count("  - '") == 50
    wish_list = wishes_of(FIFTY)
    assert wish_list.complete
    assert len(wish_list.wishes) == 49
    double = "https://registry.hub.docker.com/library/centos:centos7"
    assert problems_of(FIFTY) == [f"55:7: warning: {double} a second time (first in line 6): remove one"]
    assert sum(wish.registry == "gitlab-p4n.aip.de:5005" for wish in wish_list.wishes) == 12
    assert [wish.repository for wish in wish_list.wishes if isinstance(wish.tags, ChosenTags)] == [
        "watonomous/actions-runner-image"
    ]
    assert {wish.repositories for wish in wish_list.wishes} == {("unpacked.cern.ch",)}
    fedora = next(wish for wish in wish_list.wishes if wish.repository == "library/fedora")
    named = exact_name(fedora)
    assert named is not None
    assert named[0].path == "registry.hub.docker.com/library/fedora:latest"
    assert fedora.thin == (
        ThinTarget(
            template="https://gitlab-registry.cern.ch/unpacked/sync/$(image)",
            repository=fedora.repositories[0],
            layout=LayerLayout.DUCC,
            user="cvmfsunpacker",
        ),
    )
    assert fedora.origin == Origin(SOURCE, 12, 7)


def test_tags_digests_and_patterns() -> None:
    wishes = wishes_of(
        _list(f"https://q.io/n/a@{DIGEST}", f"https://q.io/n/b:v1@{DIGEST}", "http://q.io/n/c:1.10", "q.io:5000/n/d:v*")
    ).wishes
    digest = Digest.from_oci(DIGEST)
    assert [wish.tags for wish in wishes] == [
        ExactDigest(digest),
        ExactDigest(digest, "v1"),
        ExactTag("1.10"),
        ChosenTags(include=("v*",)),
    ]
    assert [wish.scheme for wish in wishes] == ["https", "https", "http", "https"]
    names = [named[0].path for wish in wishes if (named := exact_name(wish)) is not None]
    assert names == [f"q.io/n/a:{DIGEST}", "q.io/n/b:v1", "q.io/n/c:1.10"]


def test_a_dot_in_a_pattern_is_a_dot() -> None:
    (wish,) = wishes_of(_list("https://q.io/n/a:21.2.1*")).wishes
    assert isinstance(wish.tags, ChosenTags)
    assert candidates(wish.tags, ["21.2.1", "21.2.14", "21.201", "2112.1", "x21.2.1"]) == ("21.2.1", "21.2.14")


def test_a_set_of_characters_is_what_it_is_for_ducc() -> None:
    (wish,) = wishes_of(_list("https://q.io/n/a:v[1-3]-*")).wishes
    assert isinstance(wish.tags, ChosenTags)
    assert candidates(wish.tags, ["v1-x", "v4-x", "v[1-3]-x", "v3-"]) == ("v1-x", "v3-")


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("https://q.io/n/a", "neither tag nor digest: write q.io/n/a:latest"),
        ("https://q.io/n/a:", "no tag after the ':'"),
        ("library/fedora:latest", "such as registry.hub.docker.com/library/fedora:latest"),
        ("fedora", "no registry"),
        ("", "1 to 1024 characters"),
        ("https://", "no registry"),
        ("https:///a:b", "not a registry"),
        ("ftp://q.io/n/a:b", "the scheme 'ftp'"),
        ("https://q.io/N/a:b", "lower case: write 'n/a'"),
        ("https://q.io/n/*:b", "patterns are for tags only"),
        ("https://q.io/../etc:b", "not a repository"),
        ("https://q.io/n/a:b:c", "not a tag"),
        ("https://q.io/n/a:b/c", "not a tag"),
        ("https://q.io:99999/n/a:b", "not a port"),
        ("https://q.io/n/a@sha256:123", "not a digest"),
        ("https://q.io/n/a@md5:123", "not a digest"),
        (f"https://q.io/n/a:v*@{DIGEST}", "a pattern and a digest together"),
        ("https://q.io/n/a:v(1|2)*", "( ) | in the pattern"),
        ("https://q.io/n/a:v[1*", "a '[' without ']'"),
        ("https://q.io/n/a:x y", "not a tag"),
        ("https://q.io/n/a:" + "x" * 129, "not a tag"),
        ("https://q.io/n/a:b?c=d", "not a tag"),
    ],
)
def test_an_entry_that_is_no_image_is_told_and_the_others_are_taken(entry: str, text: str) -> None:
    reading = _reading(_list("https://q.io/n/good:v1", entry, "https://q.io/n/good:v2"))
    (problem,) = reading.problems
    assert problem.origin == Origin(SOURCE, 7, 5)
    assert text in problem.text
    assert reading.errors
    assert reading.wish_list is not None
    assert not reading.wish_list.complete
    assert [wish.tags for wish in reading.wish_list.wishes] == [ExactTag("v1"), ExactTag("v2")]


def test_no_password_is_repeated() -> None:
    (problem,) = problems_of(_list("https://me:secret@q.io/n/a:v1"))
    assert "credentials belong in the settings" in problem
    assert "secret" not in problem


def test_all_errors_of_a_list_are_told_at_once() -> None:
    text = "version: 3\nusr: x\ncvmfs_repo: A!\noutput_format: $(imag)\ninput: [a, {b: c}]\nignoreErrors: x\n"
    assert [problem.partition(": ")[0] for problem in problems_of(text)] == ["1:10", "2:1", "3:13", "5:12", "6:15"]
    assert "is 'user' meant?" in problems_of(text)[1]


def test_without_a_repository_there_is_nothing() -> None:
    assert "'cvmfs_repo' is missing" in problems_of("version: 1\ninput: []\n")[0]


def test_a_list_without_version_is_read() -> None:
    assert wishes_of("cvmfs_repo: a.b\ninput:\n- https://q.io/n/a:1\n").wishes[0].tags == ExactTag("1")


def test_a_template_that_makes_no_name_costs_the_thin_images_only() -> None:
    reading = _reading(_list("https://q.io/n/a:1", head="cvmfs_repo: a.b\noutput_format: 'r.io/x:$(imag)'\n"))
    assert reading.wish_list is not None
    assert reading.wish_list.wishes[0].thin == ()
    assert "is image meant?" in reading.errors[0].text.replace("'", "")


def test_ducc_s_default_template_has_no_name_for_a_digest() -> None:
    reading = _reading(_list(f"https://q.io/n/a@{DIGEST}", "https://q.io/n/a:1", head="cvmfs_repo: a.b\n"))
    assert reading.errors == ()
    assert "no thin image is made" in reading.problems[0].text
    assert reading.wish_list is not None
    assert [len(wish.thin) for wish in reading.wish_list.wishes] == [0, 1]


@pytest.mark.parametrize(
    ("pattern", "fails"),
    [
        ("https://q.io/n/a:1", True),
        ("q.io/n/*", True),
        ("*/n/a:?", True),
        ("q.io/*", False),
        ("q.io/n/b*", False),
    ],
)
def test_images_that_may_fail(pattern: str, fails: bool) -> None:  # noqa: FBT001 - a row of the table
    (wish,) = wishes_of(_list("https://q.io/n/a:1", head=f"cvmfs_repo: a.b\nignoreErrors: ['{pattern}']\n")).wishes
    assert wish.may_fail is fails


def test_a_hundred_thousand_entries_are_read() -> None:
    wishes = wishes_of(_list(*(f"https://quay.io/ns/image-{number}:v1.{number}" for number in range(100_000)))).wishes
    assert len(wishes) == 100_000
    assert wishes[-1].origin.line == 100_005
