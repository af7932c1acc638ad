"""Archives of real programs, and what headers say in the formats that few programs write any more."""

import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.trees import Exclusions, differences, read_directory
from services.common.archive.errors import MalformedArchiveError
from services.common.archive.limits import ArchiveLimits
from services.common.archive.model import LayerContent
from services.common.archive.policy import PublishedPolicy
from services.common.archive.reader import TarReader
from services.common.archive.stream import TarStream
from tests.support.tars import GNU_MAGIC, archive, header, member, octal, pax

Put = Callable[..., LayerContent]
ROOT = Exclusions(times=frozenset({b"."}))


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """A tree that every format can hold, times in whole seconds."""
    tree = tmp_path / "original"
    deep = tree / ("d" * 40) / ("e" * 40)
    deep.mkdir(parents=True)
    (deep / ("f" * 60)).write_bytes(b"content" * 1000)
    (tree / "setuid").write_bytes(b"")
    os.chown(tree / "setuid", 1000, 100)
    (tree / "setuid").chmod(0o4750)
    os.link(tree / "setuid", tree / "linked")
    (tree / "symlink").symlink_to("../x")
    for path in [*tree.rglob("*")][::-1]:
        os.utime(path, (1_600_000_000, 1_600_000_000), follow_symlinks=False)
    return tree


def packed_by_gnu_tar(tree: Path, *options: str) -> bytes:
    # A record of one block, so that the archive ends after its two zero blocks, and no other than numeric owners.
    command = ["tar", "-c", "--sort=name", "-b1", "--numeric-owner", *options, "."]
    return subprocess.run(command, cwd=tree, check=True, capture_output=True).stdout


@pytest.mark.parametrize("tar_format", ["ustar", "oldgnu", "gnu", "posix"])
def test_gnu_tars_formats(original: Path, tree: Path, put: Put, tar_format: str) -> None:
    put(packed_by_gnu_tar(original, f"--format={tar_format}"))
    assert differences(read_directory(original, exclusions=ROOT), read_directory(tree, exclusions=ROOT)) == []


@pytest.mark.parametrize(
    "options",
    [
        ("--format=oldgnu",),
        ("--format=gnu",),
        ("--format=posix", "--sparse-version=0.0"),
        ("--format=posix", "--sparse-version=0.1"),
        ("--format=posix", "--sparse-version=1.0"),
    ],
)
@pytest.mark.parametrize("extents", [0, 1, 4, 5, 25, 26, 300])
@pytest.mark.parametrize("tail", [0, 10_000])
def test_gnu_tars_sparse_files(
    tmp_path: Path, tree: Path, put: Put, options: tuple[str, ...], extents: int, tail: int
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        for number in range(extents):
            file.seek((2 * number + 1) * 4096)
            file.write(b"%d" % number * 700)
        file.truncate(file.tell() + tail)
    os.utime(source / "sparse", (7, 7))
    content = packed_by_gnu_tar(source, "--sparse", *options)
    layer = put(content)
    assert differences(read_directory(source, exclusions=ROOT), read_directory(tree, exclusions=ROOT)) == []
    assert layer.tree_size == (source / "sparse").stat().st_size
    assert (tree / "sparse").stat().st_blocks <= (source / "sparse").stat().st_blocks


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_pythons_formats(original: Path, tree: Path, put: Put, tar_format: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        tar.add(original, arcname=".")
    put(buffer.getvalue())
    assert differences(read_directory(original, exclusions=ROOT), read_directory(tree, exclusions=ROOT)) == []


def test_large_numbers_of_pythons_gnu_format(tree: Path, put: Put) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        info = tarfile.TarInfo("d/" * 60 + "\udcff")
        info.size, info.uid, info.mtime = 3, 1 << 28, -5
        tar.addfile(info, io.BytesIO(b"abc"))
    put(buffer.getvalue())
    path = tree.joinpath(*["d"] * 60, "\udcff")
    found = path.stat()
    assert (path.read_bytes(), found.st_uid, found.st_mtime) == (b"abc", 1 << 28, -5)


def with_trailer(block: bytes, prefix: bytes) -> bytes:
    """Turn a header into star's: a prefix of 131 bytes, two times, and a mark at its end."""
    fields = prefix.ljust(131, b"\0") + octal(5, 12) + octal(6, 12) + b"\0" * 8 + b"tar\0"
    changed = block[:148] + b" " * 8 + block[156:345] + fields
    return changed[:148] + b"%06o\0 " % sum(changed) + changed[156:]


@pytest.mark.parametrize("prefix", [b"p/" * 65 + b"q", b"usr/lib"])
def test_stars_prefix(tree: Path, put: Put, prefix: bytes) -> None:
    put(archive(with_trailer(header(b"name"), prefix)))
    assert (tree / os.fsdecode(prefix) / "name").is_file()


def test_gnus_times_are_no_prefix(tree: Path, put: Put) -> None:
    put(archive(member(b"name", b"x", magic=GNU_MAGIC, prefix=octal(1_600_000_000, 12) + octal(7, 12))))
    assert [path.name for path in tree.iterdir()] == ["name"]


@pytest.mark.parametrize("checksum", [b"%06o\0 ", b"%07o\0", b" %06o ", b"%6o\0 "])
def test_checksums_in_every_writers_form(tree: Path, put: Put, checksum: bytes) -> None:
    block = header(b"name")
    total = sum(block) - sum(block[148:156]) + 8 * 0x20
    put(archive(block[:148] + (checksum % total) + block[156:]))
    assert (tree / "name").is_file()


def test_a_checksum_of_signed_bytes(tree: Path, put: Put) -> None:
    block = header(b"\xff\xfe")
    total = sum(byte - 256 if byte > 127 else byte for byte in block[:148] + b" " * 8 + block[156:])
    put(archive(block[:148] + b"%06o\0 " % total + block[156:]))
    assert os.listdir(os.fsencode(tree)) == [b"\xff\xfe"]


def test_a_header_of_high_bytes_only_needs_the_long_sum() -> None:
    block = header(b"\xff" * 100, link=b"\xff" * 100, prefix=b"\xff" * 155)
    assert sum(block) > 65_521 + 8 * 0x20
    assert TarReader(TarStream(io.BytesIO(block), ArchiveLimits()), PublishedPolicy(ArchiveLimits())).next() is not None
    wrong = sum(block) - sum(block[148:156]) + 8 * 0x20 - 65_521
    forged = block[:148] + b"%06o\0 " % wrong + block[156:]
    with pytest.raises(MalformedArchiveError, match="checksum"):
        TarReader(TarStream(io.BytesIO(forged), ArchiveLimits()), PublishedPolicy(ArchiveLimits())).next()


@pytest.mark.parametrize("size", [1 << 33, (1 << 33) + 512, 1 << 40])
@pytest.mark.parametrize("stand_in", ["0", "7" * 11, "the number"])
def test_sizes_that_only_a_record_holds(size: int, stand_in: str) -> None:
    field = b"\x80" + size.to_bytes(11, "big") if stand_in == "the number" else stand_in.encode()
    content = pax({b"size": b"%d" % size}) + header(b"f", size=field)
    entry = TarReader(TarStream(io.BytesIO(content), ArchiveLimits()), PublishedPolicy(ArchiveLimits())).next()
    assert entry is not None
    assert (entry.size, entry.stored) == (size, size)


@pytest.mark.parametrize("size", [(1 << 33) - 1, 5])
def test_sizes_that_the_header_should_have_held(size: int) -> None:
    content = pax({b"size": b"%d" % size}) + header(b"f", size=0)
    with pytest.raises(MalformedArchiveError, match=f"its PAX size is {size}, its header's size 0: readers disagree"):
        TarReader(TarStream(io.BytesIO(content), ArchiveLimits()), PublishedPolicy(ArchiveLimits())).next()
