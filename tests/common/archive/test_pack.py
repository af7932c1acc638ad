"""What a tree becomes as an archive; Python's tarfile reads it as the independent judge."""

import io
import os
import socket
import stat
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.trees import differences, read_directory
from services.common.archive.errors import (
    ArchiveLimitError,
    ArchiveWriteError,
    TreeChangedError,
    TreeReadError,
    UnsupportedTreeError,
)
from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import LayerContent
from services.common.archive.ondisk import OverlayDeletions
from services.common.archive.pack import has_changes, pack
from services.common.archive.survey import survey
from services.common.archive.unpack import unpack
from tests.support.deep import deepen, removed_afterwards

ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, permissions, user)
    for tag, permissions, user in (
        (0x01, 7, 0xFFFFFFFF),
        (0x02, 5, 1234),
        (0x04, 5, 0xFFFFFFFF),
        (0x10, 5, 0xFFFFFFFF),
        (0x20, 0, 0xFFFFFFFF),
    )
)
"""An access control list with one user more than the owner (linux/posix_acl_xattr.h)."""
CAPABILITY = b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12)


def packed(tree: Path, exclude: frozenset[bytes] = frozenset()) -> tuple[bytes, LayerContent]:
    """Pack a tree; a survey of the archive must say the same of it as its writer."""
    sink = io.BytesIO()
    content = pack(tree, sink, exclude=exclude)
    surveyed = survey(io.BytesIO(sink.getvalue()), limits=ArchiveLimits())
    assert (content.entries, content.tree_size, content.stream_size, content.whiteouts, content.opaque) == (
        surveyed.entries,
        surveyed.tree_size,
        surveyed.stream_size,
        surveyed.whiteouts,
        surveyed.opaque,
    )
    assert surveyed.notes == ()
    return sink.getvalue(), content


def members(content: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(content), errors="surrogateescape") as tar:
        return {info.name: info for info in tar}


def names(content: bytes) -> list[str]:
    return list(members(content))


def test_every_type_survives_the_way_there_and_back(tree: Path, tmp_path: Path) -> None:
    (tree / "d").mkdir(mode=0o1777)
    (tree / "d/file").write_bytes(b"content")
    (tree / "d/file").chmod(0o6751)
    os.chown(tree / "d/file", 3_000_000, (1 << 32) - 2)
    (tree / "d/file").chmod(0o6751)
    os.link(tree / "d/file", tree / "a link")
    (tree / "secret").write_bytes(b"x")
    (tree / "secret").chmod(0)
    (tree / "s").symlink_to("../nowhere")
    os.link(tree / "s", tree / "s2", follow_symlinks=False)
    os.chown(tree / "s", 5, 6, follow_symlinks=False)
    os.mkfifo(tree / "fifo", 0o622)
    os.mknod(tree / "char", 0o020640, os.makedev(1, 3))
    os.mknod(tree / "block", 0o060660, os.makedev(259, 70_000))
    (tree / "caps").write_bytes(b"#!")
    os.setxattr(tree / "caps", "security.capability", CAPABILITY)
    os.setxattr(tree / "caps", "user.note", b"\0\n=\xff")
    os.setxattr(tree / "d", "user.empty", b"")
    (tree / "o").mkdir()
    os.setxattr(tree / "o", "trusted.overlay.opaque", b"y")
    os.mknod(tree / "d/gone", 0o020000, 0)
    os.utime(tree / "caps", ns=(0, -1_500_000_001))
    os.utime(tree / "fifo", ns=(0, 8_600_000_000_123_456_789))
    os.utime(tree / "s", ns=(0, 999_999_999), follow_symlinks=False)
    os.utime(tree / "d", ns=(0, 7))

    content, layer = packed(tree)
    assert (layer.whiteouts, layer.opaque, layer.notes) == ((b"d/gone",), (b"o",), ())
    again = tmp_path / "again"
    again.mkdir()
    assert unpack(io.BytesIO(content), again, deletions=OverlayDeletions(), limits=ArchiveLimits()) == layer
    before, after = read_directory(tree), read_directory(again)
    del before[b"."], after[b"."]
    # A whiteout's own attributes are nobody's.
    del before[b"d/gone"], after[b"d/gone"]
    assert differences(before, after) == []
    assert packed(again)[0] == content


def test_the_order_is_that_of_bytes_and_parents_come_first(tree: Path) -> None:
    for name in (b"b", b"a.x", b"a-x", b"\xff", "\U0001f600".encode(), b"\xc3\xa9"):
        (tree / os.fsdecode(name)).write_bytes(b"")
    (tree / "a").mkdir()
    (tree / "a/z").write_bytes(b"")
    (tree / "a/A").write_bytes(b"")
    content, _ = packed(tree)
    order = [os.fsencode(name) for name in names(content)]
    assert order == [b"a", b"a/A", b"a/z", b"a-x", b"a.x", b"b", b"\xc3\xa9", b"\xf0\x9f\x98\x80", b"\xff"]


def test_the_same_tree_gives_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for root, order in ((tree, 1), (other, -1)):
        for number in list(range(50))[::order]:
            (root / f"f{number}").write_bytes(b"%d" % number)
            os.utime(root / f"f{number}", ns=(number, number))
    assert packed(tree)[0] == packed(other)[0]


def test_nothing_of_the_machine_is_in_it(tree: Path) -> None:
    (tree / "f").write_bytes(b"")
    info = members(packed(tree)[0])["f"]
    assert (info.uname, info.gname) == ("", "")
    assert set(info.pax_headers) == {"mtime"}


def test_whole_seconds_need_no_extended_header(tree: Path) -> None:
    (tree / "f").write_bytes(b"x")
    os.utime(tree / "f", (5, 5))
    assert len(packed(tree)[0]) == 4 * 512


def test_an_empty_tree(tree: Path) -> None:
    assert packed(tree)[0] == bytes(1024)
    assert not has_changes(tree)


@pytest.mark.parametrize(
    "name",
    [
        "n" * 100,
        "n" * 101,
        "d/" * 80 + "f",
        "\u00fc" * 60,
        os.fsdecode(b"\xff" * 101),
        os.fsdecode(b"\xe9" + b"/\xe9" * 60),
        "/".join(["n" * 200] * 19),
    ],
)
def test_names_are_kept_exactly(tree: Path, name: str) -> None:
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    os.link(path, tree / "0")
    (tree / "1").symlink_to(name[:4000])
    content, _ = packed(tree)
    found = members(content)
    assert found[name].linkname == "0"
    assert found["1"].linkname == name[:4000]


def test_large_numbers(tree: Path) -> None:
    (tree / "f").write_bytes(b"")
    os.truncate(tree / "f", (8 << 30) + 5)
    os.chown(tree / "f", 1 << 21, (1 << 21) - 1)

    class Size:
        size = 0
        head = b""

        def write(self, data: bytes) -> None:
            self.size += len(data)
            self.head = self.head or data[:2048]

    sink = Size()
    layer = pack(tree, sink)
    assert layer.stream_size == sink.size == 3 * 512 + (8 << 30) + 512 + 1024
    with tarfile.open(fileobj=io.BytesIO(sink.head)) as tar:
        info = tar.next()
    assert info is not None
    assert (info.size, info.uid, info.gid) == ((8 << 30) + 5, 1 << 21, (1 << 21) - 1)


@pytest.mark.parametrize(
    "data",
    [((0, b"x"),), ((4 << 20, b"y"),), ((1 << 20, b"z" * 5000), (3 << 20, b"w"))],
    ids=["first", "last", "inner"],
)
def test_holes_are_zeros(tree: Path, data: tuple[tuple[int, bytes], ...]) -> None:
    size = (4 << 20) + 1
    with (tree / "f").open("wb") as file:
        for offset, piece in data:
            file.seek(offset)
            file.write(piece)
        file.truncate(size)
    content, layer = packed(tree)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        member = tar.extractfile("f")
        assert member is not None
        assert member.read() == (tree / "f").read_bytes()
    assert layer.tree_size == size


def test_holes_are_not_read(tree: Path) -> None:
    with (tree / "f").open("wb") as file:
        file.truncate(1 << 40)

    class Enough(Exception):  # noqa: N818 - no error
        pass

    class Some:
        size = 0

        def write(self, data: bytes) -> None:
            self.size += len(data)
            if self.size > 4 << 30:
                raise Enough

    before = bytes_read()
    with pytest.raises(Enough):
        pack(tree, Some())
    assert bytes_read() - before < 1 << 20


def bytes_read() -> int:
    """Return what this process has asked the kernel to read, in bytes (proc(5))."""
    return int(Path("/proc/self/io").read_text(encoding="ascii").split()[1])


def test_exclusions(tree: Path) -> None:
    (tree / "thin.json").write_bytes(b"")
    (tree / "d/e").mkdir(parents=True)
    (tree / "d/e/f").write_bytes(b"")
    (tree / "d/g").write_bytes(b"")
    content, _ = packed(tree, exclude=frozenset({b"thin.json", b"d/e"}))
    assert names(content) == ["d", "d/g"]
    assert has_changes(tree, exclude={b"thin.json"})
    assert not has_changes(tree, exclude={b"thin.json", b"d"})


def test_whiteouts_that_share_an_inode_as_the_kernel_makes_them(tree: Path) -> None:
    os.mknod(tree / "a", 0o020000, 0)
    os.link(tree / "a", tree / "b")
    content, layer = packed(tree)
    assert names(content) == [".wh.a", ".wh.b"]
    assert layer.whiteouts == (b"a", b"b")


def test_links_carry_attributes_of_their_own_which_docker_needs(tree: Path) -> None:
    (tree / "a").write_bytes(b"#!")
    os.setxattr(tree / "a", "security.capability", CAPABILITY)
    (tree / "a").chmod(0o4755)
    os.setxattr(tree / "a", "security.capability", CAPABILITY)
    os.link(tree / "a", tree / "b")
    for info in members(packed(tree)[0]).values():
        assert info.mode == 0o4755
        assert info.pax_headers["SCHILY.xattr.security.capability"].encode("utf-8", "surrogateescape") == CAPABILITY


def test_the_marker_follows_its_directory(tree: Path) -> None:
    (tree / "o").mkdir()
    (tree / "o/-").write_bytes(b"")
    os.setxattr(tree / "o", "trusted.overlay.opaque", b"y")
    assert names(packed(tree)[0]) == ["o", "o/.wh..wh..opq", "o/-"]


def test_whiteouts_in_what_hides_everything_say_nothing(tree: Path) -> None:
    (tree / "o/d").mkdir(parents=True)
    os.setxattr(tree / "o", "trusted.overlay.opaque", b"y")
    os.mknod(tree / "o/x", 0o020000, 0)
    os.mknod(tree / "o/d/y", 0o020000, 0)
    os.mknod(tree / "p", 0o020000, 0)
    content, layer = packed(tree)
    assert names(content) == ["o", "o/.wh..wh..opq", "o/d", ".wh.p"]
    assert (layer.whiteouts, layer.opaque) == ((b"p",), (b"o",))


def test_an_opaque_root(tree: Path) -> None:
    os.setxattr(tree, "trusted.overlay.opaque", b"y")
    content, layer = packed(tree)
    assert names(content) == [".wh..wh..opq"]
    assert layer.opaque == (b"",)


def test_sockets_are_left_out_with_a_note(tree: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tree / "s"))
        content, layer = packed(tree)
    assert names(content) == []
    assert layer.notes == ("'s': a socket, which no archive can hold, skipped",)


def _attributes(content: bytes, name: str) -> dict[str, bytes]:
    """Return the attributes of an entry."""
    headers = members(content)[name].pax_headers
    return {
        key.removeprefix("SCHILY.xattr."): value.encode(errors="surrogateescape")
        for key, value in headers.items()
        if key.startswith("SCHILY.xattr.")
    }


def test_what_is_published_has_the_attributes_that_layers_carry(tree: Path) -> None:
    (tree / "f").write_bytes(b"")
    os.setxattr(tree / "f", "trusted.mine", b"1")
    os.setxattr(tree / "f", "system.posix_acl_access", ACL)
    os.setxattr(tree / "f", "trusted.overlay.origin", b"1")
    os.setxattr(tree / "f", "trusted.overlay.overlay.opaque", b"y")
    os.setxattr(tree / "f", "user.overlay.opaque", b"y")
    os.setxattr(tree / "f", "user.a=b", b"1")
    os.setxattr(tree / "f", "user.kept", b"1")
    sink = io.BytesIO()
    layer = pack(tree, sink, limits=ArchiveLimits())
    assert _attributes(sink.getvalue(), "f") == {"user.kept": b"1"}
    assert len(layer.notes) == 4
    assert all("skipped" in note for note in layer.notes)


def test_what_stays_here_has_acls_and_what_is_roots_own_as_well(tree: Path) -> None:
    (tree / "d").mkdir()
    (tree / "d/f").write_bytes(b"")
    (tree / "d/link").symlink_to("f")
    os.mkfifo(tree / "d/fifo")
    for name in ("d", "d/f", "d/fifo"):
        os.setxattr(tree / name, "system.posix_acl_access", ACL)
    for name in ("d", "d/f", "d/fifo", "d/link"):
        os.setxattr(tree / name, "trusted.mine", name.encode(), follow_symlinks=False)
        os.setxattr(tree / name, "trusted.overlay.origin", b"1", follow_symlinks=False)
    os.setxattr(tree / "d", "system.posix_acl_default", ACL)
    sink = io.BytesIO()
    layer = pack(tree, sink)
    content = sink.getvalue()
    assert layer.notes == ()
    assert _attributes(content, "d") == {
        "trusted.mine": b"d",
        "system.posix_acl_access": ACL,
        "system.posix_acl_default": ACL,
    }
    for name in ("d/f", "d/fifo"):
        assert _attributes(content, name) == {"trusted.mine": name.encode(), "system.posix_acl_access": ACL}
    assert _attributes(content, "d/link") == {"trusted.mine": b"d/link"}


@pytest.mark.parametrize("attribute", ["redirect", "metacopy", "whiteout"])
def test_what_is_whole_only_with_the_layers_below_is_refused(tree: Path, attribute: str) -> None:
    (tree / "d").mkdir()
    (tree / "d/f").write_bytes(b"")
    os.setxattr(tree / "d/f", f"trusted.overlay.{attribute}", b"x")
    with pytest.raises(UnsupportedTreeError, match=f"'d/f' has the attribute 'trusted.overlay.{attribute}'"):
        pack(tree, io.BytesIO())


@pytest.mark.parametrize("name", [".wh.x", ".wh..wh..opq", ".wh."])
def test_a_name_that_would_be_a_deletion_is_refused(tree: Path, name: str) -> None:
    (tree / "d").mkdir()
    (tree / "d" / name).write_bytes(b"")
    with pytest.raises(UnsupportedTreeError, match=r"'d/\.wh\..*which means a deletion"):
        pack(tree, io.BytesIO())


@pytest.mark.parametrize("name", [".WH.x", ".Wh.x", ".wH.", ".WH..WH..OPQ"])
def test_a_name_that_cvmfs_takes_for_a_deletion_is_not_published(tree: Path, name: str) -> None:
    """CVMFS compares the prefix without case, and such a file would vanish."""
    (tree / "d").mkdir()
    (tree / "d" / name).write_bytes(b"")
    with pytest.raises(UnsupportedTreeError, match=f"'d/{name}' cannot be published: CVMFS takes"):
        pack(tree, io.BytesIO(), limits=ArchiveLimits())
    # A layer of this machine may hold it.
    stream = io.BytesIO()
    pack(tree, stream)
    assert names(stream.getvalue()) == ["d", f"d/{name}"]


@pytest.mark.parametrize(("depth", "name"), [(300, "d"), (2_500, "d"), (40, "x" * 255)])
def test_a_tree_of_any_depth_is_packed_but_not_published(tree: Path, depth: int, name: str) -> None:
    """A container makes directories in one another without ever naming the whole path."""
    with removed_afterwards(tree):
        deepen(tree, depth, name=name)
        (tree / "zone").touch()
        sink = io.BytesIO()
        layer = pack(tree, sink)
        assert layer.entries == depth + 2
        content = sink.getvalue()
        assert names(content) == [
            *("/".join([name] * count) for count in range(1, depth + 1)),
            "/".join([name] * depth) + "/file",
            "zone",
        ]
        limit = "path_depth" if depth > 256 else "path_length"
        with pytest.raises(ArchiveLimitError, match=rf"\(limit {limit}\)"):
            pack(tree, io.BytesIO(), limits=ArchiveLimits())


def test_few_descriptors_are_open_at_a_time(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with removed_afterwards(tree):
        deepen(tree, 500)
        before = len(os.listdir("/proc/self/fd"))
        most = 0
        opened = os.open

        def count(path: bytes, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            nonlocal most
            descriptor = opened(path, flags, mode, dir_fd=dir_fd)
            most = max(most, descriptor)
            return descriptor

        monkeypatch.setattr(os, "open", count)
        pack(tree, io.BytesIO())
        assert most < before + 60


def test_the_deepest_tree_that_passes_is_read_again(tree: Path) -> None:
    (tree / ("d/" * 255)).mkdir(parents=True)
    (tree / ("d/" * 255) / "f").write_bytes(b"x")
    assert packed(tree)[1].entries == 256
    pack(tree, io.BytesIO(), limits=ArchiveLimits())


@pytest.mark.parametrize("kind", ["file", "directory", "whiteout"])
def test_one_level_more_is_not_published_whatever_it_is(tree: Path, kind: str) -> None:
    place = tree / ("d/" * 256) / "x"
    place.parent.mkdir(parents=True)
    if kind == "file":
        place.touch()
    elif kind == "directory":
        place.mkdir()
    else:
        os.mknod(place, stat.S_IFCHR, os.makedev(0, 0))
    with pytest.raises(ArchiveLimitError, match=r"is deeper than 256 directories \(limit path_depth\)"):
        pack(tree, io.BytesIO(), limits=ArchiveLimits())


def test_a_deletion_whose_mark_is_longer_than_a_name_is_not_published(tree: Path) -> None:
    os.mknod(tree / ("x" * 252), stat.S_IFCHR, os.makedev(0, 0))
    with pytest.raises(ArchiveLimitError, match="is the mark of a deletion, and longer than a name can be"):
        pack(tree, io.BytesIO(), limits=ArchiveLimits())
    sink = io.BytesIO()
    assert pack(tree, sink).whiteouts == (b"x" * 252,)
    assert names(sink.getvalue()) == [".wh." + "x" * 252]


def test_a_directory_that_is_moved_while_it_is_packed_is_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So deep that it is not held open, and so that the way back to it is gone."""
    deepen(tree, 100)
    (tree / "elsewhere").mkdir()
    opened = os.open

    def move(path: bytes, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == b"file":
            monkeypatch.undo()
            deep = tree / ("d/" * 40)
            (deep / "d").rename(tree / "elsewhere/d")
            deep.rename(tree / "elsewhere/other")
        return opened(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", move)
    with pytest.raises(TreeChangedError, match="was moved while it was read; stop what moves it and repeat"):
        pack(tree, io.BytesIO())


@pytest.mark.parametrize(("limit", "enough"), [("entries", 5), ("names_size", 18), ("tree_size", 10)])
def test_what_a_reader_would_refuse_is_refused_in_the_same_words(tree: Path, limit: str, enough: int) -> None:
    for name in ("a", "f"):
        (tree / name).write_bytes(b"12345")
    (tree / "s").symlink_to("target")
    (tree / "d").mkdir()
    os.mknod(tree / "d/x", stat.S_IFCHR, os.makedev(0, 0))
    stream = packed(tree)[0]
    limits = ArchiveLimits.model_validate({limit: enough})
    pack(tree, io.BytesIO(), limits=limits)
    survey(io.BytesIO(stream), limits=limits)
    limits = ArchiveLimits.model_validate({limit: enough - 1})
    with pytest.raises(ArchiveLimitError, match=f"limit {limit}"):
        pack(tree, io.BytesIO(), limits=limits)
    with pytest.raises(ArchiveLimitError, match=f"limit {limit}"):
        survey(io.BytesIO(stream), limits=limits)


def test_no_tree(tree: Path) -> None:
    with pytest.raises(TreeReadError, match=r"none cannot be read: No such file"):
        pack(tree / "none", io.BytesIO())
    with pytest.raises(TreeReadError, match=r"none cannot be read: No such file"):
        has_changes(tree / "none")


def test_a_sink_that_fails(tree: Path) -> None:
    (tree / "f").write_bytes(b"")
    with (
        open("/dev/full", "wb", buffering=0) as full,
        pytest.raises(ArchiveWriteError, match=r"cannot be written on after 0 bytes: .*No space left on device"),
    ):
        pack(tree, full)


def test_no_descriptor_is_lost(tree: Path, open_descriptors: Callable[[], int]) -> None:
    (tree / "a/b/c").mkdir(parents=True)
    (tree / "a/b/c/.wh.x").write_bytes(b"")
    before = open_descriptors()
    with pytest.raises(UnsupportedTreeError):
        pack(tree, io.BytesIO())
    (tree / "a/b/c/.wh.x").unlink()
    pack(tree, io.BytesIO())
    assert open_descriptors() == before
