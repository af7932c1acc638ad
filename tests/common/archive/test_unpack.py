"""What ordinary archives become on disk."""

import io
import os
import resource
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.common.archive.errors import ArchiveReadError, TreeWriteError, UnsafeArchiveError
from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import LayerContent
from services.common.archive.ondisk import OverlayDeletions
from services.common.archive.unpack import unpack
from tests.support.tars import END, GNU_MAGIC, archive, gnu_long, member, pax

Put = Callable[..., LayerContent]


def status(path: Path) -> os.stat_result:
    return path.stat(follow_symlinks=False)


def test_every_type_gets_its_attributes(tree: Path, put: Put) -> None:
    attributes: dict[str, Any] = {"uid": 1000, "gid": 2000, "mtime": 1_600_000_000}
    content = put(
        archive(
            member(b"d/", b"", b"5", mode=0o1771, **attributes),
            member(b"d/file", b"hello", mode=0o640, **attributes),
            member(b"d/link", typeflag=b"2", link=b"/no/where/../x", **attributes),
            member(b"d/fifo", typeflag=b"6", mode=0o622, **attributes),
            member(b"d/char", typeflag=b"3", mode=0o666, major=1, minor=3, **attributes),
            member(b"d/block", typeflag=b"4", mode=0o660, major=259, minor=70_000, **attributes),
        )
    )
    assert (tree / "d/file").read_bytes() == b"hello"
    assert (tree / "d/link").readlink() == Path("/no/where/../x")
    assert status(tree / "d/char").st_rdev == os.makedev(1, 3)
    assert status(tree / "d/block").st_rdev == os.makedev(259, 70_000)
    modes = {path.name: status(path).st_mode for path in [tree / "d", *(tree / "d").iterdir()]}
    assert modes == {
        "d": stat.S_IFDIR | 0o1771,
        "file": stat.S_IFREG | 0o640,
        "link": stat.S_IFLNK | 0o777,
        "fifo": stat.S_IFIFO | 0o622,
        "char": stat.S_IFCHR | 0o666,
        "block": stat.S_IFBLK | 0o660,
    }
    for path in [tree / "d", *(tree / "d").iterdir()]:
        assert (status(path).st_uid, status(path).st_gid) == (1000, 2000), path
        assert status(path).st_mtime_ns == 1_600_000_000 * 10**9, path
    assert (content.entries, content.tree_size, content.notes) == (6, 19, ())


@pytest.mark.parametrize("mode", [0o000, 0o4755, 0o2755, 0o6711, 0o7777])
def test_modes_survive_owners_and_umask(tree: Path, put: Put, mode: int) -> None:
    before = os.umask(0o077)
    try:
        put(archive(member(b"d/", b"", b"5", mode=mode, uid=7), member(b"d/f", b"x", mode=mode, uid=7)))
    finally:
        os.umask(before)
    assert stat.S_IMODE(status(tree / "d").st_mode) == mode
    assert stat.S_IMODE(status(tree / "d/f").st_mode) == mode


def test_a_missing_parent_is_roots_and_the_same_everywhere(tree: Path, put: Put) -> None:
    put(archive(member(b"a/b/c", b"", uid=5, gid=5)))
    for path in (tree / "a", tree / "a/b"):
        found = status(path)
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_mtime_ns) == (0o755, 0, 0, 0)


def test_attributes_of_a_directory_may_come_after_its_files(tree: Path, put: Put) -> None:
    put(archive(member(b"a/f", b"x"), member(b"b/", b"", b"5"), member(b"a/", b"", b"5", mode=0o700, mtime=77)))
    assert (stat.S_IMODE(status(tree / "a").st_mode), status(tree / "a").st_mtime) == (0o700, 77)
    assert (tree / "a/f").read_bytes() == b"x"


def test_times_of_directories_outlast_what_is_made_in_them(tree: Path, put: Put) -> None:
    put(
        archive(
            member(b"a/", b"", b"5", mtime=11),
            member(b"a/b/", b"", b"5", mtime=22),
            member(b"other", b""),
            member(b"a/b/late", b""),
            member(b"a/.wh.gone", b""),
            member(b"a/b/link", typeflag=b"1", link=b"later"),
            member(b"later", b""),
        )
    )
    assert [status(tree / name).st_mtime for name in ("a", "a/b")] == [11, 22]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (b"1700000000.123456789", 1_700_000_000_123_456_789),
        (b"1.5", 1_500_000_000),
        (b"-1.25", -1_250_000_000),
        (b"5000000000", 5_000_000_000 * 10**9),
        (b"1.1234567899", 1_123_456_789),
    ],
)
def test_times_of_pax_records(tree: Path, put: Put, seconds: bytes, expected: int) -> None:
    put(archive(pax({b"mtime": seconds}), member(b"f", b"")))
    assert status(tree / "f").st_mtime_ns == expected


def test_a_negative_time_of_base_256(tree: Path, put: Put) -> None:
    put(archive(member(b"f", b"", mtime=(-7).to_bytes(12, "big", signed=True), magic=GNU_MAGIC)))
    assert status(tree / "f").st_mtime == -7


def test_large_ids(tree: Path, put: Put) -> None:
    largest = (1 << 32) - 2
    put(
        archive(
            pax({b"uid": b"3000000", b"gid": b"%d" % largest}),
            member(b"f", b""),
            member(b"g", b"", uid=b"\x80\0\0\0\x01\0\0\0", gid=b"\x80\0\0\0\0\x30\0\0", magic=GNU_MAGIC),
        )
    )
    assert (status(tree / "f").st_uid, status(tree / "f").st_gid) == (3_000_000, largest)
    assert (status(tree / "g").st_uid, status(tree / "g").st_gid) == (1 << 24, 0x300000)


LONG = b"/".join([b"n" * 90] * 4)


@pytest.mark.parametrize(
    "parts",
    [
        (pax({b"path": LONG}), member(LONG[:100], b"x")),
        (gnu_long(LONG), member(LONG[:100], b"x", magic=GNU_MAGIC)),
        (gnu_long(LONG), pax({b"path": LONG, b"mtime": b"1"}), member(b"short", b"x")),
        (member(b"n" * 90, b"x", prefix=LONG[:-91][:155]),),
    ],
    ids=["pax", "gnu", "both, agreeing", "ustar prefix"],
)
def test_long_names(tree: Path, put: Put, parts: tuple[bytes, ...]) -> None:
    put(archive(*parts))
    files = [path for path in tree.rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in files] == [b"x"]
    expected = [LONG, LONG[:-91][:155] + b"/" + b"n" * 90]
    assert os.fsencode(files[0].relative_to(tree)) in expected


@pytest.mark.parametrize(
    "name", ["\u00fc\u00f1\u00ed".encode(), b"\xff\xfe latin \xe9", b"new\nline", b"tab\t\\ \x7f", b"$(X)"]
)
def test_names_are_bytes(tree: Path, put: Put, name: bytes) -> None:
    put(archive(member(name, b"1"), pax({b"path": b"p" + name}), member(b"short", b"2")))
    assert sorted(os.listdir(os.fsencode(tree))) == sorted([name, b"p" + name])


def test_a_long_link_target_is_kept_as_it_is(tree: Path, put: Put) -> None:
    target = b"../" * 500 + b"//\xff/./x"
    put(
        archive(
            pax({b"linkpath": target}),
            member(b"a", typeflag=b"2"),
            gnu_long(target, b"K"),
            member(b"b", typeflag=b"2", magic=GNU_MAGIC),
        )
    )
    assert {os.readlink(os.fsencode(tree / name)) for name in "ab"} == {target}


@pytest.mark.parametrize("name", [b"./d/f", b"/d/f", b"//d//f", b"d/./f", b"././d/f"])
def test_names_that_mean_the_same(tree: Path, put: Put, name: bytes) -> None:
    put(archive(member(name, b"x")))
    assert (tree / "d/f").read_bytes() == b"x"


@pytest.mark.parametrize("name", [b"./", b".", b"/", b"./."])
def test_the_root_keeps_its_own_attributes(tree: Path, put: Put, name: bytes) -> None:
    before = status(tree)
    content = put(archive(pax({b"SCHILY.xattr.user.a": b"b"}), member(name, b"", b"5", mode=0o700, uid=3, mtime=5)))
    after = status(tree)
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (before.st_mode, before.st_uid, before.st_mtime_ns)
    assert content.entries == 1
    assert os.listxattr(tree) == []


def test_a_seventh_edition_directory(tree: Path, put: Put) -> None:
    put(archive(member(b"d/", b"", b"\0", magic=b"", mode=0o700), member(b"d/f", b"x", b"\0", magic=b"")))
    assert stat.S_IMODE(status(tree / "d").st_mode) == 0o700
    assert (tree / "d/f").read_bytes() == b"x"


class TestReplacing:
    """Later entries replace earlier ones."""

    def test_file_by_file(self, tree: Path, put: Put) -> None:
        content = put(archive(member(b"f", b"long content"), member(b"f", b"new")))
        assert (tree / "f").read_bytes() == b"new"
        assert content.tree_size == 3

    def test_file_by_directory_and_back(self, tree: Path, put: Put) -> None:
        content = put(
            archive(
                member(b"x", b"1"),
                member(b"x/", b"", b"5"),
                member(b"x/y/z", b"22"),
                member(b"x", b"333"),
            )
        )
        assert (tree / "x").read_bytes() == b"333"
        assert content.tree_size == 3

    def test_symlink_by_what_would_go_through_it(self, tree: Path, put: Put) -> None:
        outside = tree.parent / "outside"
        outside.mkdir()
        put(
            archive(
                member(b"d", typeflag=b"2", link=os.fsencode(outside)),
                member(b"d/", b"", b"5"),
                member(b"d/f", b"x"),
            )
        )
        assert list(outside.iterdir()) == []
        assert (tree / "d/f").read_bytes() == b"x"

    def test_file_over_a_symlink_to_a_file(self, tree: Path, put: Put) -> None:
        victim = tree.parent / "victim"
        victim.write_bytes(b"before")
        put(archive(member(b"f", typeflag=b"2", link=os.fsencode(victim)), member(b"f", b"after", mode=0o777)))
        assert victim.read_bytes() == b"before"
        assert (tree / "f").read_bytes() == b"after"

    @pytest.mark.parametrize("typeflag", [b"2", b"3", b"4", b"6", b"1"])
    def test_anything_over_a_full_directory(self, tree: Path, put: Put, typeflag: bytes) -> None:
        put(
            archive(
                member(b"target", b"t"),
                member(b"x/y/z", b"1"),
                member(b"x", typeflag=typeflag, link=b"target", major=1, minor=1),
            )
        )
        assert sorted(path.name for path in tree.iterdir()) == ["target", "x"]
        assert not stat.S_ISDIR(status(tree / "x").st_mode)

    def test_a_directory_keeps_what_it_has(self, tree: Path, put: Put) -> None:
        put(archive(member(b"d/f", b"x"), member(b"d/", b"", b"5", mode=0o711)))
        assert (tree / "d/f").read_bytes() == b"x"

    def test_a_hard_link_keeps_the_replaced_content(self, tree: Path, put: Put) -> None:
        content = put(archive(member(b"a", b"old!"), member(b"b", typeflag=b"1", link=b"a"), member(b"a", b"new")))
        assert ((tree / "a").read_bytes(), (tree / "b").read_bytes()) == (b"new", b"old!")
        assert content.tree_size == 7


class TestHardLinks:
    def test_share_the_file(self, tree: Path, put: Put) -> None:
        content = put(
            archive(
                member(b"a", b"x" * 10, mode=0o4755, uid=9),
                member(b"d/b", typeflag=b"1", link=b"./a"),
                member(b"c", typeflag=b"1", link=b"/d/b"),
            )
        )
        assert len({status(tree / name).st_ino for name in ("a", "d/b", "c")}) == 1
        assert (status(tree / "c").st_nlink, stat.S_IMODE(status(tree / "c").st_mode)) == (3, 0o4755)
        assert content.tree_size == 10

    def test_to_what_comes_later_also_in_chains(self, tree: Path, put: Put) -> None:
        put(
            archive(
                member(b"z", typeflag=b"1", link=b"y"),
                member(b"y", typeflag=b"1", link=b"d/x"),
                member(b"w", typeflag=b"1", link=b"z"),
                member(b"d/x", b"late", mode=0o4711, mtime=5),
            )
        )
        assert len({status(tree / name).st_ino for name in ("z", "y", "w", "d/x")}) == 1
        assert (stat.S_IMODE(status(tree / "w").st_mode), status(tree / "w").st_mtime) == (0o4711, 5)

    def test_that_wait_give_way_to_later_entries(self, tree: Path, put: Put) -> None:
        put(
            archive(
                member(b"a", b"old"),
                member(b"a", typeflag=b"1", link=b"never"),
                member(b"b", typeflag=b"1", link=b"late"),
                member(b"a", b"new"),
                member(b"late", b"l"),
            )
        )
        assert ((tree / "a").read_bytes(), (tree / "b").read_bytes()) == (b"new", b"l")

    def test_to_symlinks_and_devices(self, tree: Path, put: Put) -> None:
        outside = tree.parent / "victim"
        outside.write_bytes(b"")
        put(
            archive(
                member(b"s", typeflag=b"2", link=os.fsencode(outside)),
                member(b"t", typeflag=b"1", link=b"s"),
                member(b"n", typeflag=b"3", major=1, minor=3),
                member(b"m", typeflag=b"1", link=b"n"),
            )
        )
        assert status(tree / "t").st_ino == status(tree / "s").st_ino
        assert status(tree / "m").st_rdev == os.makedev(1, 3)
        assert status(outside).st_nlink == 1

    def test_of_itself_by_another_name_of_the_same_file(self, tree: Path, put: Put) -> None:
        content = put(
            archive(
                member(b"a", b"xyz"),
                member(b"b", typeflag=b"1", link=b"a"),
                member(b"a", typeflag=b"1", link=b"b"),
            )
        )
        assert status(tree / "a").st_nlink == 2
        assert content.tree_size == 3


def test_a_large_file_passes_in_pieces(tree: Path, put: Put) -> None:
    data = os.urandom(3_000_000)
    put(archive(member(b"before", b"1"), member(b"large", data), member(b"after", b"2")))
    assert (tree / "large").read_bytes() == data
    assert (tree / "after").read_bytes() == b"2"


def test_a_source_of_single_bytes(tree: Path) -> None:
    class Drip(io.BytesIO):
        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            return super().readinto(buffer[:1])

    unpack(
        Drip(archive(member(b"d/f", b"content" * 100), member(b"g", b""))),
        tree,
        deletions=OverlayDeletions(),
        limits=ArchiveLimits(),
    )
    assert (tree / "d/f").read_bytes() == b"content" * 100


@pytest.mark.parametrize("content", [b"", END, END[:512], bytes(10240), member(b"f", b"x")], ids=len)
def test_ends_that_are_accepted(put: Put, content: bytes) -> None:
    assert put(content).stream_size == len(content)


def test_a_harmless_global_header(tree: Path, put: Put) -> None:
    put(archive(pax({b"comment": b"a git commit"}, b"g"), member(b"f", b"x")))
    assert [path.name for path in tree.iterdir()] == ["f"]


def test_a_tree_that_is_not_empty_is_left_alone(tree: Path) -> None:
    (tree / "there").write_bytes(b"")
    with pytest.raises(TreeWriteError, match="is not empty"):
        unpack(io.BytesIO(END), tree, deletions=OverlayDeletions(), limits=ArchiveLimits())


def test_a_tree_that_is_a_link_is_not_followed(tree: Path) -> None:
    link = tree.parent / "link"
    link.symlink_to(tree)
    with pytest.raises(TreeWriteError, match="cannot be unpacked to"):
        unpack(io.BytesIO(END), link, deletions=OverlayDeletions(), limits=ArchiveLimits())


def test_a_source_that_fails_is_no_fault_of_the_archive(tree: Path) -> None:
    class Broken(io.RawIOBase):
        def readinto(self, _buffer: memoryview) -> int:  # type: ignore[override]
            raise ConnectionResetError(104, "Connection reset by peer")

    with pytest.raises(ArchiveReadError, match="Connection reset") as caught:
        unpack(Broken(), tree, deletions=OverlayDeletions(), limits=ArchiveLimits())
    assert isinstance(caught.value.__cause__, ConnectionResetError)


def test_a_file_system_that_refuses_is_no_fault_of_the_archive(put: Put) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(TreeWriteError, match="'large' cannot be made: File too large"):
            put(archive(member(b"large", bytes(2 << 20))))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_no_descriptor_is_lost(tree: Path, open_descriptors: Callable[[], int]) -> None:
    before = open_descriptors()
    with pytest.raises(UnsafeArchiveError):
        unpack(
            io.BytesIO(archive(member(b"a/b/c/d/e", b""), member(b"a/b/l", typeflag=b"1", link=b"missing"))),
            tree,
            deletions=OverlayDeletions(),
            limits=ArchiveLimits(),
        )
    assert open_descriptors() == before
