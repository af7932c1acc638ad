import platform

import pytest

from services.common.errors import InvalidValueError
from services.registry.platform import Platform


def test_platforms_have_the_names_of_images() -> None:
    assert str(Platform.parse("linux/arm64/v8")) == "linux/arm64/v8"
    assert Platform.parse("linux/x86_64") == Platform("linux", "amd64")
    assert Platform.parse("Linux/aarch64") == Platform("linux", "arm64")


@pytest.mark.parametrize(
    ("own", "listed", "refined"),
    [
        ("linux/arm", "linux/arm/v6", "linux/arm/v6"),
        ("linux/arm/v6", "linux/arm", "linux/arm/v6"),
        ("linux/arm/v7", "linux/arm/v6", "linux/arm/v6"),
        ("linux/arm64", "linux/arm/v6", "linux/arm64"),
    ],
)
def test_an_index_may_say_more_of_a_platform(own: str, listed: str, refined: str) -> None:
    assert Platform.parse(own).refined(Platform.parse(listed)) == Platform.parse(refined)


@pytest.mark.parametrize("text", ["", "linux", "linux/", "linux/a/b/c", "linux/a b", "/amd64"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InvalidValueError, match="not a platform of the form"):
        Platform.parse(text)


@pytest.mark.parametrize(
    ("machine", "expected"), [("x86_64", "linux/amd64"), ("aarch64", "linux/arm64"), ("armv7l", "linux/arm/v7")]
)
def test_the_machine_says_its_own(monkeypatch: pytest.MonkeyPatch, machine: str, expected: str) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert str(Platform.local()) == expected


@pytest.mark.parametrize(
    ("wanted", "there", "best"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], 1),
        ("linux/amd64", ["linux/amd64/v3", "linux/amd64"], 1),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], 1),
        ("linux/arm64", ["linux/arm64/v8"], 0),
        ("linux/arm64/v8", ["linux/arm64"], 0),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6"], 1),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm"], None),
        ("linux/amd64", ["windows/amd64"], None),
        ("linux/amd64", [], None),
    ],
)
def test_the_highest_variant_that_runs_is_chosen(wanted: str, there: list[str], best: int | None) -> None:
    assert Platform.parse(wanted).best([Platform.parse(each) for each in there]) == best
