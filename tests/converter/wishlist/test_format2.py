"""Wish lists of version 2."""

import json
from pathlib import Path

import pytest

from services.common.digest import Digest
from services.common.image_outputs import NO_OUTPUTS, FlatOutput, ImageOutputs, PodmanOutput
from services.common.layout import LayerLayout
from services.converter.model import (
    DAY,
    DEFAULT_RETENTION,
    ChosenTags,
    ExactDigest,
    ExactTag,
    Retention,
    ThinTarget,
    VerificationKey,
    Wish,
)
from services.converter.wishlist.grammar import json_schema
from services.converter.wishlist.problems import Reading
from services.converter.wishlist.reading import read_wish_list
from services.registry.platform import Platform
from tests.support.wish_lists import DIGEST, SOURCE, problems_of, wishes_of

_HEAD = "version: 2\ndefaults: {repositories: a.example.org}\nimages:\n"
_PEM = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"
_DOCS = Path(__file__).parents[3] / "docs"


def _only(entry: str) -> Wish:
    (wish,) = wishes_of(f"{_HEAD}- {entry}\n").wishes
    return wish


def test_a_text_is_an_image_with_what_is_usual() -> None:
    wish = _only("quay.io/ns/tool:v1")
    assert (wish.registry, wish.repository, wish.tags) == ("quay.io", "ns/tool", ExactTag("v1"))
    assert wish.repositories == ("a.example.org",)
    assert wish.platforms == (Platform("linux", "amd64"),)
    assert wish.retention == DEFAULT_RETENTION
    assert (wish.thin, wish.policies, wish.interval, wish.priority, wish.may_fail) == ((), (), None, 0, False)
    assert str(wish.origin) == f"{SOURCE}:4:3"


def test_everything_that_can_be_said() -> None:
    wish = _only(
        "{image: 'https://quay.io/ns/tool', tags: ['1.*', '2.*'], exclude: '*-rc*', versions: '>=1.2 <3', newest: 3, "
        "newest_by: created, max_age: 90d, repositories: [a.example.org, b.example.org], platforms: [linux/arm64, "
        "linux/x86_64], thin: [{push: 'r.io/t/$(image)', layout: ducc, repository: b.example.org}, 'r.io/u:$(tag)'], "
        "retention: {replaced: 2w, dropped: 1d, gone: forever}, interval: 5m, priority: -3, may_fail: true}"
    )
    a, b = wish.repositories
    assert (a, b) == ("a.example.org", "b.example.org")
    assert wish.tags == ChosenTags(
        include=("1.*", "2.*"),
        exclude=("*-rc*",),
        versions=">=1.2 <3",
        newest=3,
        newest_by="created",
        max_age=90 * DAY,
    )
    assert wish.platforms == (Platform("linux", "arm64"), Platform("linux", "amd64"))
    assert wish.thin == (
        ThinTarget(template="r.io/t/$(image)", repository=b, layout=LayerLayout.DUCC),
        ThinTarget(template="r.io/u:$(tag)", repository=a, layout=LayerLayout.FLAT),
    )
    assert wish.retention == Retention(replaced=14 * DAY, dropped=DAY, gone=None)
    assert (wish.interval, wish.priority, wish.may_fail) == (300, -3, True)


@pytest.mark.parametrize(
    ("text", "outputs"),
    [
        ("flat", ImageOutputs(flat=FlatOutput())),
        ("[podman, flat]", ImageOutputs(flat=FlatOutput(), podman=PodmanOutput())),
        ("[]", NO_OUTPUTS),
        ("{flat: }", ImageOutputs(flat=FlatOutput())),
        ("{flat: {others_read: true}}", ImageOutputs(flat=FlatOutput(others_read=True))),
        ("{podman: {store: atlas}}", ImageOutputs(podman=PodmanOutput(store="atlas"))),
    ],
)
def test_outputs(text: str, outputs: ImageOutputs) -> None:
    assert _only(f"{{image: 'quay.io/ns/tool:v1', outputs: {text}}}").outputs == outputs


def test_outputs_of_an_image_count_instead_of_the_defaults() -> None:
    head = "version: 2\ndefaults: {repositories: a.example.org, outputs: [flat, podman]}\nimages:\n"
    plain, other = wishes_of(f"{head}- q.io/n/a:1\n- {{image: 'q.io/n/b:1', outputs: flat}}\n").wishes
    assert plain.outputs == ImageOutputs(flat=FlatOutput(), podman=PodmanOutput())
    assert other.outputs == ImageOutputs(flat=FlatOutput())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("squash", "no output: 'squash'"),
        ("[flat, podmann]", "no output: 'podmann': "),
        ("{flatt: }", "unknown key 'flatt': "),
        ("{flat: {others: true}}", "unknown key 'others'"),
        ("{podman: {store: ../x}}", "not the name of a store of podman's"),
    ],
)
def test_outputs_that_there_are_not(text: str, problem: str) -> None:
    (found,) = problems_of(f"{_HEAD}- {{image: 'quay.io/ns/tool:v1', outputs: {text}}}\n")
    assert found.startswith("4:")
    assert problem in found


def test_tags_that_are_written_out_need_no_list_of_tags() -> None:
    wishes = wishes_of(f"{_HEAD}- {{image: quay.io/ns/tool, tags: [1.10, latest, 1.10]}}\n").wishes
    assert [wish.tags for wish in wishes] == [ExactTag("1.10"), ExactTag("latest")]


@pytest.mark.parametrize(
    ("entry", "tags"),
    [
        ("quay.io/ns/tool:v*", ChosenTags(include=("v*",))),
        (f"quay.io/ns/tool@{DIGEST}", ExactDigest(Digest.from_oci(DIGEST))),
        (f"quay.io/ns/tool:v1@{DIGEST}", ExactDigest(Digest.from_oci(DIGEST), "v1")),
        ("{image: 'quay.io/ns/tool:v*', newest: 2}", ChosenTags(include=("v*",), newest=2)),
        ("{image: quay.io/ns/tool, versions: 1.x}", ChosenTags(versions="1.x")),
        ("{image: quay.io/ns/tool, tags: '*'}", ChosenTags()),
        ("{image: quay.io/ns/tool, tags: [a, b], newest: 1}", ChosenTags(include=("a", "b"), newest=1)),
    ],
)
def test_tags(entry: str, tags: object) -> None:
    assert _only(entry).tags == tags


def test_defaults_count_where_an_image_says_nothing_else() -> None:
    text = """\
version: 2
defaults:
  repositories: [a.example.org]
  platforms: linux/arm64
  thin: 'r.io/t/$(image)'
  retention: {replaced: 3d, gone: 9d}
  interval: 1h
  priority: 7
  may_fail: yes
images:
  - q.io/n/a:1
  - image: q.io/n/b:1
    repositories: b.example.org
    platforms: linux/amd64
    thin: []
    retention: {gone: forever}
    interval: 90s
    priority: 0
    may_fail: no
"""
    first, second = wishes_of(text).wishes
    assert first.platforms == (Platform("linux", "arm64"),)
    assert [target.template for target in first.thin] == ["r.io/t/$(image)"]
    assert first.retention == Retention(replaced=3 * DAY, dropped=None, gone=9 * DAY)
    assert (first.interval, first.priority, first.may_fail) == (3600, 7, True)
    assert second.repositories == ("b.example.org",)
    assert second.platforms == (Platform("linux", "amd64"),)
    assert second.thin == ()
    assert second.retention == Retention(replaced=3 * DAY, dropped=None, gone=None)
    assert (second.interval, second.priority, second.may_fail) == (90, 0, False)


def _policies(keys: str, *, more: str = "") -> str:
    return f"{_HEAD}- {{image: 'q.io/n/a:1', policies: cms}}\npolicies:\n- {{name: cms, keys: {keys}{more}}}\n"


def test_policies_with_keys_as_text_and_in_files(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "cms.pub").write_text(_PEM + "\n")
    text = _policies(
        f"[keys/cms.pub, {json.dumps(_PEM)}]", more=", images: ['q.io/*'], exclude: 'q.io/x/*', identities: 'q.io/m/*'"
    )
    reading = read_wish_list(text.encode(), SOURCE, directory=tmp_path)
    assert reading.problems == ()
    assert reading.wish_list is not None
    (policy,) = reading.wish_list.policies
    assert policy.keys == (
        VerificationKey(name="cms.pub", pem=_PEM.encode()),
        VerificationKey(name="a key in the list", pem=_PEM.encode()),
    )
    assert (policy.patterns, policy.exceptions, policy.identities) == (("q.io/*",), ("q.io/x/*",), ("q.io/m/*",))
    assert reading.wish_list.wishes[0].policies == (policy,)
    assert reading.files == {tmp_path / "keys" / "cms.pub"}


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ("missing.pub", "no file"),
        ("private.pem", "holds a private key"),
        ("other", "holds no public key"),
        ("large", "larger than 64 KiB"),
        (".", "no file"),
        ("[]", "at least 1 item"),
        ('"-----BEGIN PRIVATE KEY-----"', "holds a private key"),
        ('"-----BEGIN CERTIFICATE-----"', "holds no public key"),
    ],
)
def test_a_policy_without_its_keys_makes_the_list_unusable(tmp_path: Path, keys: str, text: str) -> None:
    (tmp_path / "private.pem").write_text("-----BEGIN EC PRIVATE KEY-----\n")
    (tmp_path / "other").write_text("text")
    (tmp_path / "large").write_bytes(b"x" * 70_000)
    reading = read_wish_list(_policies(keys).encode(), SOURCE, directory=tmp_path)
    assert reading.wish_list is None
    (problem,) = reading.problems
    assert problem.origin.line == 6
    assert text in problem.text


def test_a_list_from_elsewhere_names_no_files_of_this_machine() -> None:
    (problem,) = problems_of(_policies("/etc/passwd"))
    assert "write the key's PEM text into the list" in problem


@pytest.mark.parametrize(
    ("entry", "place", "text"),
    [
        ("q.io/n/a", 3, "neither tag nor digest: write q.io/n/a:latest, or 'tags: \"*\"' for all"),
        ("{image: fedora}", 11, "no registry"),
        ("{imgae: 'q.io/n/a:1'}", 4, "unknown key 'imgae': is 'image' meant?"),
        ("{image: 'q.io/n/a:1', thinn: x}", 25, "unknown key 'thinn': is 'thin' meant?"),
        ("{image: 'q.io/n/a:1', retention: {dropt: 1d}}", 37, "unknown key 'dropt': is 'dropped' meant?"),
        ("{image: 'q.io/n/a:1', thin: [{to: x}]}", 33, "unknown key 'to'"),
        (f"{{image: 'q.io/n/a@{DIGEST}', thin: 'r.io/$(image)'}}", 101, "a name without tag"),
        ("{image: 'q.io/n/a:1', thin: {push: x}}", 31, "thin: write a list"),
        ("{tags: x}", 3, "the key 'image' is missing"),
        ("{image: 'q.io/n/a:1', tags: x}", 31, "'tags', but the image names one tag"),
        ("{image: 'q.io/n/a:*', tags: x}", 31, "has a pattern of tags already"),
        ("{image: 'q.io/n/a', newest_by: created}", 34, "'newest_by' without 'newest'"),
        ("{image: 'q.io/n/a', newest: 0}", 31, "newest: Input should be greater than or equal to 1"),
        ("{image: 'q.io/n/a', newest: few}", 31, "newest: Input should be a valid integer"),
        ("{image: 'q.io/n/a', tags: 'v['}", 29, "a '[' without ']'"),
        ("{image: 'q.io/n/a', tags: []}", 29, "at least 1 item"),
        ("{image: 'q.io/n/a', tags: [a b]}", 29, "not a tag"),
        ("{image: 'q.io/n/a', versions: '=>1'}", 33, "not a range of versions"),
        ("{image: 'q.io/n/a', max_age: 3 weeks}", 32, "not a duration"),
        ("{image: 'q.io/n/a:1', platforms: [amd64]}", 37, "not a platform"),
        ("{image: 'q.io/n/a:1', repositories: [A]}", 40, "not a repository name"),
        ("{image: 'q.io/n/a:1', repositories: []}", 39, "at least 1 item"),
        ("{image: 'q.io/n/a:1', thin: 'r.io/$(imag)'}", 31, "is 'image' meant?"),
        ("{image: 'q.io/n/a:1', thin: 'r.io/x'}", 31, "makes a name without tag"),
        (
            "{image: 'q.io/n/a:1', thin: [{push: 'r.io/x:$(tag)', repository: b.c}]}",
            31,
            "which is not among a.example.org",
        ),
        ("{image: 'q.io/n/a:1', retention: {gone: 0}}", 43, "not a duration"),
        ("{image: 'q.io/n/a:1', retention: {gone: }}", 43, "nor 'forever'"),
        ("{image: 'q.io/n/a:1', policies: [cns]}", 35, "no such policy: 'cns': is 'cms' meant?"),
        ("{image: 'q.io/n/a:1', may_fail: maybe}", 35, "valid boolean"),
        ("{image: 'q.io/n/a:1', priority: 9999}", 35, "less than or equal to 1000"),
        ("[a, b]", 3, "write a mapping"),
    ],
)
def test_an_entry_with_an_error_is_told_and_the_others_are_taken(entry: str, place: int, text: str) -> None:
    key = json.dumps(_PEM)
    lists = f"{_HEAD}- q.io/n/good:v1\n- {entry}\n- q.io/n/good:v2\npolicies:\n- {{name: cms, keys: {key}}}\n"
    reading = _reading(lists)
    problems = [str(problem) for problem in reading.problems]
    assert [problem for problem in problems if text in problem], problems
    assert {problem.origin.line for problem in reading.problems} == {5}
    assert place in {problem.origin.column for problem in reading.problems}
    assert reading.wish_list is not None
    assert not reading.wish_list.complete
    assert [wish.tags for wish in reading.wish_list.wishes] == [ExactTag("v1"), ExactTag("v2")]


def _reading(text: str) -> Reading:
    return read_wish_list(text.encode(), SOURCE)


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ("version: 3\nimages: []\n", "1:1", "says 'version: 2'"),
        ("images: []\n", "1:1", "says 'version: 2'"),
        ("- a\n", "1:1", "a wish list is a mapping"),
        ("version: 2\nimags: []\n", "2:1", "unknown key 'imags': is 'images' meant?"),
        ("version: 2\nimages: a\n", "2:9", "images: write a list"),
        ("version: 2\ndefaults: {priority: x}\n", "2:22", "valid integer"),
        ("version: 2\ndefaults: {image: x}\n", "2:12", "unknown key 'image'"),
        ("version: 2\npolicies: [{name: a}]\n", "2:12", "the key 'keys' is missing"),
        ("version: 2\npolicies: [{name: ' ', keys: x}]\n", "2:19", "not a name"),
    ],
)
def test_an_error_beside_the_images_makes_the_list_unusable(text: str, place: str, what: str) -> None:
    (problem,) = problems_of(text)
    assert problem.startswith(f"{place}: error: ")
    assert what in problem
    assert _reading(text).wish_list is None


def test_a_policy_twice() -> None:
    key = json.dumps(_PEM)
    text = f"version: 2\npolicies:\n- {{name: a, keys: {key}}}\n- {{name: a, keys: {key}}}\n"
    assert problems_of(text) == ["4:3: error: the policy 'a' a second time (first in line 3): rename one"]


def test_no_repository_anywhere() -> None:
    (problem,) = problems_of("version: 2\nimages: ['q.io/n/a:1']\n")
    assert problem == "2:10: error: no CVMFS repository: give 'repositories' here or in 'defaults'"


def test_all_errors_are_told_at_once() -> None:
    text = f"{_HEAD}- fedora\n- {{image: 'q.io/n/a', foo: 1, bar: 2, newest: x}}\nunknown: 1\n"
    assert [problem.partition(": ")[0] for problem in problems_of(text)] == ["5:23", "5:31", "5:47", "6:1"]


def test_the_schema_in_the_documentation_is_the_grammar_s() -> None:
    assert json.loads((_DOCS / "wish-list.schema.json").read_text()) == json_schema(), (
        "run `converter schema >docs/wish-list.schema.json`"
    )
