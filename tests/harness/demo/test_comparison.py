import dataclasses
from collections.abc import Callable
from typing import Final

import pytest

from harness.demo.comparison import (
    COMMITTED,
    CONTAINER,
    ELSEWHERE,
    PLAIN_COMMITTED,
    PLAIN_CONTAINER,
    DifferenceError,
    compare,
)
from harness.demo.narrator import Narrator
from harness.trees import Entry, Tree

_ENTRY = Entry(kind="file", mode=0o644, uid=0, gid=0, mtime=1_700_000_000_500_000_000, size=1, sha256="00")


def _trees() -> dict[str, Tree]:
    """Five file systems as they come out when all is well; Docker's own commit rounds times and drops attributes."""
    full = dataclasses.replace(_ENTRY, xattrs={"user.note": b"x", "security.capability": b"y"})
    docker = dataclasses.replace(_ENTRY, mtime=1_700_000_000 * 10**9, xattrs={"security.capability": b"y"})
    return {
        CONTAINER: {b"file": full},
        COMMITTED: {b"file": full},
        ELSEWHERE: {b"file": full},
        PLAIN_CONTAINER: {b"file": full},
        PLAIN_COMMITTED: {b"file": docker},
    }


def test_equal_file_systems_pass(capsys: pytest.CaptureFixture[str]) -> None:
    compare(_trees(), Narrator())
    assert capsys.readouterr().out.count("equal (1 files)") == 4


def _lose_file(tree: Tree) -> None:
    del tree[b"file"]


def _bring_back_file(tree: Tree) -> None:
    tree[b"deleted"] = _ENTRY


def _lose_capability(tree: Tree) -> None:
    tree[b"file"] = dataclasses.replace(tree[b"file"], xattrs={})


def _change_second(tree: Tree) -> None:
    tree[b"file"] = dataclasses.replace(tree[b"file"], mtime=1_700_000_001 * 10**9)


@pytest.mark.parametrize("which", [CONTAINER, COMMITTED, ELSEWHERE, PLAIN_CONTAINER, PLAIN_COMMITTED])
@pytest.mark.parametrize("damage", [_lose_file, _bring_back_file, _lose_capability, _change_second])
def test_a_difference_anywhere_is_printed_and_fails(
    which: str, damage: Callable[[Tree], None], capsys: pytest.CaptureFixture[str]
) -> None:
    trees = _trees()
    damage(trees[which])
    with pytest.raises(DifferenceError, match=which):
        compare(trees, Narrator())
    assert "DIFFERENCES" in capsys.readouterr().out


def test_attributes_that_docker_keeps_are_compared_between_thin_ones(capsys: pytest.CaptureFixture[str]) -> None:
    trees = _trees()
    trees[ELSEWHERE] = {b"file": dataclasses.replace(_ENTRY, xattrs={"security.capability": b"y"})}
    with pytest.raises(DifferenceError):
        compare(trees, Narrator())
    assert "file: xattrs" in capsys.readouterr().out


_PAIR: Final = (b"linked", b"linked-too")
_TOLD: Final = "two files to programs: the file system of /home has no UUID"


def _with_links(*, shown: bool) -> dict[str, Tree]:
    """The file systems with a file of two names, which the thin container shows as one file, or as two."""
    trees = _trees()
    for which, tree in trees.items():
        links = _PAIR if shown or which != CONTAINER else ()
        tree |= {name: dataclasses.replace(tree[b"file"], links=links) for name in _PAIR}
    return trees


def test_hard_links_are_compared_where_they_show(capsys: pytest.CaptureFixture[str]) -> None:
    compare(_with_links(shown=True), Narrator())
    with pytest.raises(DifferenceError, match=rf"^not equal: {CONTAINER} and {PLAIN_CONTAINER}; {CONTAINER} and"):
        compare(_with_links(shown=False), Narrator())
    assert f"linked: links () in {CONTAINER}" in capsys.readouterr().out


def test_hard_links_that_a_container_cannot_show_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    compare(_with_links(shown=False), Narrator(), links_told=_TOLD)
    out = capsys.readouterr().out
    assert out.count("equal (3 files)") == 4
    assert f"hard links that {CONTAINER} does not show were left out" in out
    assert _TOLD in out


def _unlink(trees: dict[str, Tree], which: str) -> None:
    trees[which] |= {name: dataclasses.replace(trees[which][name], links=()) for name in _PAIR}


@pytest.mark.parametrize("which", [COMMITTED, ELSEWHERE, PLAIN_COMMITTED])
def test_hard_links_that_are_lost_elsewhere_are_differences_all_the_same(which: str) -> None:
    trees = _with_links(shown=False)
    _unlink(trees, which)
    with pytest.raises(DifferenceError, match=which):
        compare(trees, Narrator(), links_told=_TOLD)


def test_hard_links_that_only_the_thin_container_shows_are_differences_all_the_same() -> None:
    trees = _with_links(shown=True)
    _unlink(trees, PLAIN_CONTAINER)
    with pytest.raises(DifferenceError, match=f"{CONTAINER} and {PLAIN_CONTAINER}"):
        compare(trees, Narrator(), links_told=_TOLD)
