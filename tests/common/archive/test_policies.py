"""One parser, two policies: what is published is held to strict rules, what is local is taken as overlay2 takes it."""

import io
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from services.common.archive.errors import ArchiveError, UnsafeArchiveError
from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import LayerContent
from services.common.archive.ondisk import OverlayDeletions
from services.common.archive.policy import LocalPolicy
from services.common.archive.survey import survey
from services.common.archive.unpack import unpack, unpack_by_policy
from tests.hostile.archives import link
from tests.support.policies import DIFFERENCES, Difference, described
from tests.support.tars import archive, member, pax

_STRICT: Final = ArchiveLimits.model_validate(
    dict.fromkeys(
        (
            *("stream_size", "tree_size", "names_size", "xattr_value_size", "entries", "path_length", "path_depth"),
            *("link_length", "xattr_count", "xattr_name_length"),
        ),
        1,
    )
)
"""Limits that hold for what is published only."""


def _put(content: bytes, tree: Path, limits: ArchiveLimits | None = None) -> LayerContent:
    policy = LocalPolicy(limits or ArchiveLimits())
    return unpack_by_policy(io.BytesIO(content), tree, deletions=OverlayDeletions(), policy=policy)


@pytest.mark.parametrize("difference", DIFFERENCES, ids=[difference.name for difference in DIFFERENCES])
def test_what_is_published_is_held_to_the_strict_rules(tree: Path, difference: Difference) -> None:
    if difference.published is None:
        content = unpack(io.BytesIO(difference.archive), tree, deletions=OverlayDeletions(), limits=ArchiveLimits())
        assert survey(io.BytesIO(difference.archive), limits=ArchiveLimits()).tree_size == content.tree_size
        return
    error, says = difference.published
    with pytest.raises(error) as unpacked:
        unpack(io.BytesIO(difference.archive), tree, deletions=OverlayDeletions(), limits=ArchiveLimits())
    assert type(unpacked.value) is error
    assert says in str(unpacked.value)


@pytest.mark.parametrize("difference", DIFFERENCES, ids=[difference.name for difference in DIFFERENCES])
def test_what_is_local_is_taken_as_overlay2_takes_it(
    tree: Path, difference: Difference, open_descriptors: Callable[[], int]
) -> None:
    neighbours, before = sorted(tree.parent.iterdir()), open_descriptors()
    if isinstance(difference.local, str):
        with pytest.raises(ArchiveError) as refused:
            _put(difference.archive, tree)
        assert difference.local in str(refused.value)
    else:
        content = _put(difference.archive, tree)
        assert described(tree) == difference.local
        assert content.tree_size == _size(tree)
        assert content.stream_size == len(difference.archive)
        assert sorted(map(os.fsdecode, content.whiteouts)) == sorted(
            path for path, text in difference.local.items() if text == "whiteout"
        )
    assert sorted(tree.parent.iterdir()) == neighbours
    assert open_descriptors() == before


def _size(tree: Path) -> int:
    """Add up sizes as the engine does."""
    found = [path.lstat() for path in tree.rglob("*") if not path.is_dir() or path.is_symlink()]
    return sum({status.st_ino: status.st_size for status in found}.values())


def test_the_table_has_what_it_should_have() -> None:
    names = [difference.name for difference in DIFFERENCES]
    assert len(set(names)) == len(names) >= 80


def test_of_the_limits_only_those_on_form_and_time_hold(tree: Path) -> None:
    long = b"/".join([b"n" * 200] * 40)
    content = archive(
        pax({b"path": long + b"/f", b"SCHILY.xattr.user.a": b"x", b"SCHILY.xattr.user.b": b"y"}),
        member(b"f", b"data"),
        pax({b"path": long + b"/l", b"linkpath": b"t" * 4000}),
        member(b"l", typeflag=b"2"),
    )
    assert _put(content, tree, _STRICT).tree_size == 4 + 4000


# Links that change while the archive is read


def test_a_replaced_link_is_not_remembered(tree: Path) -> None:
    content = archive(
        member(b"old/", typeflag=b"5", mode=0o755),
        member(b"new/", typeflag=b"5", mode=0o755),
        link(b"d", b"old"),
        member(b"d/a", b"a"),
        link(b"d", b"new"),
        member(b"d/b", b"b"),
        member(b"d/", typeflag=b"5", mode=0o755),
        member(b"d/c", b"c"),
    )
    _put(content, tree)
    assert sorted(str(path.relative_to(tree)) for path in tree.rglob("*")) == [
        "d", "d/c", "new", "new/b", "old", "old/a"
    ]  # fmt: skip


def test_a_link_that_leads_to_where_it_lies_can_be_replaced_through_itself(tree: Path) -> None:
    content = archive(
        member(b"x/", typeflag=b"5", mode=0o755),
        link(b"x/self", b"."),
        member(b"x/self/a", b"a"),
        member(b"x/self/self/", typeflag=b"5", mode=0o755),
        member(b"x/self/b", b"b"),
    )
    _put(content, tree)
    assert sorted(str(path.relative_to(tree)) for path in tree.rglob("*")) == ["x", "x/a", "x/self", "x/self/b"]


def test_a_directory_that_is_left_by_a_link_keeps_its_time(tree: Path) -> None:
    content = archive(
        pax({b"mtime": b"7.25"}),
        member(b"usr/", typeflag=b"5", mode=0o755),
        link(b"lib", b"usr"),
        member(b"lib/x", b"x"),
        member(b"lib/d/", typeflag=b"5", mode=0o755, mtime=9),
        member(b"lib/d/y", b"y"),
    )
    _put(content, tree)
    assert (tree / "usr").stat().st_mtime == 7.25
    assert (tree / "usr/d").stat().st_mtime == 9


def test_deletions_speak_of_where_a_link_led_when_they_came(tree: Path) -> None:
    content = archive(
        member(b"e/x/", typeflag=b"5", mode=0o755),
        member(b"d/", typeflag=b"5", mode=0o755),
        member(b"d/.wh.x"),
        link(b"d", b"e"),
        member(b".wh.gone"),
    )
    found = _put(content, tree)
    assert (found.whiteouts, found.opaque) == ((b"gone",), ())


def test_a_whiteout_below_a_link_of_a_directory_that_is_there_makes_it_opaque(tree: Path) -> None:
    content = archive(link(b"lib", b"usr"), member(b"usr/x/", typeflag=b"5", mode=0o755), member(b"lib/.wh.x"))
    found = _put(content, tree)
    assert (found.whiteouts, found.opaque) == ((), (b"usr/x",))


def test_a_hard_link_waits_for_its_target_below_a_link(tree: Path) -> None:
    content = archive(
        link(b"lib", b"usr"),
        member(b"usr/", typeflag=b"5", mode=0o755),
        link(b"lib/h", b"lib/f", b"1"),
        member(b"usr/f", b"data"),
    )
    _put(content, tree)
    assert (tree / "usr/h").samefile(tree / "usr/f")


def test_a_hard_links_own_entry_changes_nothing(tree: Path) -> None:
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    content = archive(
        pax({b"SCHILY.xattr.security.capability": capability}),
        member(b"f", b"x", mode=0o4755, uid=5, mtime=6),
        pax({b"SCHILY.xattr.trusted.a": b"1"}),
        member(b"h", b"", b"1", link=b"f", mode=0o600, uid=7),
    )
    _put(content, tree)
    status = (tree / "h").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_mtime) == (0o4755, 5, 6)
    assert os.getxattr(tree / "h", "security.capability") == capability
    assert os.listxattr(tree / "h") == ["security.capability"]


# Attributes


@pytest.mark.parametrize(
    "name",
    [
        *(
            "trusted.overlay.opaque",
            "trusted.overlay.redirect",
            "trusted.overlay.overlay.opaque",
            "user.overlay.opaque",
        ),
        *("security.other", "system.other", "nonsense"),
    ],
)
def test_attributes_that_are_no_layers_own_are_skipped_with_a_note(tree: Path, name: str) -> None:
    content = _put(archive(pax({b"SCHILY.xattr." + name.encode(): b"y"}), member(b"d/", b"", b"5")), tree)
    assert os.listxattr(tree / "d") == []
    assert name in content.notes[0]


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("system.posix_acl_access", member(b"f", b"", b"2", link=b"t")),
        ("system.posix_acl_default", member(b"f", b"x")),
        ("user.a", member(b"f", b"", b"6")),
        ("security.capability", member(b"f", b"", b"5")),
    ],
)
def test_attributes_that_a_file_cannot_have_are_skipped_with_a_note(tree: Path, name: str, entry: bytes) -> None:
    content = _put(archive(pax({b"SCHILY.xattr." + name.encode(): b"y"}), entry), tree)
    assert os.listxattr(tree / "f", follow_symlinks=False) == []
    assert name in content.notes[0]


# Depth


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """Let this process have no more than it has and 100."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 100, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


_LEVELS: Final = 20_000
_BEYOND_PATH_MAX: Final = 3_000


def _levels(tree: Path) -> int:
    """Count the levels of a tree of one branch, and remove it from below."""
    levels, here = 0, os.open(tree, os.O_RDONLY)
    while names := [entry.name for entry in os.scandir(here) if entry.is_dir(follow_symlinks=False)]:
        following = os.open(names[0], os.O_RDONLY, dir_fd=here)
        os.close(here)
        here, levels = following, levels + 1
    for name in os.listdir(here):
        os.unlink(name, dir_fd=here)
    for _ in range(levels):
        above = os.open("..", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = above
        for name in os.listdir(here):
            os.rmdir(name, dir_fd=here)
    os.close(here)
    return levels


@pytest.mark.usefixtures("few_descriptors")
def test_a_tree_may_be_deeper_than_a_path_can_tell(tree: Path) -> None:
    deep = b"d/" * _LEVELS
    content = archive(
        *[pax({b"path": deep[: 2 * depth]}) + member(b"d", typeflag=b"5", mode=0o700, mtime=depth)
          for depth in range(1, _LEVELS, 1000)],
        pax({b"path": deep + b"f"}), member(b"f", b"data"),
        pax({b"path": deep + b"h", b"linkpath": deep + b"f"}), member(b"h", typeflag=b"1"),
        pax({b"path": deep + b".wh.gone"}), member(b"w"),
        member(b"d/top", b"x"),
        member(b"d/.wh.top2"),
    )  # fmt: skip
    found = _put(content, tree)
    assert (found.tree_size, len(found.whiteouts)) == (5, 2)
    assert (tree / "d").stat().st_mtime == 1
    os.unlink(tree / "d/top")
    os.unlink(tree / "d/top2")
    assert _levels(tree) == _LEVELS


@pytest.mark.usefixtures("few_descriptors")
def test_a_deep_tree_can_be_replaced(tree: Path) -> None:
    content = archive(pax({b"path": b"d/" * _BEYOND_PATH_MAX + b"f"}), member(b"f", b"data"), member(b"d", b"x"))
    assert _put(content, tree).tree_size == 1
    assert (tree / "d").read_bytes() == b"x"


def test_what_is_published_has_no_name_that_cvmfs_takes_for_a_deletion(tree: Path) -> None:
    content = archive(member(b"d/x", b""), link(b"l", b".WH.x"), member(b"wh", b""), member(b"d/a.WH.b", b""))
    unpack(io.BytesIO(content), tree, deletions=OverlayDeletions(), limits=ArchiveLimits())
    with pytest.raises(UnsafeArchiveError, match=r"'d/\.Wh\.\.wh\.\.opq' cannot be published"):
        survey(io.BytesIO(archive(member(b"d/.Wh..wh..opq", b""))), limits=ArchiveLimits())
